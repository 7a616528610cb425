"""Waiting for another process or a thread, with a timeout: then `Stalled`, which names who is waited for.

The timeout is `$SOFTLABELS_PATIENCE` seconds, 600 by default. Nothing is killed here: what is waited for goes on by itself or
is ended by whoever started it. A flush that hangs is not watched (docs/decisions/0014-no-watchdog-of-flushes.md).
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from softlabels.errors import ConfigError, Stalled

DEFAULT_SECONDS = 600.0
AGAIN = (
    "end the process that hangs and run the same command again; if it is only slow, set a larger SOFTLABELS_PATIENCE"
)
T = TypeVar("T")
U = TypeVar("U")


def patience() -> float:
    """Seconds that are waited. Raises `ConfigError` where the environment says something else."""
    given = os.environ.get("SOFTLABELS_PATIENCE", "")
    try:
        seconds = float(given or DEFAULT_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ConfigError(f"SOFTLABELS_PATIENCE is {given!r}", remedy="give a number of seconds above 0")
    return seconds


def slices() -> Iterator[float]:
    """Waits, in seconds, that add up to `patience`: first short ones, then of a second. Time for which this process is itself
    suspended, as by Ctrl-Z or a scheduler, so counts as a second at most.
    """
    left, each = patience(), 0.01
    while left > 0:
        each = min(2 * each, 1.0, left)
        yield each
        left -= each


def wait_for_lock(handle: int, how: int, path: Path, *, progress: Callable[[], object] = lambda: None) -> None:
    """Lock an open file, waiting for the processes that hold it; once more where `progress()` has changed meanwhile.

    Raises:
        Stalled: naming them. OSError: as `flock`.
    """
    before = object()
    while (now := progress()) != before:
        before = now
        for seconds in slices():
            try:
                return fcntl.flock(handle, how | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(seconds)
    found = [f"{process(pid)} on {platform.node()}" for pid in _holders(handle)]
    names = " and ".join(found) or "another process, perhaps of another machine or container,"
    raise Stalled(f"{names} has held {path} for {patience():g} s", remedy=AGAIN)


def this_process() -> str:
    """The process that asks, in words, with its machine."""
    return f"process {os.getpid()} on {platform.node()}"


def this_machine() -> tuple[str, str]:
    """Its name, and what tells one start of its kernel from all others, where the system says it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return platform.node(), boot


def process_id() -> str:
    """The process that asks, for `has_ended`: its number, and what tells the processes that it sees from those of other
    containers, where the system says it.
    """
    try:
        return f"{os.getpid()}@{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  # the text alone
    except OSError:
        return ""


def has_ended(which: str) -> bool:
    """Whether it is known that a process of this machine, as it called itself by `process_id`, is there no more."""
    number, _, own = which.partition("@")
    if not re.fullmatch(r"[1-9]\d{0,9}", number, re.ASCII) or own != process_id().partition("@")[2]:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


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


def interruptible(act: Callable[..., T], *args: Any, **more: Any) -> T:
    """What `act` gives or raises. In the main thread signals are heard meanwhile, also where it waits outside Python: it runs
    in a thread of its own, which is left alone where a signal ends the waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        return act(*args, **more)
    return _begun(act, *args, **more).result()


def in_time(act: Callable[..., T], *args: Any, what: str) -> T:
    """The same in any thread. Raises `Stalled`, saying `what`, where it takes too long; it is left alone then."""
    return result_of(_begun(act, *args), what)


def _begun(act: Callable[..., T], *args: Any, **more: Any) -> Future[T]:
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(act(*args, **more))
        except BaseException as error:
            outcome.set_exception(error)

    try:
        threading.Thread(target=run, name="softlabels-request", daemon=True).start()
    except RuntimeError:  # the system starts no more
        run()
    return outcome


def at_once(act: Callable[[U], T], each: Iterable[U], *, most: int = 16) -> list[T]:
    """What `act` gives of each, in order, asked at the same time: for requests that wait for an answer. What the first of them
    raises comes once all that were begun have ended; where a signal ends the waiting, they are left alone.
    """
    given = list(each)
    if len(given) < 2:
        return [act(one) for one in given]
    found = [Future[T]() for _ in given]
    left = deque(zip(found, given, strict=True))

    def work() -> None:
        with suppress(IndexError):
            while True:
                _end(*left.popleft())

    def _end(future: Future[T], one: U) -> None:
        try:
            future.set_result(act(one))
        except BaseException as error:
            left.clear()
            future.set_exception(error)

    try:
        for worker in [_begun(work) for _ in range(min(most, len(given)))]:
            worker.result()
    finally:
        left.clear()
    return [future.result() for future in found]


@contextmanager
def background(name: str) -> Iterator[ThreadPoolExecutor]:
    """A thread that does what is submitted, one after the other, and is waited for at the end. Raises `Stalled` where it hangs
    then; inside the block that means that it hangs already.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield pool
    except Stalled:
        raise
    except BaseException:
        _finish(pool)
        raise
    else:
        _finish(pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _finish(pool: ThreadPoolExecutor) -> None:
    result_of(pool.submit(int), "a thread has not ended")


def result_of(future: Future[T], what: str) -> T:
    """What a thread of `background` gives or raises. Raises `Stalled`, saying `what`, where it does neither."""
    for seconds in slices():
        if wait([future], timeout=seconds).done:
            return future.result()
    raise stalled(what)


def stalled(what: str) -> Stalled:
    """The error, with the place at which each thread whose name begins with "softlabels" stands."""
    frames = sys._current_frames()
    places = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.name.startswith("softlabels") and frame is not None:
            places.append(
                f"{thread.name} in {frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
            )
    return Stalled(f"{what} for {patience():g} s: {', '.join(places) or 'its thread has ended'}", remedy=AGAIN)
