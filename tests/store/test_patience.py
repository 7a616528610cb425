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
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import pytest

from softlabels.errors import ConfigError, Stalled
from softlabels.store.commit import WriterLock
from softlabels.system import folder
from softlabels.system import patience as module
from softlabels.system.folder import Folder
from softlabels.system.patience import DEFAULT_SECONDS, background, flush, hung, patience, result_of, wait_for_lock
from softlabels.transfer.cache import lock

# Waits for a lock, a thread, a value or a flush that comes when stdin is closed.
WAITER = """
import fcntl, os, sys, threading
from concurrent.futures import Future
from pathlib import Path
from softlabels.system import patience
from softlabels.system.patience import flush, result_of, wait_for_lock
from softlabels.stream.prefetch import prefetch

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
elif sys.argv[1] == "flush":
    os.fsync = lambda handle: later()
    patience._requests = lambda device: []
    flush(holder.fileno(), path)
else:
    next(prefetch(source()))
"""


def write_file(path: Path, data: bytes) -> None:
    Folder(path.parent).write(path.name, data)


def clear_away(path: Path) -> None:
    Folder(path.parent).clear(path.name)


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


WAITS = ("lock", "thread", "prefetch", "flush")


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


def test_a_thread_that_hangs_is_named_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "file", b"flushed by a thread that then waits for the next file, and is not named")
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    ends = threading.Event()

    def hang() -> None:
        ends.wait()

    def wait() -> None:
        with background(1, "softlabels-test") as pool:
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
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    ends = threading.Event()
    with pytest.raises(error or Stalled), background(1, "softlabels-test") as pool:  # noqa: PT012
        pool.submit(ends.wait, 30)
        if error:
            raise error
    assert not ends.is_set()
    left = [thread for thread in threading.enumerate() if thread.name.startswith("softlabels-")]
    assert any(thread.name.startswith("softlabels-test") for thread in left)
    ends.set()
    for thread in left:
        thread.join(timeout=100)


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


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, threading.Event]]:
    """A new file on a disk that completes nothing and flushes it only when the event is set."""
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.3")
    ends, path, plain = threading.Event(), tmp_path / "file", os.fsync
    path.touch()

    def hang(handle: int) -> None:
        ends.wait(60)
        plain(handle)

    monkeypatch.setattr(os, "fsync", hang)
    monkeypatch.setattr(module, "_requests", lambda device: [])
    yield path, ends
    ends.set()
    while hung():
        time.sleep(0.01)
    while module._left_open:
        module._left_open.pop().close()


def test_a_flush_that_hangs_is_named_and_nothing_is_cleared_away_until_it_ends(
    stuck: tuple[Path, threading.Event],
) -> None:
    """To remove a file from a disk that hangs would hang too."""
    path, ends = stuck
    with path.open("rb") as file, pytest.raises(Stalled, match=f"has not flushed {re.escape(str(path))} for 0.3 s"):
        flush(file.fileno(), path)
    assert hung()
    clear_away(path)
    assert path.exists()
    with pytest.raises(Stalled, match=re.escape(str(path))):
        write_file(path.with_name("other"), b"")  # at once
    ends.set()
    while hung():
        time.sleep(0.01)
    clear_away(path)
    assert not path.exists()


