"""What a run says about itself while it trains: `metrics.jsonl`, one JSON object a line; trackers are told its numbers.

The lines are a function of the run's progress: on resume the file is written anew from the checkpoint's lines, so that it
equals the file of a run that was never stopped, apart from what stands under "times".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from softlabels.student.tracker import Tolerated, Tracker
from softlabels.system.local import LocalFolder

NAME = "metrics.jsonl"


class RunLog:
    """Appends to the log of the run in `folder`.

    Args:
        lines: the lines so far; what is added is appended to this list too.
        step: optimizer steps done so far.
        trackers: make those that are told the numbers, and first the run's `settings`.
    """

    def __init__(
        self,
        folder: LocalFolder,
        lines: list[str],
        step: int,
        trackers: Sequence[Callable[[], Tracker]] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder, self._lines, self._trackers = folder, lines, [*map(Tolerated, trackers)]
        folder.put(NAME, "".join(line + "\n" for line in lines).encode())
        for tracker in self._trackers:
            tracker.begin(
                folder.at().absolute(), deepcopy({**(settings or {})}), step
            )  # its own: checkpoints have them too

    def add(self, entry: Mapping[str, object], step: int | None = None) -> None:
        """Append one line and, given a step, tell trackers its numbers. JSON has no infinity: that becomes null."""
        line = json.dumps(finite(entry), allow_nan=False)
        self._lines.append(line)
        self._folder.append(NAME, f"{line}\n".encode())
        if step is not None:
            for tracker in self._trackers:
                tracker.scalars(_scalars(entry), step)

    def close(self) -> None:
        """Tell trackers that nothing more comes."""
        for tracker in self._trackers:
            tracker.end()


class Unwritten:
    """The log of a process that writes none."""

    def add(self, entry: Mapping[str, object], step: int | None = None) -> None:
        """Write nothing."""

    def close(self) -> None:
        """There is nothing to close."""


def is_ended(folder: LocalFolder) -> bool:
    """Whether the log of the run in `folder` has its last line, which says `"end": true`."""
    try:
        lines = folder.read(NAME).splitlines()
    except FileNotFoundError:
        return False
    try:
        last = json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):  # torn by a kill
        return False
    return isinstance(last, dict) and last.get("end") is True


def finite(value: object) -> object:
    """A value as JSON can hold it: numbers that are not finite become null, inside mappings and lists too."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(entry: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    """Numbers by name, nested ones as `kl/4`; times are no curves."""
    found: dict[str, float] = {}
    for name, value in entry.items():
        if isinstance(value, Mapping) and name != "times":
            found |= _scalars(value, f"{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in ("epoch", "step"):
            found[prefix + name] = float(value)
    return found
