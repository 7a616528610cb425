"""The port to a place (softlabels.system.files): what each folder does that stands behind it. What kills, power cuts, full and
failing disks do to the one on a disk: tests/faults.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import Replaced, RunExists, Stalled, StorageError, StrangePath
from softlabels.system.files import Folder, is_file
from softlabels.system.local import LocalFolder
from tests.jobs.conftest import s3_server  # noqa: F401  # a fixture
from tests.store.bucket import objects, on_server
from tests.system.memory import MemoryFolder

LOCK = "staging/lock"


@pytest.fixture(params=["local", "memory", "objects", pytest.param("s3", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3_server").environment.items():
            monkeypatch.setenv(name, value)
        return on_server()
    return {"memory": MemoryFolder, "objects": objects}.get(
        request.param, lambda: LocalFolder(tmp_path / "root" / "folder")
    )()


class Polite(dict[str, bytes]):
    """Between two steps another thread may go first."""

    def __contains__(self, name: object) -> bool:
        found = super().__contains__(name)
        time.sleep(0)
        return found

    def __setitem__(self, name: str, data: bytes) -> None:
        time.sleep(0)
        super().__setitem__(name, data)

    def pop(self, name: str, *default: object) -> object:
        found = super().pop(name, *default)
        time.sleep(0)
        return found


@pytest.fixture
def often(folder: Folder) -> Iterator[None]:
    """Threads take turns more often than they do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    if isinstance(folder, MemoryFolder):
        folder._shared.files = Polite()
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in threads at once; raise what one of them raised."""
    raised, gate = list[BaseException](), threading.Barrier(count)

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in raised:
        raise error


# Writing


def test_of_many_that_create_a_name_one_wins(folder: Folder, often: None) -> None:
    for turn in range(20):
        won: list[int] = []

        def create(number: int, name: str = f"commits/{turn}", won: list[int] = won) -> None:
            if folder.create(name, b"%d" % number * 1000, staged=f"staging/{number}"):
                won.append(number)

        in_threads(6, create)
        (winner,) = won
        assert folder.read(f"commits/{turn}") == b"%d" % winner * 1000
    assert folder.names("staging") == []
    assert not folder.create("commits/0", b"late", staged="staging/late")
    assert not folder.create("commits/0", folder.read("commits/0"), staged="staging/late")
    assert {*folder.list()} == {f"commits/{turn}" for turn in range(20)}


def test_a_name_that_is_put_has_one_content_or_the_other(folder: Folder, often: None) -> None:
    folder.put("deep/er/name", bytes(3000))

    def work(number: int) -> None:
        for turn in range(1, 40):
            if number:
                assert len(set(folder.read("deep/er/name"))) == 1
                assert folder.size("deep/er/name") == 3000
            else:
                folder.put("deep/er/name", bytes([turn]) * 3000, staged="staging/put" if turn % 2 else None)

    in_threads(3, work)
    assert folder.read("deep/er/name") == bytes([39]) * 3000
    assert list(folder.list()) == ["deep/er/name"]


def test_a_file_is_filled_piece_by_piece_then_placed(folder: Folder) -> None:
    numbers = np.arange(6, dtype="<f4").reshape(2, 3)
    folder.put("logits/c.1", b"old")
    with folder.filled("staging/write/0") as first, folder.filled("staging/write/1") as second:
        first.write(b"head")
        first.write(numbers.data)
        second.write(memoryview(b"body")[1:])
        first.write(b"")
    folder.settle(["staging/write/0"])
    moves = {"staging/write/0": "logits/c.0", "staging/write/1": "logits/c.1", "staging/write/2": "label/c.0"}
    for _ in range(2):  # those that are not there, another writer has placed
        folder.place(moves)
        folder.settle(["logits/c.0", "logits/c.1"])
        assert folder.read("logits/c.0") == b"head" + numbers.tobytes()
        assert folder.read("logits/c.1") == b"ody"
    assert folder.names("staging/write") == []
    assert not folder.exists("label/c.0")


def test_what_is_not_filled_to_the_end_can_be_cleared(folder: Folder) -> None:
    out = folder.filled("staging/write/0")
    out.__enter__().write(b"half")
    out.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    folder.clear("staging/write")
    assert list(folder.list()) == []


def test_a_file_that_is_placed_is_always_there(folder: Folder, often: None) -> None:
    """Under its old name, or else under the new one: a writer that places the same write must not miss it."""
    turns = 100 if isinstance(folder, MemoryFolder) else 30
    for turn in range(turns):
        folder.put(f"from/{turn}", b"x")

    def work(number: int) -> None:
        for turn in range(turns):
            if number == 0:
                folder.place({f"from/{turn}": f"to/{turn}"})
            else:
                with suppress(FileNotFoundError):
                    while folder.size(f"from/{turn}"):
                        pass
                assert folder.size(f"to/{turn}") == 1

    in_threads(2, work)


def test_what_is_put_is_there_whoever_creates_it_meanwhile(folder: Folder, often: None) -> None:
    for turn in range(100 if isinstance(folder, MemoryFolder) else 30):

        def work(number: int, name: str = f"{turn}") -> None:
            if number:
                folder.create(name, b"created", staged="staging/x")
            else:
                folder.put(name, b"put")

        in_threads(2, work)
        assert folder.read(f"{turn}") == b"put"


def test_remove_and_clear(folder: Folder) -> None:
    for name in ("a/b/c", "a/d", "e"):
        folder.put(name, b"x")
    for _ in range(2):  # what is not there, is removed
        folder.remove("a/d")
        assert list(folder.list()) == ["a/b/c", "e"]
    folder.clear("a")
    folder.clear("a")
    folder.clear("nowhere/x")
    assert list(folder.list()) == ["e"]
    folder.clear("e")
    assert not folder.exists("e")


# Reading


def test_what_is_there(folder: Folder) -> None:
    assert (folder.names(), folder.folders(), list(folder.list()), folder.exists()) == ([], [], [], False)
    for name in ("plan.json", "logits/c.1", "logits/c.0", "set_aside/1/plan.json", "log"):
        folder.put(name, name.encode())
    assert folder.names() == ["log", "logits", "plan.json", "set_aside"]
    assert folder.names("logits") == ["c.0", "c.1"]
    assert folder.names("set_aside") == ["1"]
    assert folder.names("nowhere") == []
    assert folder.folders() == [folder.within("logits"), folder.within("set_aside")]
    assert folder.folders("set_aside") == [folder.within("set_aside/1")]
    assert folder.folders("logits") == []
    assert sorted(folder.list()) == ["log", "logits/c.0", "logits/c.1", "plan.json", "set_aside/1/plan.json"]
    assert list(folder.list("set_aside")) == ["set_aside/1/plan.json"]
    for name, there in {"": True, "log": True, "logits": True, "set_aside/1": True, "logit": False}.items():
        assert folder.exists(name) == there
    assert [folder.is_folder(name) for name in ("", "log", "logits", "logit")] == [True, False, True, False]


def test_sizes_and_limits(folder: Folder) -> None:
    folder.put("a/b", b"12345")
    assert (folder.size("a/b"), folder.read("a/b"), folder.read("a/b", 5)) == (5, b"12345", b"12345")
    with pytest.raises(StorageError, match=r"a/b is larger than 4 bytes; find out what it is"):
        folder.read("a/b", 4)
    for name in ("a/c", "c/b"):
        for ask in (folder.read, folder.size, folder.file):
            with pytest.raises(FileNotFoundError, match=name):
                ask(name)
    with pytest.raises((FileNotFoundError, StrangePath), match="a"):
        folder.read("a")


def test_parts_of_a_file(folder: Folder) -> None:
    folder.put("a", bytes(range(100)))
    file = folder.file("a")
    assert file.size == 100
    for start, count, found in [(0, 100, 100), (10, 20, 20), (90, 20, 10), (100, 5, 0), (200, 5, 0), (5, 0, 0)]:
        out = bytearray(b"\xff" * count)
        assert file.read_into(start, memoryview(out)) == found
        assert out == bytes(range(start, start + found)) + b"\xff" * (count - found)


@pytest.mark.parametrize("how", ["put", "remove", "clear", "place"])
def test_a_file_that_is_open_stays_what_it_was(folder: Folder, how: str) -> None:
    folder.put("a", b"before")
    folder.put("b", b"afterwards")
    file = folder.file("a")
    {
        "put": lambda: folder.put("a", b"after"),
        "remove": lambda: folder.remove("a"),
        "clear": lambda: folder.clear("a"),
        "place": lambda: folder.place({"b": "a"}),
    }[how]()
    out = bytearray(10)
    if not folder.near:  # or says so
        with pytest.raises(Replaced, match="a was replaced, or deleted, while"):
            file.read_into(0, memoryview(out))
        return
    assert (file.size, file.read_into(0, memoryview(out)), bytes(out)) == (6, 6, b"before" + bytes(4))


def test_threads_share_a_file(folder: Folder, often: None) -> None:
    folder.put("a", bytes(range(256)))
    file = folder.file("a")

    def work(number: int) -> None:
        for start in range(number, 200, 7):
            out = bytearray(50)
            assert file.read_into(start, memoryview(out)) == 50
            assert out == bytes(range(start, start + 50))

    in_threads(4, work)


# Live writers


SEEING = pytest.mark.parametrize("folder", ["local", "memory"], indirect=True)


@SEEING
def test_one_writer_alone_or_several(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "0.05")
    assert not folder.busy(LOCK)
    first, second = folder.enter(LOCK), folder.within("").enter(LOCK)
    assert not folder.busy(LOCK)
    assert first.alone()
    assert folder.busy(LOCK)
    assert folder.above().busy(f"{folder.name}/{LOCK}") or not folder.name
    assert not folder.busy("staging/another")
    assert not second.alone()
    with pytest.raises(Stalled, match=r"lock for 0.05 s; end the process that hangs and run the same command again"):
        second.share()
    first.share()
    assert not second.alone()
    second.share()
    assert not first.alone()  # and is nothing any more
    assert second.alone()
    second.close()
    assert not folder.busy(LOCK)
    assert first.alone()
    first.close()
    assert not folder.busy(LOCK)


@SEEING
def test_who_comes_later_waits_for_the_one_that_is_alone(folder: Folder) -> None:
    first, order = folder.enter(LOCK), list[str]()
    assert first.alone()

    def later() -> None:
        second = folder.enter(LOCK)
        second.share()
        order.append("second")
        second.close()

    thread = threading.Thread(target=later)
    thread.start()
    thread.join(0.05)
    order.append("first")
    first.share()
    thread.join()
    assert order == ["first", "second"]
    assert folder.busy(LOCK)
    first.close()


@SEEING
def test_of_many_one_is_alone(folder: Folder, often: None) -> None:
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            presence = folder.enter(LOCK)
            if presence.alone():
                inside.append(number)
                assert inside == [number]
                inside.remove(number)
            presence.close()

    in_threads(4, work)
    assert not folder.busy(LOCK)


def test_a_folder_is_free_when_its_process_is_killed_though_a_worker_of_it_lives_on(tmp_path: Path) -> None:
    trainer = f"""
