"""Text of unknown origin inside a page: names of teachers, classes and files may come from a stranger's store.

What is escaped here stays inside its line, table cell or quoted string: no line break, no heading, no HTML gets through.
Everything passes `softlabels.text` first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from softlabels.text import one_line

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$#!&])")


def escaped(text: object) -> str:
    """The text as it reads, on one line of Markdown: what Markdown or HTML would take for markup is escaped."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def code(text: object) -> str:
    """The text as inline code, fit for a table cell too; backticks and bars, which could end either, become quotes and ¦."""
    line = one_line(text).replace("`", "'").replace("|", "¦")
    return f"`{line or ' '}`"


def quoted(text: object) -> str:
    """The text as a string of YAML's front matter, in JSON's quotes and ASCII, which YAML reads alike."""
    return json.dumps(one_line(text))


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
    exists = value.startswith("/") and os.path.exists(value)  # noqa: PTH110  # pathlib's raises where it is too long
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] or value if exists or _ABSOLUTE.match(value) else value


# Text that only begins with a slash, as some instructions to language models do, is no path: that has a second one and no
# blanks, or a file's suffix, or exists.
_ABSOLUTE = re.compile(r"(~[^/]*/|[A-Za-z]:[/\\]|\\\\|file:/+)[^/\\]|/[^\s/]+/\S*$|/[^/].*\.\w+$")
