"""The store's battery runs on both folders: each test with a `tmp_path` (or a `case`) once on the disk and once in memory, but
for those marked `on_disk`, which need what only a disk has. `make test` tries three kinds of stores in memory, `make slow` the
others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.places import AnyPath, MemoryPath

IN_MEMORY = ("zarr", "arrow", "topk-zarr")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tmp_path" in metafunc.fixturenames and metafunc.definition.get_closest_marker("on_disk") is None:
        metafunc.parametrize("tmp_path", ["local", "memory"], indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    values = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    kinds = {values.get(name, "zarr") for name in ("kind", "target", "store")}
    if values.get("tmp_path") == "memory" and not kinds <= {*IN_MEMORY}:
        item.add_marker(pytest.mark.slow)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    """A folder of the test's own, on the disk or in memory."""
    return MemoryPath() if getattr(request, "param", "local") == "memory" else tmp_path
