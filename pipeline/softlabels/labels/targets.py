"""The kinds of targets: softmax (one distribution over the classes), sigmoid (a Bernoulli a class), values (a real vector); and
the errors for a question that a kind has no answer to, and for a name that no target may have.
"""

from __future__ import annotations

import re
from typing import Literal

from softlabels.errors import ConfigError

Target = Literal["softmax", "sigmoid", "values"]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_WHAT = {
    "softmax": ("distributions over the classes (softmax)", "ask for log_probs"),
    "sigmoid": ("a Bernoulli a class (sigmoid)", "ask for its logits or probabilities"),
    "values": (
        "real vectors (values)",
        "ask for values, which have no temperature and one mean of members, the weighted one",
    ),
}


def require_target(target: Target, what: str, *targets: Target) -> None:
    """Raise `ConfigError` unless labels of the kind `target`, which are asked for `what`, are of one of these kinds."""
    if target not in targets:
        are, instead = _WHAT[target]
        raise ConfigError(f"the labels are {are} and have no {what}", remedy=instead)


def require_name(name: object) -> str:
    """A name that a target may have. Raises `ConfigError` for others."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a target", remedy="use a-z, 0-9 and '_', a letter first, at most 32 characters"
        )
    return name
