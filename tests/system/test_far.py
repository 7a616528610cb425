"""Files far away: what is asked for, how often, and what becomes of answers that do not fit."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import ConfigError, Replaced, StorageError
from softlabels.system import far, kept
from softlabels.system.depots import Version
from softlabels.system.far import FarFiles
from softlabels.system.kept import GAP, MOST_ASKED, joined
from tests.store.far import Counting, FarPath

MIB = 1 << 20


@pytest.fixture
def place(rng: np.random.Generator) -> Counting:
    folder = FarPath()
    folder.put("small", rng.bytes(5000))
    folder.put("large", rng.bytes(5 * MIB))
    return Counting(folder)


def read(files: FarFiles, name: str, start: int, length: int) -> bytes:
    out = bytearray(length)
    return bytes(out[: files.file(name).read_into(start, memoryview(out))])


@pytest.mark.parametrize(
    ("ranges", "requests"),
    [
        ([], []),
        ([(5, 9)], [(5, 9)]),
        ([(9, 12), (0, 9)], [(0, 12)]),
        ([(0, 9), (2, 4)], [(0, 9)]),
        ([(0, 9), (9 + GAP, 10 + GAP)], [(0, 10 + GAP)]),
        ([(0, 9), (10 + GAP, 11 + GAP)], [(0, 9), (10 + GAP, 11 + GAP)]),
        ([(0, MOST_ASKED), (MOST_ASKED, MOST_ASKED + 1)], [(0, MOST_ASKED), (MOST_ASKED, MOST_ASKED + 1)]),
    ],
)
def test_neighbours_are_one_request(ranges: list[tuple[int, int]], requests: list[tuple[int, int]]) -> None:
    assert list(joined(ranges)) == requests


def test_what_is_wanted_together_is_asked_for_together(place: Counting) -> None:
    files, whole = FarFiles(place), place.folder.read("large")
    starts = [2 * MIB + 128 * 1024 * number for number in range(8)]
    files.ahead({"large": [(start, start + 65536) for start in starts]})
    assert all(read(files, "large", start, 65536) == whole[start : start + 65536] for start in starts)
    assert place.asked == [("large", starts[0], starts[-1] + 65536 - starts[0])]


def test_a_small_file_is_one_request_whatever_of_it_is_read(place: Counting) -> None:
    files, whole = FarFiles(place), place.folder.read("small")
    files.ahead({"small": [(100, 200), (4000, 4100)]})
    assert files.exists("small")
    assert files.size("small") == 5000
    assert files.read("small", 5000) == whole
    assert read(files, "small", 4000, 2000) == whole[4000:]
    assert read(files, "small", 5000, 10) == b""
    assert len(place.asked) == 1
    with pytest.raises(StorageError, match="small is larger than 4999 bytes"):
        files.read("small", 4999)


def test_a_file_that_is_read_through_is_asked_for_in_pieces(place: Counting) -> None:
    files, whole = FarFiles(place), place.folder.read("large")
    file, part, found = files.file("large"), memoryview(bytearray(65536)), b""
    while got := file.read_into(len(found), part):
        found += part[:got]
    assert found == whole == files.read("large")
    assert len(place.asked) <= 5


def test_no_more_is_kept_than_is_said(place: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", MIB)
    files, whole = FarFiles(place), place.folder.read("large")
    for start in range(MIB, 4 * MIB, 65536):
        assert read(files, "large", start, 65536) == whole[start : start + 65536]
    assert files._seen.parts._bytes <= MIB + 65536
    monkeypatch.setattr(kept, "MOST_KEPT", 0)
    asked, starts = len(place.asked), range(MIB, 4 * MIB, MIB)
    files.ahead({"large": [(start, start + 65536) for start in starts]})  # all of what is wanted together is kept
    for _ in range(2):
        assert all(read(files, "large", start, 65536) == whole[start : start + 65536] for start in starts)
    assert len(place.asked) <= asked + len(starts)


def test_another_version_is_never_other_rows(place: Counting, rng: np.random.Generator) -> None:
    files = FarFiles(place)
    read(files, "large", 2 * MIB, 100)
    again = FarFiles(place)
    place.folder.put("large", rng.bytes(5 * MIB))
    with pytest.raises(
        Replaced, match="large was replaced, or deleted, while the store was read; run the same command again"
    ):
        read(files, "large", 4 * MIB, 100)
    assert read(again, "large", 4 * MIB, 100) == place.folder.read("large")[4 * MIB : 4 * MIB + 100]
    place.folder.remove("large")
    with pytest.raises(Replaced, match="large was replaced, or deleted, while"):
        read(files, "large", 3 * MIB, 100)
    versions = files.__reduce__()[1][1].__reduce__()[1][1]  # go along to another process
    assert versions["large"].size == 5 * MIB


def test_short_answers_are_asked_for_again_and_then_refused(place: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far.time, "sleep", lambda seconds: None)
    short = lambda data, version: (data[:-1], version)  # noqa: E731
    place.lies = {"once": None, "small": short}
    assert FarFiles(place).read("small") == place.folder.read("small")
    place.lies = {"small": short}
    with pytest.raises(StorageError, match=r"4,999 bytes came instead of 5,000; run the same command again"):
        FarFiles(place).read("small")
    place.lies = {"small": lambda data, version: (memoryview(bytes(data) + b"x"), version)}
    with pytest.raises(StorageError, match="5,001 bytes came instead of 5,000"):
        FarFiles(place).read("small")


def test_what_is_not_there(place: Counting) -> None:
    files = FarFiles(place)
    files.ahead({"gone": [(0, 9)]})  # said when it is read
    with pytest.raises(FileNotFoundError):
        files.read("gone")
    with pytest.raises(FileNotFoundError):
        files.size("gone")
    files.ahead({"gone": [(0, 9)]})
    assert not files.exists("gone")
    assert len(place.asked) == 2  # what was said ahead is not asked again
    place.folder.put("gone", b"come")
    assert [files.exists("gone") for _ in range(2)][-1]  # and then it is
    assert files.names() == ["large", "small"]
    assert not files.is_folder("small")


def test_an_error_is_not_kept(place: Counting) -> None:
    def refuse(data: memoryview, version: Version) -> tuple[memoryview, Version]:
        raise StorageError("cannot read it: 503", remedy="again")

    place.lies = {"once": None, "small": refuse}
    files = FarFiles(place)
    with pytest.raises(StorageError, match="503"):
        files.read("small")
    assert files.read("small") == place.folder.read("small")


def test_processes_share_what_was_read(
    place: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    folder, whole = tmp_path / "cache", place.folder.read("large")
    place.folder.put("plan.json", b"{}")
    monkeypatch.setenv("SOFTLABELS_READ_CACHE", f"{folder}:0.002")  # 2 MB
    for asked in (1, 1):  # the second is as another process
        assert read(FarFiles(place), "large", 2 * MIB, 65536) == whole[2 * MIB : 2 * MIB + 65536]
        assert len(place.asked) == asked
    [kept] = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")  # damaged: it is asked for again
    assert read(FarFiles(place), "large", 2 * MIB, 65536) == whole[2 * MIB : 2 * MIB + 65536]
    assert len(place.asked) == 2
    assert FarFiles(place).read("plan.json") == FarFiles(place).read("plan.json") == b"{}"
    assert len(place.asked) == 4  # its place says each time what a store is
    for start in range(MIB, 5 * MIB, 262144):
        read(FarFiles(place), "large", start, 262144)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2e6 * 17 / 16
    place.folder.put("large", rng.bytes(5 * MIB))
    assert read(FarFiles(place), "large", 4 * MIB, 9) == place.folder.read("large")[4 * MIB : 4 * MIB + 9]


@pytest.mark.parametrize("given", ["cache:10", "/cache", "/cache:", "/cache:-1", "/cache:nan", "/cache:inf"])
def test_a_cache_that_is_none(given: str, place: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_READ_CACHE", given)
    with pytest.raises(ConfigError, match="give an absolute folder and gigabytes, such as /scratch/labels:200"):
        FarFiles(place)


def test_a_part_within_another_does_not_hide_it(place: Counting) -> None:
    files, whole = FarFiles(place), place.folder.read("large")
    read(files, "large", 3 * MIB, 4096)
    files.ahead({"large": [(2 * MIB, 4 * MIB)]})
    for start in (2 * MIB, 3 * MIB, 3 * MIB + 8192):
        assert read(files, "large", start, 65536) == whole[start : start + 65536]
    assert len(place.asked) == 2
    parts = files._seen.parts
    assert parts._bytes == sum(len(each.result()) for each in parts._parts.values())


def test_threads_want_the_same(place: Counting) -> None:
    files, whole, wrong = FarFiles(place), place.folder.read("large"), []

    def look(seed: int) -> None:
        numbers = np.random.default_rng(seed)
        for start in numbers.integers(0, 5 * MIB, 50).tolist():
            if read(files, "large", start, 3000) != whole[start : start + 3000]:
                wrong.append(start)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(look, range(6)))  # raises what one of them raised
    assert wrong == []


def test_where_the_system_starts_no_more_threads(place: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(kept, "_threads", [])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert len(FarFiles(place).read("small")) > 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads is what is tried
def test_a_forked_process_has_threads_of_its_own(place: Counting) -> None:
    """Of what was on its way it says so at once."""
    FarFiles(place).read("small")
    gate = threading.Event()
    fetched = kept.Fetched(lambda *part: memoryview(bytes(gate.wait(60))))
    fetched.want([("name", 0, 9)])
    if (child := os.fork()) == 0:
        try:
            assert len(FarFiles(place).read("small")) > 0
            with pytest.raises(ConfigError, match="forked process"):
                fetched.find("name", 0, 9)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    gate.set()
