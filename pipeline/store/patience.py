"""Waiting for another process, a thread or a disk, no longer than it gives signs of life: then `Stalled`, which names it.

How long is borne: `$SOFTLABELS_PATIENCE` seconds, 600 by default. What is waited for goes on by itself or is ended by whoever
started it; nothing is killed here.
"""

from __future__ import annotations

import fcntl
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TypeVar

from pipeline.errors import ConfigError, Stalled

DEFAULT_SECONDS = 600.0
_LONGEST_PAUSE = 1.0
AGAIN = (
    "end what hangs, or check the disk, and run the same command again; a slow one needs a larger SOFTLABELS_PATIENCE"
)
T = TypeVar("T")


def patience() -> float:
    """Seconds without a sign of life that are borne. Raises `ConfigError` where the environment says something else."""
    given = os.environ.get("SOFTLABELS_PATIENCE", "")
    try:
        seconds = float(given or DEFAULT_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ConfigError(f"SOFTLABELS_PATIENCE is {given!r}", remedy="give a number of seconds above 0")
    return seconds


def slices() -> Iterator[float]:
    """Waits, in seconds, that make up `patience`. How long each really took is not asked: time for which this process was
    stopped itself, as by a scheduler, is not time in which others gave no sign of life.
    """
    whole = patience()
    each = min(_LONGEST_PAUSE, whole / 10)
    return repeat(each, math.ceil(whole / each))


def wait_for_lock(handle: int, how: int, path: Path, *, life: Callable[[], object] = lambda: None) -> None:
    """Lock an open file, waiting for processes that hold it for as long as `life()` gives something new, they use the
    processor, or others hold it.

    Raises:
        Stalled: naming the processes that hold it. OSError: as `flock`.
    """
    seen, waited, pause = None, 0.0, 0.01
    while True:
        try:
            return fcntl.flock(handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            holders = _holders(handle)
            now = (life(), {pid: _cpu_time(pid) for pid in holders})
        if now != seen:
            seen, waited = now, 0.0
        elif waited >= patience():
            names = " and ".join(map(process, holders)) or "another process"
            raise Stalled(
                f"{names} holds {path} and has given no sign of life for {patience():g} s",
                remedy=AGAIN,
            )
        time.sleep(pause)
        waited += pause  # and not what the clock says: see `slices`
        pause = min(2 * pause, _LONGEST_PAUSE, patience() / 10)


def _cpu_time(pid: int) -> int:
    """What a process has used of the processor, in ticks; 0 of this one, which uses some for its waiting."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if pid == os.getpid() else int(words[11]) + int(words[12])


def process(pid: int) -> str:
    """A process in words, with its state where the system tells it: process 123 (python, stopped)."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return f"process {pid}"
    state = {"T": ", stopped", "t": ", stopped", "D": ", waiting for a disk", "Z": ", dead"}.get(rest.split()[0], "")
    return f"process {pid} ({name}{state})"


def _holders(handle: int) -> list[int]:
    """Processes that hold a lock on the file, as far as the system tells."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    found = [line.split() for line in lines if "->" not in line]  # an arrow marks those that wait
    return [int(words[4]) for words in found if words[5].rpartition(":")[2] == str(os.fstat(handle).st_ino)]


@contextmanager
def background(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that are waited for at the end, unless one of them was found to hang. Raises `Stalled` where one hangs then."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        yield pool
    except Stalled:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        _ended(pool)
        raise
    if not _ended(pool):
        raise stalled("a thread has not ended", name)


def _ended(pool: ThreadPoolExecutor) -> bool:
    """End a pool; False where a thread of it hangs."""
    ending = threading.Thread(target=pool.shutdown, name="softlabels-end", daemon=True)
    ending.start()
    for seconds in slices():
        ending.join(seconds)
        if not ending.is_alive():
            return True
    return False


def result_of(future: Future[T], what: str) -> T:
    """What a thread of `background` gives or raises. Raises `Stalled` where it does neither: then `what` says who hangs."""
    for seconds in slices():
        if wait([future], timeout=seconds).done:
            return future.result()
    raise stalled(what)


def stalled(what: str, threads: str = "softlabels") -> Stalled:
    """The error, with the place at which each thread whose name begins with `threads` stands."""
    frames = sys._current_frames()
    places = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.name.startswith(threads) and frame is not None:
            places.append(
                f"{thread.name} in {frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
            )
    return Stalled(f"{what} for {patience():g} s: {', '.join(places) or 'its thread has ended'}", remedy=AGAIN)
