"""Parts of files far away: fetched by a few threads, neighbours in one request, and the last of them kept in memory.

A part is wanted (`Fetched.want`) before it is read, with all others that are wanted at the same time. What is kept is what was
wanted last, and up to `MOST_KEPT` bytes of what was wanted before.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from softlabels.errors import ConfigError

Range = tuple[int, int]  # the first byte, and the one behind the last
Part = tuple[str, int, int]  # a file, and a range of it
Fetch = Callable[[str, int, int], memoryview]  # of a name: from, to

THREADS = 16  # requests at once
GAP = 1 << 19  # bytes between two ranges that are fetched with them, in the time in which another request is only sent
MOST_ASKED = 1 << 24  # bytes of a request
MOST_KEPT = 1 << 26


def joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """The requests in which these ranges are fetched."""
    now: Range | None = None
    for start, end in sorted(ranges):
        if now is not None and start - now[1] <= GAP and max(end, now[1]) - now[0] <= MOST_ASKED:
            now = now[0], max(end, now[1])
            continue
        if now is not None:
            yield now
        now = start, end
    if now is not None:
        yield now


class Fetched:
    """The parts of one place. Safe to use from several threads."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch, self._lock, self._process = fetch, threading.Lock(), os.getpid()
        self._parts: OrderedDict[Part, Future[memoryview]] = OrderedDict()  # by age
        self._held: set[Part] = set()
        self._of: dict[str, list[Range]] = {}  # the same, in order of their starts
        self._bytes = 0

    def find(self, name: str, start: int, end: int) -> tuple[int, Future[memoryview]] | None:
        """Where a part begins that has these bytes, and that part; it may be on its way."""
        with self._lock:
            part = self._find(name, start, end)
            return None if part is None else (part[1], self._parts[part])

    def _find(self, name: str, start: int, end: int) -> Part | None:
        own = self._of.get(name, [])
        at = bisect_right(own, (start, 1 << 63)) - 1
        for first, last in (own[at], own[0]) if at >= 0 else ():  # a whole file begins at 0
            if first <= start and end <= last:
                self._parts.move_to_end((name, first, last))
                return name, first, last
        return None

    def coming(self, name: str) -> Future[memoryview] | None:
        """Some part of a file, where one is on its way or there."""
        with self._lock:
            return next((self._parts[name, *each] for each in self._of.get(name, ())), None)

    def want(self, parts: Sequence[Part], beside: Iterable[Part] = ()) -> list[Future[memoryview]]:
        """Begin to fetch those parts that are not there. They, and what is there of those `beside` them, are kept until others
        are wanted. Raises `ConfigError` in a forked process.
        """
        with self._lock:
            new = {each: Future[memoryview]() for each in parts if each not in self._parts}
            if new:
                self._require_own_process()
                self._held = {part for each in beside if (part := self._find(*each)) is not None} | {*parts}
            self._parts |= new
            for name, start, end in new:
                insort(self._of.setdefault(name, []), (start, end))
            found = [self._parts[each] for each in parts]
        for part, future in new.items():
            _begin(self._run, future, *part)
        self._let_go()
        return found

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise ConfigError(
                "a store far away is read in a forked process, where its connections do not work",
                remedy="start workers anew (multiprocessing_context='spawn' of a DataLoader), or pull the store",
            )

    def _run(self, future: Future[memoryview], name: str, start: int, end: int) -> None:
        try:
            data = self._fetch(name, start, end)
        except BaseException as error:
            self._drop(name, start, end)  # the next one who wants it asks again
            future.set_exception(error)
        else:
            with self._lock:
                self._bytes += len(data)
            future.set_result(data)

    def _let_go(self) -> None:
        """Forget the oldest that have come and nobody waits for, as far as there are too many."""
        while self._bytes > MOST_KEPT:
            with self._lock:
                free = (each for each, future in self._parts.items() if future.done() and each not in self._held)
                oldest = next(free, None)
            if oldest is None or not self._drop(*oldest):
                return

    def _drop(self, name: str, start: int, end: int) -> bool:
        with self._lock:
            future = self._parts.pop((name, start, end), None)
            if future is None:
                return False
            self._of[name].remove((start, end))
            if future.done() and future.exception() is None:
                self._bytes -= len(future.result())
        return True


_tasks: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
_threads: list[threading.Thread] = []
_starting = threading.Lock()
_IDLE = "waits for requests of softlabels"


def _begin(act: Callable[..., object], *args: Any) -> None:
    """Have a thread do this. They are left alone where the process ends: a request may take minutes."""
    with _starting:
        if len(_threads) < THREADS:
            _threads.append(threading.Thread(target=_work, name=_IDLE, daemon=True))
            _threads[-1].start()
    _tasks.put((act, args))


def _work() -> None:
    own = threading.current_thread()
    while True:
        act, args = _tasks.get()
        own.name = "softlabels-request"  # as who waits for it calls it
        act(*args)
        own.name = _IDLE
        del act, args  # lest they live while this waits
