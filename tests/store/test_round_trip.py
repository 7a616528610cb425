"""What was written is read back bit for bit: by us, by plain zarr, by plain `datasets`."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import zarr

from softlabels.store import Store, StoreWriter, open_store, store_splits
from softlabels.store.columns import DTYPES
from softlabels.store.root import write_root
from softlabels.system.places import folder_of
from tests.store.places import AnyPath, on_disk
from tests.store.samples import ALL, KINDS, SPARSE, Sample, assert_holds, fill, make_spec, sample, write_store

SIZES = [(1, 16, 16), (16, 16, 16), (96, 48, 16), (100, 48, 16), (37, 1024, 32), (65, 64, 32), (49, 48, 48)]
kinds = pytest.mark.parametrize("kind", KINDS)
sparse_too = pytest.mark.parametrize("kind", KINDS + SPARSE)


def arrow_column(table: pa.Table, name: str, like: np.ndarray) -> np.ndarray:
    """A column of an Arrow table as numpy, float16 as float16."""
    values = table[name].combine_chunks()
    while isinstance(values, pa.FixedSizeListArray | pa.ListArray):
        values = values.flatten()
    assert values.null_count == 0
    return values.to_numpy(zero_copy_only=False).reshape(like.shape)


def seen(data: Sample) -> dict[str, np.ndarray]:
    """The columns as they lie in files: of ragged rows only what they have, one behind the other."""
    stored, held = data.stored(), data.held
    if held is None:
        return stored
    whole = ("content_key", "fold", "positions", "input", *(["label"] if data.document is not None else []))
    return {name: values if name in whole else values[held] for name, values in stored.items()}


def plain(store: AnyPath, data: Sample) -> dict[str, np.ndarray]:
    """All columns as somebody reads them who has never heard of us."""
    expected = seen(data)
    with on_disk(store) as path:
        if (path / "zarr.json").exists():
            group = zarr.open_group(path, mode="r")
            return {name: np.asarray(group[name][:]) for name in group.array_keys() if name != "tail_basis"}
        table = datasets.load_from_disk(str(path)).with_format("arrow")[:]
        return {name: arrow_column(table, name, expected[name]) for name in table.column_names}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(kind, sizes) for kind in ALL for sizes in (SIZES if kind in KINDS + SPARSE else SIZES[3:4])],
    ids=str,
)
def test_bit_for_bit(tmp_path: Path, rng: np.random.Generator, kind: str, sizes: tuple[int, int, int]) -> None:
    rows, per_shard, per_chunk = sizes
    data = sample(rng, rows, kind)
    path = tmp_path / "store"
    store = write_store(path, data, make_spec(data, kind, rows_per_shard=per_shard, rows_per_chunk=per_chunk))
    assert_holds(store, data)
    assert len(store) == store.rows == rows
    assert store.chunks == -(-rows // per_chunk)
    found = plain(path, data)
    expected = seen(data)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].tobytes() == values.tobytes(), name


@kinds
def test_every_chunk_is_there_even_where_it_equals_the_fill_value(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    data = sample(rng, 64)
    data.inputs[:] = 0
    data.keys[:] = 0
    data.labels[:] = -1
    path = tmp_path / "store"
    store = write_store(path, data, make_spec(data, kind, rows_per_shard=32), checked=True)
    assert_holds(store, data)
    for shard in range(2):
        assert {len(chunks) for chunks in store.payload(shard).chunks.values()} == {2}
        for name in store.payload(shard).files:
            assert (path / name).stat().st_size > 0
    if kind != "arrow":
        names = dict.fromkeys(store.columns, 2)
        found = {column: len(list((path / column).glob("c.*"))) for column in store.columns}
        assert found == names


@sparse_too
def test_nothing_is_readable_by_others_before_the_seal(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data = sample(rng, 96, kind)
    with StoreWriter(tmp_path / "store", make_spec(data, kind), basis=data.basis) as writer:
        fill(writer, data)
        with pytest.raises(Exception, match=r"No group found|neither a `Dataset` directory|not found"):
            plain(tmp_path / "store", data)
        writer.seal()
    plain(tmp_path / "store", data)


@kinds
def test_class_names_and_missing_labels_survive_plain_readers(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    data = sample(rng, 40)
    data.labels[:3] = -1, 0, 6
    store = write_store(tmp_path / "store", data, make_spec(data, kind, names=True, embed=False))
    assert store.class_names == tuple(f"class {i}" for i in range(7))
    if kind == "arrow":
        with on_disk(store.path) as path:
            found = datasets.load_from_disk(str(path))
            assert found.features["label"].names == list(store.class_names)
            assert found["label"][:3] == [-1, 0, 6]
            files = {"train": str(path / "*.arrow")}  # what the card's front matter says on a hub
            again = datasets.load_dataset("arrow", data_files=files, cache_dir=str(path / "cache"))["train"]
            assert (
                arrow_column(again.with_format("arrow")[:], "logits", data.logits).tobytes()
                == data.stored()["logits"].tobytes()
            )


@kinds
def test_a_folder_of_splits_is_one_thing_for_other_readers(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    parts = {"train": sample(rng, 70), "test": sample(rng, 20)}
    for split, data in parts.items():
        write_store(tmp_path / split, data, make_spec(data, kind, split=split))
    write_root(folder_of(tmp_path))
    assert {split: path.name for split, path in store_splits(tmp_path).items()} == {"train": "train", "test": "test"}
    for split, data in parts.items():
        assert_holds(open_store(tmp_path, split=split), data)
        logits = data.stored()["logits"]
        with on_disk(tmp_path) as path:
            if kind == "arrow":
                whole = datasets.load_from_disk(str(path))
                assert isinstance(whole, datasets.DatasetDict)
                found = arrow_column(whole[split].with_format("arrow")[:], "logits", logits)
            else:
                found = np.asarray(zarr.open_group(path, mode="r")[split]["logits"][:])  # type: ignore[index]
        assert found.tobytes() == logits.tobytes()


@kinds
def test_reduced_members(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data, weights = sample(rng, 50, members=3), [1.0, 2.0, 5.0]
    store = write_store(
        tmp_path / "store", data, make_spec(data, kind, reduce="geometric", weights=weights, embed=False)
    )
    assert (store.members, store.reduce, store.member_weights.tolist()) == (1, "geometric", [1.0])
    mean = (data.logits.astype(np.float64) * (np.array(weights) / 8)[:, None]).sum(axis=1)
    peak = mean.max(axis=-1, keepdims=True)
    assert np.array_equal(store.column("logits")[:, 0], (mean - peak).astype(np.float16))
    assert np.array_equal(store.column("shift"), peak.astype(np.float32))


def test_a_copy_in_another_place_is_the_same_store(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 70)
    store = write_store(tmp_path / "here", data, make_spec(data))
    store.path.rename(tmp_path / "there")
    moved: Store = open_store(tmp_path / "there")
    assert moved.digest == store.digest
    assert_holds(moved, data)


@pytest.mark.parametrize("dtype", DTYPES)
@kinds
def test_inputs_of_every_dtype(tmp_path: Path, rng: np.random.Generator, kind: str, dtype: str) -> None:
    shape = tuple(rng.integers(1, 4, rng.integers(0, 4)).tolist())
    data = sample(rng, 20)
    inputs = rng.integers(0, 256, (20, *shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]
    inputs = np.ascontiguousarray(inputs)  # any bits, NaN among the floats
    data = Sample(data.keys, data.labels, data.logits, inputs)
    store = write_store(tmp_path / "store", data, make_spec(data, kind))
    assert store.columns["input"].shape == shape
    assert_holds(store, data)
    assert plain(store.path, data)["input"].tobytes() == inputs.tobytes()
