"""Where two JSON values differ, leaf by leaf: specifications, the settings of runs, environments."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

_LONGEST = 60  # characters of a value


class Difference(NamedTuple):
    """A leaf: its path (`teacher.members[0].weights`), its value in what was begun before and in this run, or None."""

    path: str
    theirs: Any
    ours: Any

    def said(self, theirs: str = "here", ours: str = "in this run") -> str:
        """`training.temperature: 4.0 here, 8.0 in this run`; the two places may be called otherwise."""
        return f"{self.path}: {_short(self.theirs)} {theirs}, {_short(self.ours)} {ours}"


def differences(theirs: Any, ours: Any, path: str = "") -> list[Difference]:
    """Every leaf in which two JSON values differ, by path; lists of different lengths differ as a whole."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            leaf
            for key in sorted(theirs.keys() | ours.keys())
            for leaf in differences(theirs.get(key), ours.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = enumerate(zip(theirs, ours, strict=True))
        return [leaf for place, (a, b) in pairs for leaf in differences(a, b, f"{path}[{place}]")]
    return [] if theirs == ours else [Difference(path, theirs, ours)]


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
