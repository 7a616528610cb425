"""Several processes that share every batch, as threads of one: each with its own loader, and queues to exchange rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any, TypeVar

from softlabels.stream import Part

T = TypeVar("T")
SECONDS = 30  # after which an exchange that nobody joins fails


def parts(world: int) -> list[Part]:
    """One for each of `world` processes."""
    queues: dict[tuple[int, int], Queue[Any]] = {
        (source, target): Queue() for source in range(world) for target in range(world)
    }

    def exchange_of(rank: int) -> Callable[[Sequence[Any]], list[Any]]:
        def exchange(messages: Sequence[Any]) -> list[Any]:
            for target, message in enumerate(messages):
                queues[rank, target].put(message)
            return [queues[source, rank].get(timeout=SECONDS) for source in range(world)]

        return exchange

    return [Part(rank, world, exchange_of(rank)) for rank in range(world)]


def together(world: int, run: Callable[[Part], T]) -> list[T]:
    """What each process gives, all run at once."""
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, parts(world)))
