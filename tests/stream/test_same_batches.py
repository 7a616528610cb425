"""Which rows make up a batch: the same whatever a store holds of them, in whatever order and cut; where reading costs more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.objects import ObjectSpec
from softlabels.store import Store
from softlabels.stream import EmbeddedRows, Loader
from softlabels.transfer import TransferRows
from tests.store.samples import make_spec, sample, write_store
from tests.stream.sequence_samples import token_rows, token_sample, token_store

ROWS = 400
SMALL: dict[str, Any] = {"block": 16, "window": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "three members": {"members": 3},
    "topk": {"kind": "topk-zarr"},
    "arrow": {"kind": "arrow"},
    "larger chunks": {"rows_per_chunk": 64, "rows_per_shard": 128},
    "chunks across blocks": {"rows_per_chunk": 48, "rows_per_shard": 96},
    "another row order": {"seed": 5},
    "embedded": {"embed": True},
}


@pytest.fixture(scope="module")
def make_loader(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Loader]:
    """A loader of rows that are always the same, from a store of some kind; `seed` shuffles the store's rows."""
    data = sample(np.random.default_rng(0), ROWS)
    own: dict[str, Any] = {"keys": data.keys, "labels": data.labels, "inputs": data.inputs}
    prepared = TransferRows(
        name="rows", split="train", revision=None, source="", class_names=None, prepare=ObjectSpec("none"), **own
    )

    @functools.cache
    def make_store(
        kind: str = "zarr", members: int = 1, seed: int | None = None, embed: bool = False, **cut: int
    ) -> Store:
        labelled = replace(sample(np.random.default_rng(members), ROWS, kind, members=members), **own)
        if seed is not None:
            labelled = labelled[np.random.default_rng(seed).permutation(ROWS)]
        spec = make_spec(labelled, kind, embed=embed, **cut)
        return write_store(tmp_path_factory.mktemp("store") / "train", labelled, spec)

    def make(options: dict[str, Any], **variant: Any) -> Loader:
        store = make_store(**variant)
        selection = np.flatnonzero(np.arange(ROWS) % 9 > 0)
        rows = EmbeddedRows(store) if "embed" in variant else prepared
        return Loader(rows, store, batch_size=24, seed=7, selection=selection, **options)

    return make


def rows_and_inputs(loader: Loader, epoch: int) -> list[tuple[bytes, bytes]]:
    return [(batch.rows.tobytes(), batch.inputs.numpy().tobytes()) for batch in loader.epoch(epoch)]


@pytest.mark.parametrize("options", [SMALL, {}], ids=["small blocks", "default"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_are_the_same_whatever_the_store(
    make_loader: Callable[..., Loader], variant: str, options: dict[str, Any]
) -> None:
    plain, other = make_loader(options), make_loader(options, **VARIANTS[variant])
    assert other.order == plain.order == {"by": "keys", "block": options.get("block", 512)}
    assert other.order_digest == plain.order_digest
    for epoch in (0, 3):
        assert rows_and_inputs(other, epoch) == rows_and_inputs(plain, epoch)
    before = [loader.by_chunks().order_digest for loader in (plain, other)]
    assert (before[0] == before[1]) == (variant in ("arrow", "embedded"))  # as earlier versions had them


@pytest.mark.parametrize("kind", ["tokens-zarr", "sequence-arrow", "ragged-arrow"])
def test_rows_of_tokens_have_the_batches_that_they_have_without_a_store(tmp_path: Path, kind: str) -> None:
    data = token_sample(np.random.default_rng(3), kind)
    rows, store = token_rows(data), token_store(tmp_path / "store", data, kind)
    digests = {Loader(rows, each, batch_size=8, seed=0).order_digest for each in (store, None)}
    assert len(digests) == 1


def test_the_default_block_goes_by_positions_classes_and_inputs(tmp_path: Path) -> None:
    data = token_sample(np.random.default_rng(3), "tokens-zarr")
    large = token_rows(data, sequence=replace(token_rows(data).sequence, length=129, classes=4096))
    assert Loader(large, None, batch_size=8, seed=0).order["block"] == 16
    for width, block in ((2048, 512), (2100, 256), (1 << 20, 16)):
        inputs = np.broadcast_to(np.uint8(0), (len(data), width))
        rows = token_rows(data, inputs=inputs, sequence=None)
        assert Loader(rows, None, batch_size=8, seed=0).order["block"] == block


def test_a_store_in_another_row_order_says_how_often_it_is_read(
    make_loader: Callable[..., Loader], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_loader(SMALL, seed=5).times_read() == 1  # all windows are read at once
    monkeypatch.setattr("softlabels.stream.loader.READ_ROWS", 1)
    for variant in ({}, {"embed": True}, VARIANTS["larger chunks"], VARIANTS["three members"]):
        assert make_loader(SMALL, **variant).times_read() == 1
    # 40 rows of a window lie in about 20 of 25 chunks, and there are 9 windows.
    assert make_loader(SMALL, seed=5).times_read() == pytest.approx(9 * 20 / 25, rel=0.1)
    assert make_loader({}, seed=5).times_read() == 1  # one window holds all rows
    assert make_loader(SMALL, seed=5).by_chunks().times_read() == 1
