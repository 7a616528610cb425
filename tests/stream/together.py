"""Several processes that share every batch, as threads of one: each with its own loader, and queues to exchange rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue
from typing import Any, TypeVar

from softlabels.errors import Interrupted
from softlabels.stream import Part
from softlabels.system.patience import slices

T = TypeVar("T")


def together(world: int, run: Callable[[Part], T]) -> list[T]:
    """What each process gives, all run at once. Where one fails, exchanges of the others raise `Interrupted`."""
    queues: dict[tuple[int, int], Queue[Any]] = {(i, j): Queue() for i in range(world) for j in range(world)}
    is_gone = threading.Event()

    def received(queue: Queue[Any]) -> Any:
        for seconds in slices():
            try:
                return queue.get(timeout=seconds)
            except Empty:
                if is_gone.is_set():
                    break
        raise Interrupted("another process is gone", remedy="start all of them again")

    def exchange_of(rank: int) -> Callable[[Sequence[Any]], list[Any]]:
        def exchange(messages: Sequence[Any]) -> list[Any]:
            for target, message in enumerate(messages):
                queues[rank, target].put(message)
            return [received(queues[source, rank]) for source in range(world)]

        return exchange

    def process(rank: int) -> T:
        try:
            return run(Part(rank, world, exchange_of(rank)))
        except BaseException:
            is_gone.set()
            raise

    with ThreadPoolExecutor(world) as pool:
        found = list(pool.map(process, range(world)))
    assert all(queue.empty() for queue in queues.values())  # what was sent, somebody waited for
    return found
