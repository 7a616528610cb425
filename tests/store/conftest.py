"""The store's battery runs on both folders: what only a disk has (links, other readers, handles) is marked `on_disk`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.places import MemoryPath

BATTERY = ("test_commit", "test_digests", "test_reader", "test_repair", "test_round_trip", "test_writer")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    if module in BATTERY and "tmp_path" in metafunc.fixturenames and not hasattr(metafunc.function, "on_disk"):
        metafunc.parametrize("tmp_path", ["local", "memory"], indirect=True)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | MemoryPath:
    """A folder of its own, on the disk but where a test asks for one in memory."""
    if getattr(request, "param", "local") == "memory":
        return MemoryPath()
    return tmp_path_factory.mktemp("store")
