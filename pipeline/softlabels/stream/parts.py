"""Which rows of every batch one of several processes is given: as many as each other one, within one row.

Batches are those of one process, so what a student learns does not depend on how many there are. `loader.py` gives a process
its part of each; what lies in chunks that others read they send it, see `exchange.py`. W processes (`world`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError

Buffer = bytes | bytearray | memoryview
Ints = NDArray[np.int64]


def _alone(messages: Sequence[Buffer]) -> list[Buffer]:
    return list(messages)


@dataclass(frozen=True)
class Part:
    """One process's part of every batch.

    Attributes:
        rank, world: the process is number `rank`, from 0, of `world` processes.
        exchange: sends one message to each process, and returns the message from each. Both are lists of `world` messages in
            the order of ranks; the own one is ignored, and some are empty. A loader's background thread calls it, equally often
            and in the same order in every process, so loaders that are iterated at the same time need one exchange each. It
            raises if a process is gone, instead of waiting for it.

    Raises:
        ConfigError: there is no such rank.

    Example:
        >>> Part(1, 4).rows(50)  # of a batch of 50 rows
        slice(12, 25, None)
    """

    rank: int = 0
    world: int = 1
    exchange: Callable[[Sequence[Buffer]], list[Buffer]] = _alone

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ConfigError(
                f"rank {self.rank} of {self.world} processes",
                remedy=f"number the processes from 0 to {max(0, self.world - 1)}",
            )

    def rows(self, count: int) -> slice:
        """The part's rows of a batch of `count` rows; with fewer rows than processes some get none."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def count(self, count: int) -> int:
        """How many of a batch of `count` rows."""
        return count * (self.rank + 1) // self.world - count * self.rank // self.world

    def ranks(self, start: int, stop: int, *, size: int, total: int) -> Ints:
        """(stop - start,) the rank that gets each row from `start` to `stop` of a sequence of `total` rows, in batches of
        `size` and a last one with the rest.
        """
        places = np.arange(start, stop)
        ranks, last = self._of_batch(size)[places % size], places >= total - total % size
        ranks[last] = self._of_batch(total % size)[places[last] % size]
        return ranks

    def _of_batch(self, count: int) -> Ints:
        """(count,) the rank that is given each row of a batch."""
        cuts = np.arange(self.world + 1) * count // self.world
        return np.repeat(np.arange(self.world), np.diff(cuts))
