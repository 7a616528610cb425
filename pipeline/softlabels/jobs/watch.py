"""What a job tells whoever called it, how long it will take, and how it is told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softlabels.student.tracker import Tracker

_log = logging.getLogger("softlabels")
_INTERVAL = 60.0  # seconds between two lines on the time that is left


@dataclass(frozen=True)
class Watch:
    """The receiver of a job's messages, which can also stop it.

    Attributes:
        say: called with lines on what is done; by default the log "softlabels", at level INFO.
        warn: called with lines on what may be wrong; by default the same log, at level WARNING.
        should_stop: called at each batch; when true, the job saves what it has and raises `Interrupted`. The same call resumes.
        tracker: makes a tracker for the curves of each student, beside TensorBoard (docs/training.md).

    Example:
        >>> from softlabels.errors import Interrupted
        >>> from softlabels.jobs.watch import Watch
        >>> watch = Watch(say=print, should_stop=lambda: True)
        >>> try:
        ...     label(states, teacher, LabelsConfig(), "stores/watched", watch=watch)
        ... except Interrupted:
        ...     made = label(states, teacher, LabelsConfig(), "stores/watched")  # goes on from there
    """

    say: Callable[[str], object] = _log.info
    warn: Callable[[str], object] = _log.warning
    should_stop: Callable[[], bool] = lambda: False
    tracker: Callable[[], Tracker] | None = None


LOGGED = Watch()


class TimeLeft:
    """Called with each epoch's number and seconds, says how many epochs are done and how long the rest will take."""

    def __init__(self, epochs: int, say: Callable[[str], object]) -> None:
        self._epochs, self._say, self._said = epochs, say, float("-inf")

    def __call__(self, epoch: int, seconds: float) -> None:
        """Say it, unless it was said a moment ago or nothing is left."""
        if time.monotonic() - self._said < _INTERVAL or epoch == self._epochs:
            return
        self._said = time.monotonic()
        left = (self._epochs - epoch) * seconds
        shown = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        self._say(f"epoch {epoch} of {self._epochs}, {seconds:.1f} s an epoch, about {shown} left")


def counted(number: int, noun: str) -> str:
    """`1 shard`, `2 shards`: for nouns whose plural has an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
