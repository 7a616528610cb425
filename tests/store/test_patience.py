"""Waiting ends where nothing gives a sign of life, and only there."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Stalled
from pipeline.store.patience import DEFAULT_SECONDS, background, patience, result_of, wait_for_lock

# Waits for a lock, a thread or a value that comes after a second of its own running time.
WAITER = """
import fcntl, sys, threading, time
from concurrent.futures import Future
from pathlib import Path
from pipeline.store.patience import result_of, wait_for_lock
from pipeline.stream.prefetch import prefetch

def later(seconds=1.0):
    for _ in range(100):
        time.sleep(seconds / 100)

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


def test_who_shows_no_life_is_named(held: tuple[int, int, Path]) -> None:
    _, waiter, path = held
    with pytest.raises(
        Stalled, match=rf"process {os.getpid()} \(.*\) holds {re.escape(str(path))} and has given no sign"
    ):
        wait_for_lock(waiter, fcntl.LOCK_SH, path)


def test_who_makes_progress_is_waited_for(held: tuple[int, int, Path]) -> None:
    holder, waiter, path = held
    began = time.monotonic()

    def life() -> float:
        if time.monotonic() - began > 1.0:
            fcntl.flock(holder, fcntl.LOCK_UN)
        return time.monotonic()

    wait_for_lock(waiter, fcntl.LOCK_EX, path, life=life)
    assert time.monotonic() - began > 1.0


def test_who_uses_the_processor_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that hashes what it has prepared: nothing that can be seen from outside changes meanwhile."""
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.5")
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True)\n"
        "began = time.monotonic()\nwhile time.monotonic() - began < 2: pass"
    )
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with path.open("rb") as file:
            wait_for_lock(file.fileno(), fcntl.LOCK_EX, path)
        assert holder.wait() == 0


@pytest.mark.parametrize("what", ["lock", "thread", "prefetch"])
def test_time_for_which_one_was_stopped_oneself_does_not_count(what: str, tmp_path: Path) -> None:
    """As by Ctrl-Z, or by a scheduler that suspends a whole job."""
    command = [sys.executable, "-c", WAITER, what, str(tmp_path / "lock")]
    env = os.environ | {"SOFTLABELS_PATIENCE": "2"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as waiter:
        assert waiter.stdout is not None
        waiter.stdout.readline()
        time.sleep(0.3)
        waiter.send_signal(signal.SIGSTOP)
        time.sleep(3)
        waiter.send_signal(signal.SIGCONT)
        assert waiter.wait(timeout=60) == 0


def test_a_thread_that_hangs_is_named_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    ends = threading.Event()

    def hang() -> None:
        ends.wait()

    def wait() -> None:
        with background(1, "softlabels-test") as pool:
            result_of(pool.submit(hang), "the disk has not answered")

    with pytest.raises(
        Stalled, match=r"the disk has not answered for 0.3 s: softlabels-test_0 in wait \(threading.py:"
    ):
        wait()
    ends.set()


@pytest.mark.parametrize("error", [KeyError, None])
def test_a_thread_that_hangs_at_the_end_is_not_waited_for_either(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    ends = threading.Event()
    with pytest.raises(error or Stalled), background(1, "softlabels-test") as pool:  # noqa: PT012
        pool.submit(ends.wait, 30)
        if error:
            raise error
    assert not ends.is_set()
    assert any(thread.name.startswith("softlabels-test") for thread in threading.enumerate())
    ends.set()


def test_what_a_thread_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise TimeoutError("of its own")

    with background(1, "softlabels-test") as pool, pytest.raises(TimeoutError, match="of its own"):
        result_of(pool.submit(fail), "nothing")


@pytest.mark.parametrize("given", ["0", "-3", "soon", "nan", "inf"])
def test_patience_is_a_number_above_nought(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", given)
    with pytest.raises(ConfigError, match=f"SOFTLABELS_PATIENCE is '{given}'"):
        patience()


def test_ten_minutes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTLABELS_PATIENCE", raising=False)
    assert patience() == DEFAULT_SECONDS == 600
