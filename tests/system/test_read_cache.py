"""The parts that processes keep of places far away in one folder: several at once, and a disk that is full."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import DiskFull
from softlabels.system.far import FarFiles
from softlabels.system.read_cache import ReadCache
from tests.store.far import Counting, FarPath
from tests.system.test_far import MIB, read

PARTS, SIZE, LIMIT = 24, 40_000, 400_000  # of which ten fit


def content(part: int) -> bytes:
    return np.random.default_rng(part).bytes(SIZE)


def work(folder: str, seed: int) -> None:
    """Keep and look for parts as a reader does; whatever is found is right."""
    cache, numbers = ReadCache(folder, LIMIT), np.random.default_rng(seed)
    for part in numbers.integers(0, PARTS, 400).tolist():
        found = cache.get(f"part {part}")
        if found is None:
            cache.put(f"part {part}", memoryview(content(part)))
        elif found != content(part):
            raise AssertionError(f"part {part} is another")


def test_two_processes_keep_parts_in_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(str(tmp_path), seed)) for seed in range(2)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(120)
    assert [each.exitcode for each in processes] == [0, 0]
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert 0 < sum(sizes) <= LIMIT + 2 * (LIMIT // 16 + SIZE + 32)
    assert {*sizes} == {SIZE + 32}  # nothing half written is left
    cache = ReadCache(str(tmp_path), LIMIT)
    found = [part for part in range(PARTS) if cache.get(f"part {part}") is not None]
    assert len(found) == len(sizes)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """A file size limit stands for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    folder = FarPath()
    folder.put("large", whole := rng.bytes(3 * MIB))
    place = Counting(folder)
    monkeypatch.setenv("SOFTLABELS_READ_CACHE", f"{tmp_path}:1")
    with room_for(4096), pytest.raises(DiskFull, match=r"cannot write .*make room and run the same command again"):
        read(FarFiles(place), "large", 2 * MIB, 65536)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        assert read(FarFiles(place), "large", 2 * MIB, 65536) == whole[2 * MIB : 2 * MIB + 65536]
    assert len(place.asked) == 2  # once for nothing, once to keep it