import os, time
from pathlib import Path
from softlabels.system.local import LocalFolder
with LocalFolder(Path({str(tmp_path)!r})).only_process():
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", trainer], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(RunExists, match="another process is working"), LocalFolder(tmp_path).only_process():
            pass
        process.kill()
        process.wait()
        os.kill(worker, 0)  # it is alive
        with LocalFolder(tmp_path).only_process():
            pass
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)
        process.communicate()


# Places


def test_places_in_places(folder: Folder) -> None:
    inner = folder.within("train")
    inner.put("plan.json", b"{}")
    assert (inner.name, str(inner), inner.exists()) == ("train", str(folder.at("train")), True)
    assert (inner.above(), folder.followed("train").read("plan.json")) == (folder, b"{}")
    assert folder.within("train").within("x") == folder.within("train/x") != folder.within("train")
    assert len({folder, folder.within(""), inner.above(), inner}) == 2
    assert folder.read("train/plan.json") == inner.read("plan.json")


def test_places_that_overlap(folder: Folder, tmp_path: Path) -> None:
    one, two = folder.within("train"), folder.within("trainer")
    assert one.overlaps(one)
    assert one.overlaps(folder)
    assert folder.overlaps(one.within("x/y"))
    assert not one.overlaps(two)
    assert not two.overlaps(one)
    for other in (MemoryFolder(), MemoryFolder("train"), LocalFolder(tmp_path / "other")):
        assert not one.overlaps(other)
        assert one != other


