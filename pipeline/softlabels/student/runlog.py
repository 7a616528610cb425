"""What a run says about itself while it trains: `metrics.jsonl`, one JSON object a line, and TensorBoard events.

The lines are a function of the run's progress: on resume the file is written anew from the checkpoint's lines, so that it
equals the file of a run that was never stopped, apart from what stands under "times".
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder

NAME = "metrics.jsonl"
EVENTS = "tensorboard"
_log = logging.getLogger(__name__)


class RunLog:
    """Appends to the log of the run in `folder`.

    Args:
        lines: the lines so far; what is added is appended to this list too.
        step: optimizer steps done so far; TensorBoard forgets events after it.
    """

    def __init__(self, folder: LocalFolder, lines: list[str], step: int) -> None:
        self._folder, self._lines = folder, lines
        folder.put(NAME, "".join(line + "\n" for line in lines).encode())
        self._events = _events(folder, step)

    def add(self, entry: Mapping[str, object], step: int | None = None) -> None:
        """Append one line and, given a step, its numbers to TensorBoard. JSON has no infinity: that becomes null."""
        line = json.dumps(finite(entry), allow_nan=False)
        self._lines.append(line)
        self._folder.append(NAME, f"{line}\n".encode())
        if step is not None and self._events is not None:
            for name, value in _scalars(entry):
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Close TensorBoard's events."""
        if self._events is not None:
            self._events.close()


class Unwritten:
    """The log of a process that writes none."""

    def add(self, entry: Mapping[str, object], step: int | None = None) -> None:
        """Write nothing."""

    def close(self) -> None:
        """There is nothing to close."""


def _events(folder: LocalFolder, step: int) -> SummaryWriter | None:
    """TensorBoard's writer; None, and a warning, where the path is not UTF-8, which it cannot take."""
    events = folder.at(EVENTS)
    try:
        str(events).encode()
    except UnicodeEncodeError:
        _log.warning("%s is not UTF-8: no events for TensorBoard are written", events)
        return None
    folder.make(EVENTS)
    with system_errors("write", events):
        return SummaryWriter(str(events), purge_step=step + 1)


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


def _scalars(entry: Mapping[str, object], prefix: str = "") -> list[tuple[str, float]]:
    """Numbers by name, nested ones as `kl/4`; times are no curves."""
    found: list[tuple[str, float]] = []
    for name, value in entry.items():
        if isinstance(value, Mapping) and name != "times":
            found += _scalars(value, f"{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in ("epoch", "step"):
            found.append((prefix + name, float(value)))
    return found
