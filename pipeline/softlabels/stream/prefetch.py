"""A generator's next value, made in a background thread while the current one is used. Knows no stores or batches.

The thread starts with the first `next`, and ends with the last value, at the first exception (raised again where the
values are used), or when the consumer closes or drops the generator, after the value it is making. At most three values
exist: the one in use, one waiting, one in the making.

Where several processes make their values together, a value that one of them has begun must be made by all. So with `together`
the thread makes two values more than were used before it ends, be they needed or not: where all use as many, all make as many.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Empty, Queue
from typing import TypeVar

from softlabels.system.patience import patience, slices, stalled

T = TypeVar("T")


def prefetch(source: Iterator[T], *, together: bool = False) -> Generator[T]:
    """The values of `source`, in its order; `together` with other processes.

    Raises:
        Stalled: the next one does not come; names the threads that make it, and where they stand.
    """
    queue: Queue[tuple[T] | BaseException | None] = Queue(maxsize=1)
    stop, used = threading.Event(), 0

    def due() -> int:
        return used + 2 if together else 0

    thread = threading.Thread(target=_produce, args=(source, queue, stop, due), name="softlabels-prefetch", daemon=True)

    def end() -> None:
        stop.set()
        with suppress(Empty):
            queue.get_nowait()  # a producer that waits for room finds it, then sees `stop`
        if thread is not threading.current_thread():  # the garbage collector may run this anywhere
            thread.join(patience())

    thread.start()
    atexit.register(end)  # a generator that lives to the end of the program is closed when no module works any more
    try:
        while isinstance(found := _next(queue, stop), tuple):
            used += 1
            yield found[0]
            del found  # lest it stays alive while this waits for the next one
        if found is not None:
            raise found
    finally:
        if not stop.is_set():
            end()
        atexit.unregister(end)


def _next(queue: Queue[T], stop: threading.Event) -> T:
    for seconds in slices():
        with suppress(Empty):
            return queue.get(timeout=seconds)
    stop.set()  # nobody waits for the thread any more
    raise stalled("no batch has been read")


def _produce(
    source: Iterator[T], queue: Queue[tuple[T] | BaseException | None], stop: threading.Event, due: Callable[[], int]
) -> None:
    """Put each value, as a tuple of it, and last the error that ended them, or None. After `stop` nothing is put any more, and
    values are made until there are as many as are `due`.
    """
    end = None
    try:
        for made, value in enumerate(source, 1):
            if not stop.is_set():
                queue.put((value,))
            if stop.is_set() and made >= due():
                return
    except BaseException as error:  # whatever it is belongs to the consumer
        end = error
    if not stop.is_set():
        queue.put(end)
