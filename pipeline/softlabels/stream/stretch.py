"""Which part of an epoch's sequence of rows a process, and a worker of it, gives, where they cannot ask each other.

A process is given as many rows of every batch as `parts.py` says, but not the same ones: its rows follow each other in the
sequence of the epoch, and of them those of each of its workers do. So windows, and with them chunks, are read by one worker,
except those in which two stretches meet. From the beginning of the sequence stand the rows of rank 0 (of its worker 0, its
worker 1, ...), then those of rank 1, and so on. The batch number b of a process comes from its worker b % workers, since
`DataLoader` asks them in turn.

No files, no torch. W processes.
"""

from __future__ import annotations

from dataclasses import dataclass

from softlabels.errors import ConfigError
from softlabels.stream.parts import Part


@dataclass(frozen=True)
class Stretch:
    """The rows `start:stop` of a sequence of `rows`, in batches of `size` and perhaps a shorter last one.

    Attributes:
        rows, batch_size: of all processes together.
        part: the process.
        worker, workers: it is number `worker` of its `workers`.

    Raises:
        ConfigError: a batch has fewer rows than there are processes, which then would not make as many steps.
    """

    rows: int
    batch_size: int
    part: Part
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if least := [count for count in (self.batch_size, self._rest) if 0 < count < self.part.world]:
            raise ConfigError(
                f"a batch of {least[0]} rows for {self.part.world} processes: some would be given none, and wait",
                remedy=f"choose another batch_size, of which {self.rows} rows leave no so short last batch",
            )

    @property
    def _full(self) -> int:
        return self.rows // self.batch_size

    @property
    def _rest(self) -> int:
        return self.rows % self.batch_size

    @property
    def steps(self) -> int:
        """Batches of the process, of all its workers together; every process has as many."""
        return self._full + (self._rest > 0)

    @property
    def size(self) -> int:
        """Rows of a batch, but for the last one."""
        return self.part.count(self.batch_size)

    @property
    def start(self) -> int:
        """Where the worker's first row stands in the sequence."""
        process: int = self._full * self.part.rows(self.batch_size).start + self.part.rows(self._rest).start
        return process + self._before(self.worker)

    @property
    def stop(self) -> int:
        """Where its last row ends."""
        return self.start + self._before(self.worker + 1) - self._before(self.worker)

    def _before(self, worker: int) -> int:
        """Rows of the workers before this one."""
        each, more = divmod(self._full, self.workers)
        last = self.part.count(self._rest) if more < worker else 0  # the last batch is that of worker `more`
        return (each * worker + min(more, worker)) * self.size + last

    def first(self, batch: int) -> int:
        """Which of the worker's own batches is the first from number `batch` of the process on."""
        return max(0, -(-(batch - self.worker) // self.workers))

    def number(self, own: int) -> int:
        """The number, in the process, of the worker's batch `own`."""
        return self.worker + own * self.workers