def test_the_disk_is_asked_for_in_the_thread_that_flushes(
    stuck: tuple[Path, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network's file system that alone waits for the server."""
    path, ends = stuck
    asked = []

    def hang(handle: int) -> None:
        asked.append(threading.current_thread().name)
        ends.wait(10)

    monkeypatch.setattr(os, "fstat", hang)
    with path.open("rb") as file, pytest.raises(Stalled, match="has not flushed"):
        flush(file.fileno(), path)
    assert asked == ["flush"]
    monkeypatch.undo()


def test_what_a_flush_hangs_at_is_left_open(stuck: tuple[Path, threading.Event]) -> None:
    """To close it writes back what was not flushed, on a network's file system."""
    path, _ = stuck
    (path.parent / "staging").mkdir()
    alone = WriterLock(Folder(path.parent))
    rows = path.with_name("rows")
    with pytest.raises(Stalled), Folder(path.parent).only_process(), lock(Folder(path.parent), "rows", lambda: None):
        write_file(path.with_name("new"), b"x")
    alone.close()
    mine = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the list itself
            mine.add(entry.readlink())
    assert {path.with_name("new"), rows, path.parent / ".lock", path.parent / "staging" / "lock"} <= mine


def test_a_file_that_waits_for_others_is_waited_for_while_they_are_flushed(
    stuck: tuple[Path, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the disk counts nothing: each takes half of what is borne."""
    path, _ = stuck
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "1")
    monkeypatch.setattr(os, "fsync", lambda handle: time.sleep(0.5))
    files = [path.with_name(f"{number}") for number in range(6)]
    with background(6, "softlabels-test") as pool:
        for future in [pool.submit(write_file, file, b"x") for file in files]:
            future.result()
    assert all(file.read_bytes() == b"x" for file in files)


def test_who_waits_for_others_names_the_one_that_hangs(stuck: tuple[Path, threading.Event]) -> None:
    path, _ = stuck
    first, second = path.with_name("first"), path.with_name("second")
    with background(1, "softlabels-test") as pool:
        future = pool.submit(write_file, first, b"x")
        while module._flusher.at is None or module._flusher.at.path != first:
            time.sleep(0.01)
        for attempt in (lambda: write_file(second, b"x"), future.result):
            with pytest.raises(Stalled, match=f"has not flushed {re.escape(str(first))} for"):
                attempt()


def test_a_flush_is_waited_for_while_the_disk_completes_requests(
    stuck: tuple[Path, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times as long as patience, and so does whoever waits for the thread that asked for it."""
    path, ends = stuck
    asked = count()

    def completed(device: int) -> list[str]:
        number = next(asked)
        if number == 100:
            ends.set()
        return [str(number)]

    monkeypatch.setattr(module, "_requests", completed)
    with path.open("rb") as file, background(1, "softlabels-test") as pool:
        result_of(pool.submit(flush, file.fileno(), path), "the disk has not taken it")
    assert next(asked) > 100


def test_disks_of_this_machine_count_what_they_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        device = os.fstat(file.fileno()).st_dev
        before = module._requests(device)
        if not before:
            pytest.skip("this file system counts nothing")
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        assert module._requests(device) != before


def test_what_flushing_raises_is_raised(tmp_path: Path) -> None:
    read, write = os.pipe()  # has nothing to flush
    with pytest.raises(OSError, match="Invalid argument"):
        flush(write, tmp_path)
    os.close(read)
    os.close(write)


def test_a_fork_flushes_too(tmp_path: Path) -> None:
    """The thread that flushed for its parent is not there."""
    write_file(tmp_path / "one", b"1")
    pid = os.fork()
    if pid == 0:
        write_file(tmp_path / "two", b"2")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "two").read_bytes() == b"2"


def test_the_end_of_a_program_does_not_wait_for_a_flush_that_hangs(tmp_path: Path) -> None:
    code = (
        "import os, sys, threading; from pathlib import Path; from softlabels.errors import Stalled\n"
        "from softlabels.system import patience; from softlabels.system.folder import Folder\n"
        "os.fsync = lambda handle: threading.Event().wait(); patience._requests = lambda device: []\n"
        "try: Folder(Path(sys.argv[1]).parent).write('file', b'x')\nexcept Stalled: print('stalled', flush=True)"
    )
    command, env = [sys.executable, "-c", code, str(tmp_path / "file")], os.environ | {"SOFTLABELS_PATIENCE": "0.3"}
    ended = subprocess.run(command, env=env, stdout=subprocess.PIPE, timeout=200, check=True)
    assert ended.stdout == b"stalled\n"


@pytest.mark.parametrize("size", [0, 1, 4, 9])
def test_a_large_file_is_flushed_piece_by_piece(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the flush of all of it could take longer than a sound disk is waited for."""
    sizes, plain = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size) or plain(handle))
    monkeypatch.setattr(folder, "_PIECE", 4)
    write_file(tmp_path / "file", bytes(range(size)))
    assert (tmp_path / "file").read_bytes() == bytes(range(size))
    assert sizes == ([min(at, size) for at in range(4, size + 4, 4)] or [0])
