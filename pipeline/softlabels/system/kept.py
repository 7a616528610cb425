"""Parts of files far away: fetched by a few threads, neighbours in one request, and the last of them kept in memory.

A part is wanted (`Fetched.want`) before it is read, with all others that are wanted at the same time. What is kept is what was
wanted last, and of what was wanted before as much as makes `MOST_KEPT` bytes with it.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
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
        self._of: dict[str, list[Range]] = {}  # in order of their starts, and so of their ends: none lies in another
        self._bytes, self._sizes = 0, dict[Part, int]()  # of those that have come

    def find(self, name: str, start: int, end: int) -> tuple[int, Future[memoryview]] | None:
        """Where a part begins that has these bytes, and that part; it may be on its way."""
        with self._lock:
            part = self._find(name, start, end)
            return None if part is None else (part[1], self._told(part))

    def has(self, name: str, start: int, end: int) -> bool:
        """Whether there is such a part."""
        with self._lock:
            return self._find(name, start, end) is not None

    def _find(self, name: str, start: int, end: int) -> Part | None:
        own = self._of.get(name, [])
        at = bisect_right(own, (start, 1 << 63)) - 1
        if at < 0 or end > own[at][1]:
            return None
        self._parts.move_to_end((name, *own[at]))
        return name, *own[at]

    def coming(self, name: str) -> Future[memoryview] | None:
        """Some part of a file, where one is on its way or there."""
        with self._lock:
            return next((self._told((name, *each)) for each in self._of.get(name, ())), None)

    def _told(self, part: Part) -> Future[memoryview]:
        """A part. That there is no such file is told, and then asked again. Raises `ConfigError` in a forked process where it
        is on its way.
        """
        future = self._parts[part]
        if not future.done():
            self._require_own_process()
        if future.done() and future.exception() is not None:
            self._forget(part)
        return future

    def want(self, parts: Sequence[Part], beside: Iterable[Part] = ()) -> list[tuple[int, Future[memoryview]]]:
        """Begin to fetch those parts that are not there. They, and what is there of those `beside` them, are kept until others
        are wanted. As `find` what has them. Raises `ConfigError` in a forked process.
        """
        new: dict[Part, Future[memoryview]] = {}
        with self._lock:
            for each in parts:
                if self._find(*each) is None:
                    self._require_own_process()
                    self._add(each, new.setdefault(each, Future()))
            places = [place for each in parts if (place := self._find(*each)) is not None]
            if new:
                self._held = {part for each in beside if (part := self._find(*each)) is not None} | {*places}
            found = [(place[1], self._parts[place]) for place in places]
        for part, future in new.items():
            _begin(self._run, future, *part)
        self._let_go()
        return found

    def _add(self, part: Part, future: Future[memoryview]) -> None:
        """Keep a part in the place of those that lie in it; who waits for these has them."""
        name, start, end = part
        own = self._of.setdefault(name, [])
        within = own[bisect_left(own, (start, 0)) : bisect_right(own, (end, 0))]
        for each in within:
            if each[1] <= end:
                self._forget((name, *each))
        self._parts[part] = future
        insort(own, (start, end))

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise ConfigError(
                "a remote store is read in a forked process, where its connections do not work",
                remedy="spawn the workers (multiprocessing_context='spawn' of a DataLoader), or pull the store",
            )

    def _run(self, future: Future[memoryview], name: str, start: int, end: int) -> None:
        try:
            data = self._fetch(name, start, end)
        except FileNotFoundError as error:
            future.set_exception(error)
        except BaseException as error:
            self._drop((name, start, end))  # the next one who wants it asks again
            future.set_exception(error)
        else:
            with self._lock:
                if self._parts.get((name, start, end)) is future:
                    self._sizes[name, start, end] = len(data)
                    self._bytes += len(data)
            future.set_result(data)

    def _let_go(self) -> None:
        """Forget the oldest that have come and nobody waits for, as far as there are too many."""
        while self._bytes > MOST_KEPT:
            with self._lock:
                free = (each for each, future in self._parts.items() if future.done() and each not in self._held)
                oldest = next(free, None)
            if oldest is None or not self._drop(oldest):
                return

    def _drop(self, part: Part) -> bool:
        with self._lock:
            return self._forget(part)

    def _forget(self, part: Part) -> bool:
        if self._parts.pop(part, None) is None:
            return False
        self._of[part[0]].remove(part[1:])
        self._bytes -= self._sizes.pop(part, 0)
        return True


_tasks: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
_threads: list[threading.Thread] = []
_starting = threading.Lock()
_IDLE = "waits for requests of softlabels"


def _begin(act: Callable[..., object], *args: Any) -> None:
    """Have a thread do this. They are left alone where the process ends: a request may take minutes."""
    with _starting:
        if len(_threads) < THREADS:
            thread = threading.Thread(target=_work, name=_IDLE, daemon=True)
            with suppress(RuntimeError):  # where the system starts no more, those do it that there are
                thread.start()
                _threads.append(thread)
    if _threads:
        _tasks.put((act, args))
    else:
        act(*args)


def _anew() -> None:
    """In a forked process, which has none of the threads."""
    global _tasks, _starting
    _tasks, _starting = SimpleQueue(), threading.Lock()
    _threads.clear()


os.register_at_fork(after_in_child=_anew)


def _work() -> None:
    own = threading.current_thread()
    while True:
        act, args = _tasks.get()
        own.name = "softlabels-request"  # as who waits for it calls it
        act(*args)
        own.name = _IDLE
        del act, args  # lest they live while this waits
