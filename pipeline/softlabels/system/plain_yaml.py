"""YAML that a stranger wrote: plain values of little depth."""

from __future__ import annotations

from typing import Any

import yaml

_DEEPEST = 20


def plain_yaml(text: str | bytes, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """What it says to a safe loader.

    Raises:
        ValueError: it is none, it has aliases, of which a few make values without end, it is deep, which takes time without
            end, or a tag stands at what it does not fit.
    """
    depth = 0
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            depth += isinstance(token, (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken))
            depth -= isinstance(token, (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken))
            if depth > _DEEPEST or isinstance(token, yaml.AliasToken):
                raise ValueError("it is deep, or has aliases")
        return yaml.load(text, loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"it is no plain YAML: {error}") from error
