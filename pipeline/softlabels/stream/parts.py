"""Which rows of every batch one of several processes is given: as many as each other one, within one row.

Batches are those of one process, so what a student learns does not depend on how many there are. `loader.py` gives a process
its part of each; what it needs of others' chunks they send it, see `exchange.py`.

W processes (`world`), B rows of a whole batch.
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
    """The part of one process.

    Attributes:
        rank, world: it is number `rank`, from 0, of `world` processes.
        exchange: sends a message to each process and gives those of all, both W in their order, the own one unchanged. Messages
            may be empty; their sizes are known on both sides, if the two have the same data. A loader's background thread calls
            it, equally often and in the same order on every process. So two loaders that are iterated at the same time need an
            exchange each. Raises where a process is gone, rather than wait for it.

    Raises:
        ConfigError: there is no such rank.
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
        """Those of a batch of `count` rows; none where there are more processes than rows and it is not its turn."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def count(self, count: int) -> int:
        """How many of a batch of `count` rows."""
        return count * (self.rank + 1) // self.world - count * self.rank // self.world

    def ranks(self, count: int) -> Ints:
        """(count,) the rank that is given each row of a batch of `count` rows."""
        cuts = np.arange(self.world + 1) * count // self.world
        return np.repeat(np.arange(self.world), np.diff(cuts))
