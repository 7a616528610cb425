"""Waiting ends where nothing gives a sign of life, and only there."""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Stalled
from pipeline.store.patience import DEFAULT_SECONDS, background, patience, result_of, wait_for_lock


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
