"""Waiting for another process, a thread or a disk, no longer than it gives signs of life: then `Stalled`, which names it.

How long is borne: `$SOFTLABELS_PATIENCE` seconds, 600 by default. What is waited for goes on by itself or is ended by whoever
started it; nothing is killed here. After a flush that hangs nothing more is cleared away, nor closed: that would hang too.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TypeVar

from softlabels.errors import ConfigError, Stalled

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


def slices(life: Callable[[], object] = lambda: None) -> Iterator[float]:
    """Waits, in seconds, until `patience` has passed in which `life()` gave nothing new. How long each really took is not
    asked: time for which this process was stopped itself, as by a scheduler, is not time in which others gave no sign of life.
    """
    whole = patience()
    each = min(_LONGEST_PAUSE, whole / 10)
    seen, waited = life(), 0.0
    while waited < whole:
        yield each
        waited += each
        now = life()
        if now != seen:
            seen, waited = now, 0.0


@dataclass
class _Request:
    """A file to be flushed, and what has become of it."""

    handle: int
    path: Path
    done: Future[None] = field(default_factory=Future)
    device: int = 0  # that it lies on; 0, which counts nothing, until the thread has asked


@dataclass
class _Flusher:
    """The thread that flushes for this process, one file after the other. Its name keeps it out of `stalled`, for `flush` says
    itself which file it hangs at.
    """

    thread: threading.Thread | None = None
    queue: SimpleQueue[_Request] = field(default_factory=SimpleQueue)
    at: _Request | None = None  # the file it flushes, or has flushed last
    finished: int = 0  # flushes
    signs: int = 0  # of life, of all flushes
    hanging: tuple[Future[None], Stalled] | None = None

    def submit(self, request: _Request) -> Future[None]:
        if self.thread is None:
            self.thread = threading.Thread(target=_flush_all, args=(self,), name="flush", daemon=True)
            self.thread.start()
        self.queue.put(request)
        return request.done

    def life(self) -> tuple[int, list[str]]:
        """What changes while the files before one's own, and one's own, are being flushed."""
        return self.finished, _requests(self.at.device if self.at else 0)


_flusher = _Flusher()
_left_open: list[IO[bytes]] = []  # a file that nothing refers to is closed


def _renew() -> None:
    global _flusher
    _flusher = _Flusher()


os.register_at_fork(after_in_child=_renew)  # a fork has no threads


def _flush_all(flusher: _Flusher) -> None:
    while True:
        flusher.at = request = flusher.queue.get()
        try:
            request.device = os.fstat(request.handle).st_dev  # asks a network's server, too
            os.fsync(request.handle)
        except BaseException as error:  # whatever it is belongs to whoever waits
            request.done.set_exception(error)
        else:
            request.done.set_result(None)
        flusher.finished += 1


def flush(handle: int, path: Path) -> None:
    """`os.fsync`, in a thread that is waited for as long as it finishes other files, or the disk of the one that it is at
    completes requests, whosever they are: a slow one may have much to do. Where the system does not count them, as for network
    file systems, `patience` is for one flush.

    Raises:
        Stalled: naming the file that hangs, or at once the one that was found to hang before and still does. OSError: as
            `os.fsync`.
    """
    flusher = _flusher
    if hung() and flusher.hanging:
        raise Stalled(flusher.hanging[1].what, remedy=AGAIN)
    request = _Request(handle, path)
    done = flusher.submit(request)
    for seconds in slices(flusher.life):
        if wait([done], timeout=seconds).done:
            return done.result()
        flusher.signs += 1
    at = flusher.at or request
    error = Stalled(f"the disk has not flushed {at.path} for {patience():g} s", remedy=AGAIN)
    flusher.hanging = (at.done, error)
    raise error


def hung() -> bool:
    """Whether a flush of this process was found to hang, and still does."""
    return _flusher.hanging is not None and not _flusher.hanging[0].done()


@contextmanager
def closing(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Close a file at the end of the block, unless a flush hangs: closing may write back what was not flushed, and would hang
    too. The end of the process closes it then.
    """
    try:
        yield file
    finally:
        if hung():
            _left_open.append(file)
        else:
            file.close()


def close_lock(handle: int) -> None:
    """Close a locked file, with the same exception: to give up a lock is a request to a server, where that keeps it."""
    if not hung():
        os.close(handle)


def _requests(device: int) -> list[str]:
    """How many reads and writes a disk has completed, where the system counts them."""
    try:
        counts = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    except OSError:
        return []
    return [counts[0], counts[4]]


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
    """What a thread of `background` gives or raises. Raises `Stalled` where it does neither, and no `flush` waits: then `what`
    says who hangs.
    """
    for seconds in slices(lambda: _flusher.signs):
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
