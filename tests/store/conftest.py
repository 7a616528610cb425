"""The store's battery runs on three places: each test with a `tmp_path` once on the disk, once in memory, once as objects on a
real S3 server, but for those marked `on_disk`, which need what only a disk has. `make test` tries three kinds of stores in
memory and `ON_SERVER` there, `make slow` the others, and more layouts of what format 3 added. Those that read (also with a
`case`) run twice more: as a place far away (one kind in `make test`), and, in `make slow`, far away on that server. Those that
write run as objects in obstore's memory too (some in `make test`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from softlabels.store import Store, listed, open_store, reader
from softlabels.system.urls import depot_of
from tests.jobs.conftest import s3_server  # noqa: F401  # a fixture
from tests.store.bucket import as_path, objects, on_server
from tests.store.far import FarPath, S3Path, files_of
from tests.store.places import AnyPath, FolderPath, MemoryPath, copy
from tests.store.samples import Sample, make_spec, sample, write_store

READ_FAR = ("test_reader", "test_round_trip", "test_hostile_values", "test_targets")
WRITTEN_FAR = ("test_claims", "test_writer", "test_repair", "test_round_trip")
ON_SERVER = (
    "test_a_copy_in_another_place_is_the_same_store",
    "test_a_worker_that_comes_too_late_ends_well",
    "test_a_record_names_no_file_outside_the_store",
    "test_the_same_specification_again_is_the_same",
    "test_a_damaged_shard_is_set_aside_and_made_again",
)
IN_MEMORY = ("zarr", "arrow", "topk-zarr")
MORE = ("sigmoid-arrow", "values-zarr", "anchors-zarr", "anchors-arrow", "several-zstd", "several-arrow")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tmp_path" in metafunc.fixturenames and metafunc.definition.get_closest_marker("on_disk") is None:
        far = ["far", "s3"] if metafunc.module.__name__.rpartition(".")[2] in READ_FAR else []
        objects = ["objects"] if metafunc.module.__name__.rpartition(".")[2] in WRITTEN_FAR else []
        metafunc.parametrize("tmp_path", ["local", "memory", *objects, "bucket", *far], indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    values = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    kinds = {values.get(name, "zarr") for name in ("kind", "target", "store", "target_store")}
    where = values.get("tmp_path")
    far = kinds == {"zarr"} and item.module.__name__.endswith(READ_FAR[:2])
    written = kinds == {"zarr"} and item.module.__name__.endswith(WRITTEN_FAR[0])
    on_server = kinds == {"zarr"} and item.name.partition("[")[0] in ON_SERVER
    here = {"memory": kinds <= {*IN_MEMORY}, "far": far, "s3": False, "objects": written, "bucket": on_server}.get(
        str(where), True
    )
    if not here or kinds & {*MORE}:
        item.add_marker(pytest.mark.slow)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    """A folder of the test's own, on the disk, in memory or far away."""
    where = getattr(request, "param", "local")
    return tmp_path if where == "local" else far_folder(where, request)


def far_folder(where: str, request: pytest.FixtureRequest) -> FolderPath:
    """A folder in memory, whatever readers take it for."""
    if where in ("s3", "bucket"):
        os.environ.update(request.getfixturevalue("s3_server").environment)
        depot_of("s3://tests").put("here", b"so that the bucket is there")
    if where in ("objects", "bucket"):
        return as_path(objects() if where == "objects" else on_server())
    return {"memory": MemoryPath, "far": FarPath, "s3": S3Path}[where]()


@pytest.fixture(scope="session", autouse=True)
def _readers_go_far() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (reader, listed):
            patch.setattr(module, "files_of", files_of)
        yield


@pytest.fixture(scope="session")
def target_stores(
    tmp_path_factory: pytest.TempPathFactory, rng_of: Callable[[str], np.random.Generator]
) -> dict[str, tuple[Path, Sample]]:
    """Sound stores of several targets and of rows of positions, by kind, and what they hold: members with weights 1 and 3."""
    root, found = tmp_path_factory.mktemp("targets"), {}
    for kind in ("several-zarr", "ragseveral-arrow", "frames-arrow"):
        data = sample(rng_of(kind), 70, kind)
        store = write_store(root / kind, data, make_spec(data, kind, weights=[1, 3]))
        found[kind] = Path(root / kind), data
        assert store.rows == 70
    return found


@pytest.fixture
def target_store(
    target_stores: dict[str, tuple[Path, Sample]], tmp_path: AnyPath, request: pytest.FixtureRequest
) -> Store:
    """A copy of one of them."""
    return open_store(copy(target_stores[request.param][0], tmp_path / "store"))
