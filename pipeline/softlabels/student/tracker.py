"""Who is told of a run's curves while it trains: `Tracker`, and TensorBoard, which is always told.

`metrics.jsonl` (`runlog`) is the record of a run; a tracker only shows it, so one that fails is left out and training goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from softlabels.errors import SoftLabelsError
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder

EVENTS = "tensorboard"
_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Is told of one student; made anew each time that a run begins or goes on.

    ::

        class Printed:
            def begin(self, folder, settings, step):
                print(f"{folder.parent.name}, {folder.name}: {step} steps done")

            def scalars(self, values, step):
                print(step, values["train_loss"])

            def end(self):
                print("stopped, or done")
    """

    def begin(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        """Training begins, or goes on.

        Args:
            folder: of the student: `RUN/STUDENT`. The same where the run goes on.
            settings: plain values: `training`, and what else tells this run from others.
            step: optimizer steps that are done. What was said of later ones, before a kill, is said again.
        """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """The numbers of an epoch by name, nested ones as `kl/4`, after so many steps."""

    def end(self) -> None:
        """Nothing more is said: training has ended, or was stopped."""


class TensorBoard:
    """Events in `tensorboard/` of the student's folder, for `tensorboard --logdir RUN`."""

    def __init__(self, home: LocalFolder) -> None:
        self._home = home

    def begin(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        """Forget what was said of later steps."""
        str(folder).encode()  # a path that is not UTF-8 is none for TensorBoard
        self._home.make(EVENTS)
        with system_errors("write", folder / EVENTS):
            self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """A point of each curve."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def end(self) -> None:
        """Write what is left."""
        self._events.close()


class Tolerated:
    """A tracker that may fail: it is told nothing more then, and a warning says so. Errors of ours pass through."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._make = make
        self._tracker: Tracker | None = None

    def begin(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        """Make the tracker and begin."""
        with self._tolerating():
            self._tracker = self._make()
            self._tracker.begin(folder, settings, step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """As of the tracker."""
        with self._tolerating():
            if self._tracker is not None:
                self._tracker.scalars(values, step)

    def end(self) -> None:
        """As of the tracker."""
        with self._tolerating():
            if self._tracker is not None:
                self._tracker.end()

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        try:
            yield
        except SoftLabelsError:
            raise
        except (Exception, SystemExit) as error:
            who = "a tracker" if self._tracker is None else type(self._tracker).__name__
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            _log.warning("%s failed and gets no more numbers; training continues (%s)", who, why)
            self._tracker = None
