"""Text of unknown origin inside a page: names of teachers, classes and files may come from a stranger's store.

What is escaped here stays inside its line, table cell or quoted string: no line break, no heading, no HTML gets through.
Everything passes `softlabels.errors` first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from softlabels.errors import one_line
from softlabels.system.paths import lies_here

_BEYOND = re.compile("[^ -~]")
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$#!&])")


def escaped(text: object) -> str:
    """The text as it reads, on one line of Markdown: what Markdown or HTML would take for markup is escaped."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def code(text: object) -> str:
    """The text as inline code, fit for a table cell too; backticks and bars, which could end either, become quotes and ¦."""
    line = one_line(text).replace("`", "'").replace("|", "¦")
    return f"`{line or ' '}`"


def yaml_lines(fields: Mapping[str, object]) -> list[str]:
    """Lines of YAML's front matter, each value as JSON has it, in ASCII: YAML knows no pairs of surrogates."""
    return [
        f"{name}: {_BEYOND.sub(_yaml_escape, json.dumps(value, ensure_ascii=False))}" for name, value in fields.items()
    ]


def _yaml_escape(found: re.Match[str]) -> str:
    return f"\\U{ord(found[0]):08x}"


def without_folders(value: Any) -> Any:
    """A setting with each absolute path in it, as text, cut to its last part: where files lie on the machine that made a store
    is nobody's business and no help to others. Mappings and lists are gone through; their keys stay.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each) for each in value]
    if not isinstance(value, str):
        return value
    is_path = _ABSOLUTE.match(value) or lies_here(value)
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] or value if is_path else value


# Text that only begins with a slash, as some instructions to language models do, is no path: that has a second one and no
# blanks, or a file's suffix, or exists.
_ABSOLUTE = re.compile(r"(~[^/]*/|[A-Za-z]:[/\\]|\\\\|file:/+)[^/\\]|/[^\s/]+/\S*$|/[^/].*\.\w+$")