def test_what_a_place_holds(folder: Folder) -> None:
    folder.put("a", b"x")
    assert folder.block() >= 1
    assert folder.most_files() >= 1
    assert folder.room() is None or folder.room() > 0  # type: ignore[operator]


# Links, on a disk


@pytest.fixture
def linked(tmp_path: Path) -> LocalFolder:
    """A folder with a link to a file and one to a folder, both outside."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"mine")
    folder = LocalFolder(tmp_path / "store")
    folder.put("real/file", b"ours")
    (tmp_path / "store" / "file").symlink_to(victim / "file")
    (tmp_path / "store" / "folder").symlink_to(victim)
    return folder


def fill(folder: LocalFolder, name: str) -> None:
    with folder.filled(name) as out:
        out.write(b"evil")


FOLLOW = {
    "read": lambda folder: folder.read("file"),
    "size": lambda folder: folder.size("file"),
    "file": lambda folder: folder.file("file"),
    "is_folder": lambda folder: folder.is_folder("folder"),
    "names": lambda folder: folder.names("folder"),
    "list": lambda folder: list(folder.list("folder")),
    "enter": lambda folder: folder.enter("file"),
    "busy": lambda folder: folder.busy("file"),
    "through: read": lambda folder: folder.read("folder/file"),
    "through: exists": lambda folder: folder.exists("folder/file"),
    "through: size": lambda folder: folder.within("folder").size("file"),
    "through: put": lambda folder: folder.put("folder/file", b"evil"),
    "through: create": lambda folder: folder.create("folder/new", b"evil", staged="staging/x"),
    "through: staged": lambda folder: folder.create("new", b"evil", staged="folder/x"),
    "through: filled": lambda folder: fill(folder, "folder/new"),
    "through: place": lambda folder: folder.place({"real/file": "folder/file"}),
    "through: place from": lambda folder: folder.place({"folder/file": "new"}),
    "through: settle": lambda folder: folder.settle(["folder/file"]),
    "through: remove": lambda folder: folder.remove("folder/file"),
    "through: enter": lambda folder: folder.enter("folder/lock"),
}


@pytest.mark.parametrize("how", FOLLOW)
def test_no_link_is_followed(linked: LocalFolder, tmp_path: Path, how: str) -> None:
    with pytest.raises(StrangePath, match=r"(file|folder) is a link, and links below .*store are not followed"):
        FOLLOW[how](linked)
    assert {file.name: file.read_bytes() for file in (tmp_path / "victim").iterdir()} == {"file": b"mine"}
    assert linked.read("real/file") == b"ours"


def test_what_is_done_with_a_link_is_done_with_itself(linked: LocalFolder, tmp_path: Path) -> None:
    assert linked.exists("file")
    assert linked.names() == ["file", "folder", "real"]
    assert linked.folders() == [linked.within("real")]
    assert list(linked.list()) == ["file", "folder", "real/file"]
    assert linked.followed("folder").read("file") == b"mine"
    assert not linked.create("file", b"evil", staged="staging/x")
    linked.place({"folder": "set_aside/folder"})
    assert (tmp_path / "store" / "set_aside" / "folder").is_symlink()
    linked.clear("set_aside/folder")
    linked.clear("set_aside")
    linked.put("file", b"ours now")
    assert (tmp_path / "store" / "file").read_bytes() == b"ours now"
    (tmp_path / "store" / "again").symlink_to(tmp_path / "victim" / "file")
    linked.remove("again")
    assert (tmp_path / "victim" / "file").read_bytes() == b"mine"


def test_a_folder_is_cleared_without_what_its_links_lead_to(linked: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "store" / "real" / "way out").symlink_to(tmp_path / "victim")
    linked.clear("real")
    assert linked.names() == ["file", "folder"]
    linked.clear("folder/file")
    assert (tmp_path / "victim" / "file").read_bytes() == b"mine"


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    folder.put("real", b"ours")
    os.link(tmp_path / "real", tmp_path / "second name")
    for ask in (folder.read, folder.size, folder.file):
        with pytest.raises(StrangePath, match="pipe is not a plain file with one name"):
            ask("pipe")
    with pytest.raises(StrangePath, match="second name is not a plain file with one name"):
        folder.enter("second name")


def test_the_root_itself_may_be_a_link(linked: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to(tmp_path / "store")
    root = LocalFolder(tmp_path / "root")
    assert root.read("real/file") == b"ours"
    assert root.overlaps(linked)
    assert root.overlaps(linked.within("real"))


def test_a_lock_that_cannot_be_opened_again_is_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be that of another file by then."""
    folder = LocalFolder(tmp_path)
    lock = folder.enter(LOCK)
    folder.clear("staging")
    monkeypatch.setattr(LocalFolder, "make", lambda *_: (_ for _ in ()).throw(StorageError("full", remedy="none")))
    with pytest.raises(StorageError, match="full"):
        lock.share()
    with (tmp_path / "other").open("wb") as other:
        lock.close()
        other.write(b"still open")


@pytest.mark.parametrize(("inside", "above"), [(".", ".."), ("..", "../.."), ("a", "."), ("/", "/")])
def test_the_folder_above_a_path_that_ends_in_no_name(inside: str, above: str, tmp_path: Path) -> None:
    assert LocalFolder(inside).above().at().resolve() == Path(above).resolve()
    assert LocalFolder(tmp_path).above().at() == tmp_path.parent


def test_a_folder_that_another_process_makes_meanwhile_is_no_file(tmp_path: Path) -> None:
    class Met(LocalFolder):
        def status(self, name: str = "") -> os.stat_result | None:
            found = super().status(name)
            (tmp_path / "store").mkdir(exist_ok=True)
            return found

    assert not is_file(Met(tmp_path / "store"))
    assert not is_file(Met(tmp_path / "store"))
    (tmp_path / "file").touch()
    assert is_file(LocalFolder(tmp_path / "file"))
