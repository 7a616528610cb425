"""Specifications of sparse labels and of rows of tokens that somebody made to harm: refused, within little memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.errors import DamagedShard, DamagedStore, LaterFormat
from softlabels.store import Store, open_store
from softlabels.store.digest import blake3_hex
from tests.store.places import copy
from tests.store.samples import make_spec, require_sound, sample, write_store
from tests.store.test_hostile import Edit, in_little_memory, put, read_all, seal_again


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, rng_of: Callable[[str], np.random.Generator]) -> Path:
    """A sound store of each kind, by its name."""
    root = tmp_path_factory.mktemp("whole")
    for kind in ("topk-zarr", "sequence-zarr", "ragged-arrow"):
        data = sample(rng_of(kind), 70, kind)
        write_store(root / kind, data, make_spec(data, kind))
    return root


@pytest.fixture
def store(whole: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """A copy of it."""
    return open_store(copy(whole / request.param, tmp_path / "store"))


@pytest.mark.parametrize("store", ["topk-zarr", "sequence-zarr", "ragged-arrow"], indirect=True)
def test_the_attackers_tool_works(store: Store) -> None:
    seal_again(store.path)
    read_all(store.path)
    assert open_store(store.path).digest == store.digest


def encoding(**changes: object) -> Edit:
    return lambda spec: spec["encoding"].update(changes)


SPECS = {
    "k: zero": encoding(k=0),
    "k: negative": encoding(k=-3),
    "k: another": encoding(k=4),
    "k: more than classes": encoding(k=8),
    "k: huge": encoding(k=1 << 40),
    "nodes: one": encoding(nodes=1),
    "nodes: none": encoding(nodes=0),
    "nodes: negative": encoding(nodes=-4),
    "nodes: huge": encoding(nodes=1 << 30),
    "rank: none": encoding(rank=0),
    "rank: negative": encoding(rank=-2),
    "rank: another": encoding(rank=3),
    "rank: huge": encoding(rank=1 << 40),
    "rank: the most": encoding(rank=4096),
    "fine: none": encoding(fine=0),
    "fine: negative": encoding(fine=-1),
    "fine: more than rank": encoding(fine=3),
    "fine: huge": encoding(fine=1 << 62),
    "fine: true": encoding(fine=True),
    "beta_max: zero": encoding(beta_max=0.0),
    "beta_max: negative": encoding(beta_max=-1.0),
    "beta_max: huge": encoding(beta_max=1e300),
    "beta_max: text": encoding(beta_max="1"),
    "tail: unknown": encoding(tail="lowrankk"),
    "tail: prior": encoding(tail="prior"),
    "tail: bucket of two members": encoding(tail="bucket", rank=0, fine=0, basis=""),
    "tail: renormalised": encoding(tail="renormalised"),
    "basis: none": encoding(basis=""),
    "basis: another": encoding(basis="ab" * 32),
    "basis: short": encoding(basis="ab"),
    "basis: a path": encoding(basis="../" * 21 + "a"),
    "kind: dense": encoding(kind="dense"),
    "kind: dense alone": lambda s: s.update(encoding={"kind": "dense"}),
    "kind: unknown": encoding(kind="pickle"),
    "classes: huge": put("label_space", "classes")(1 << 24),
    "positions: zero": put("sequence", "positions")(0),
    "positions: negative": put("sequence", "positions")(-1),
    "positions: another": put("sequence", "positions")(6),
    "positions: huge": put("sequence", "positions")(1 << 50),
    "ragged: in zarr": put("sequence", "ragged")(True),
    "ragged: a number": put("sequence", "ragged")(1),
    "sequence: null": put("sequence")(None),
    "sequence: gone": lambda s: s.pop("sequence"),
    "vocabulary: gone": lambda s: s["label_space"].pop("vocabulary"),
    "vocabulary: a path": put("label_space", "vocabulary")("/etc/passwd"),
}


@pytest.mark.parametrize("store", ["sequence-zarr"], indirect=True)
@pytest.mark.parametrize("name", SPECS)
def test_hostile_specifications_of_sparse_labels(store: Store, name: str) -> None:
    seal_again(store.path, spec=SPECS[name])
    with pytest.raises((DamagedStore, LaterFormat)):
        read_all(store.path)
    with pytest.raises((DamagedStore, LaterFormat)):
        require_sound(store.path)


@pytest.mark.on_disk("another process")
@pytest.mark.parametrize("store", ["topk-zarr"], indirect=True)
def test_the_largest_basis_that_a_specification_can_claim(store: Store) -> None:
    """4,096 vectors of eight million classes: refused before anything of that size is asked for."""

    def edit(spec: dict[str, Any]) -> None:
        spec["label_space"]["classes"] = 1 << 23
        spec["encoding"].update(rank=4096, fine=4096)

    seal_again(store.path, spec=edit)
    assert "DamagedManifest" in in_little_memory(store.path, 100)


@pytest.mark.parametrize("store", ["ragged-arrow"], indirect=True)
@pytest.mark.parametrize("value", [0, -1, 6, 1 << 30, 1])
def test_counts_of_positions_that_no_row_has(store: Store, value: int) -> None:
    """Memory is taken and rows are cut by them; the digests fit the false ones."""
    payload = store.payload(0)
    ((name, record),) = payload.files.items()
    place = payload.chunks["positions"][0]
    data = bytearray((store.path / name).read_bytes())
    data[place.offset : place.offset + place.size] = np.full(place.size // 4, value, "<i4").tobytes()
    (store.path / name).write_bytes(data)

    def edit(forged: dict[str, Any]) -> None:
        forged["files"][name] = {"size": record.size, "blake3": blake3_hex(bytes(data))}
        chunk = bytes(data[place.offset : place.offset + place.size])
        forged["chunks"]["positions"][0] = [place.offset, place.size, blake3_hex(chunk)]

    seal_again(store.path, payload=edit)
    found = open_store(store.path)
    with pytest.raises(DamagedShard, match=r"position_mask|positions"):
        found.read_chunk("position_mask", 0)
    if value != 1:
        with pytest.raises(DamagedShard, match=rf"says that a row has {value} to {value} positions, not 1 to 5"):
            found.read_chunk("positions", 0)
    with pytest.raises(DamagedStore):
        require_sound(store.path)
