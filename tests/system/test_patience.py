"""Waiting for a lock, a thread or its result ends after the timeout and names who is waited for, and only then."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from softlabels.errors import ConfigError, Stalled
from softlabels.system import patience as module
from softlabels.system.patience import (
    DEFAULT_SECONDS,
    at_once,
    background,
    interruptible,
    patience,
    result_of,
    wait_for_lock,
)

# Waits for a lock, a thread or a value that comes when stdin is closed.
WAITER = """
import fcntl, os, sys, threading
from concurrent.futures import Future
from pathlib import Path
from softlabels.system.patience import result_of, wait_for_lock

def later():
    os.read(0, 1)

def source():
    later()
    yield 1

path = Path(sys.argv[2])
holder, waiter = path.open("w"), path.open("w")
fcntl.flock(holder, fcntl.LOCK_EX)
future = Future()
threading.Thread(target=lambda: (later(), future.set_result(1), fcntl.flock(holder, fcntl.LOCK_UN)), daemon=True).start()
print(flush=True)
if sys.argv[1] == "lock":
    wait_for_lock(waiter.fileno(), fcntl.LOCK_EX, path)
elif sys.argv[1] == "thread":
    result_of(future, "it has not come")
else:
    from softlabels.stream.prefetch import prefetch  # it imports torch, which takes longer than all the rest
    next(prefetch(source()))
"""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, Path]]:
    """A file that one handle has locked, and another handle of it."""
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    path = tmp_path / "lock"
    holder, waiter = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    fcntl.flock(holder, fcntl.LOCK_EX)
    yield holder, waiter, path
    os.close(holder)
    os.close(waiter)


def test_who_holds_a_lock_is_named_with_its_host(held: tuple[int, int, Path]) -> None:
    _, waiter, path = held
    who = rf"process {os.getpid()} \(.*\) on {re.escape(platform.node())} has held {re.escape(str(path))} for 0.3 s"
    with pytest.raises(Stalled, match=who):
        wait_for_lock(waiter, fcntl.LOCK_SH, path)


def test_a_holder_that_the_system_does_not_tell(held: tuple[int, int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a network file system."""
    _, waiter, path = held
    monkeypatch.setattr(module, "_holders", lambda handle: [])
    with pytest.raises(Stalled, match="another process, perhaps of another machine or container, has held"):
        wait_for_lock(waiter, fcntl.LOCK_SH, path)


def test_who_makes_progress_is_waited_for(held: tuple[int, int, Path]) -> None:
    holder, waiter, path = held
    looks = count()

    def progress() -> int:
        look = next(looks)
        if look == 3:  # three timeouts later
            fcntl.flock(holder, fcntl.LOCK_UN)
        return look

    wait_for_lock(waiter, fcntl.LOCK_EX, path, progress=progress)
    assert next(looks) == 4


WAITS = ("lock", "thread", "prefetch")


@pytest.fixture(scope="module")
def stopped_for_a_while(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Exit codes of one waiter of each kind. All are stopped at the same time."""
    folder, env = tmp_path_factory.mktemp("waiters"), os.environ | {"SOFTLABELS_PATIENCE": "2"}
    with ExitStack() as stack:
        waiters = {}
        for what in WAITS:
            command = [sys.executable, "-c", WAITER, what, str(folder / what)]
            waiter = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            waiters[what] = stack.enter_context(waiter)
            assert waiter.stdout is not None
            waiter.stdout.readline()
            time.sleep(0.3)
            waiter.send_signal(signal.SIGSTOP)
        time.sleep(3)
        for waiter in waiters.values():
            waiter.send_signal(signal.SIGCONT)
        time.sleep(0.5)  # time enough to believe the clock
        for waiter in waiters.values():
            assert waiter.stdin is not None
            waiter.stdin.close()
        return {what: waiter.wait(timeout=200) for what, waiter in waiters.items()}


@pytest.mark.parametrize("what", WAITS)
def test_time_for_which_one_was_stopped_oneself_does_not_count(what: str, stopped_for_a_while: dict[str, int]) -> None:
    """As by Ctrl-Z, or by a scheduler that suspends a whole job."""
    assert stopped_for_a_while[what] == 0


def test_a_thread_that_hangs_is_named_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    ends = threading.Event()

    def hang() -> None:
        ends.wait()

    def wait() -> None:
        with background("softlabels-test") as pool:
            result_of(pool.submit(hang), "the disk has not answered")

    try:
        with pytest.raises(
            Stalled, match=r"the disk has not answered for 0.3 s: softlabels-test_0 in wait \(threading.py:"
        ):
            wait()
    finally:
        ends.set()


@pytest.mark.parametrize("error", [KeyError, None])
def test_a_thread_that_hangs_at_the_end_is_not_waited_for_either(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else went wrong: the end of the interpreter would wait for the thread."""
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    ends = threading.Event()
    named = pytest.raises(Stalled, match=r"a thread has not ended for 0.3 s: softlabels-test_0")
    with named as raised, background("softlabels-test") as pool:
        pool.submit(ends.wait, 30)
        if error:
            raise error
    assert not ends.is_set()
    assert isinstance(raised.value.__context__, error or type(None))
    ends.set()


def test_what_is_under_way_is_finished_after_an_error() -> None:
    done = []
    with pytest.raises(KeyError), background("softlabels-test") as pool:  # noqa: PT012
        pool.submit(lambda: (time.sleep(0.2), done.append(1)))
        raise KeyError
    assert done == [1]


def test_what_a_thread_raises_is_raised() -> None:
    def fail() -> None:
        raise TimeoutError("of its own")

    with background("softlabels-test") as pool, pytest.raises(TimeoutError, match="of its own"):
        result_of(pool.submit(fail), "nothing")


@pytest.mark.parametrize("given", ["0", "-3", "soon", "nan", "inf"])
def test_patience_is_a_number_above_nought(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", given)
    with pytest.raises(ConfigError, match=f"SOFTLABELS_PATIENCE is '{given}'"):
        patience()


def test_ten_minutes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTLABELS_PATIENCE", raising=False)
    assert patience() == DEFAULT_SECONDS == 600


def test_what_is_done_at_once_is_left_alone_where_a_signal_ends_the_waiting() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def hang(number: int) -> bool:
        begun.append(number)
        return gate.wait(60)

    begun, gate, before = list[int](), threading.Event(), signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            at_once(hang, range(9), most=2)
    finally:
        signal.signal(signal.SIGALRM, before)
        gate.set()
    assert begun == [0, 1]


@pytest.mark.parametrize("threads", [0, 1, 99])
def test_what_is_done_at_once(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system starts no more threads."""
    start, left, begun = threading.Thread.start, iter(range(threads)), list[int]()

    def begin(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    def third(number: int) -> float:
        begun.append(number)
        return 1 / (number - 3)

    monkeypatch.setattr(threading.Thread, "start", begin)
    assert at_once(lambda number: -number, range(50)) == [-number for number in range(50)]
    assert interruptible(int, "7") == 7
    with pytest.raises(ZeroDivisionError):
        at_once(third, range(1000), most=2)
    assert len(begun) < 1000
