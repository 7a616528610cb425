"""What a writer refuses, and that it leaves the store as it was."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from softlabels.errors import (
    LabelError,
    LogitsError,
    RepeatedRow,
    SpecMismatch,
    StorePathError,
    UnsealedStore,
    UserError,
)
from softlabels.labels.encoding import DenseEncoding
from softlabels.store import StoreWriter, open_store
from softlabels.store.json_files import encode_json
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, Preprocessing, Spec, TeacherSpec
from tests.store.places import AnyPath, lock_left
from tests.store.samples import FIDELITY, Sample, assert_holds, fill, make_spec, sample, write_store


def snapshot(path: AnyPath) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def write_first(writer: StoreWriter, data: Sample, **changes: np.ndarray) -> None:
    part = data[slice(*writer.rows_of(0))]
    arrays = {"keys": part.keys, "labels": part.labels, "logits": part.logits, "inputs": part.inputs}
    writer.write_logits(0, **{**arrays, **changes})


@pytest.mark.parametrize("reduce", ["none", "geometric"])
@pytest.mark.parametrize(("value", "words"), [(np.nan, "logits are NaN"), (np.inf, r"a logit is \+inf")])
def test_bad_logits_name_row_and_member(
    tmp_path: Path, rng: np.random.Generator, value: float, words: str, reduce: str
) -> None:
    data = sample(rng, 100, members=3)
    row, member = 48 + int(rng.integers(48)), int(rng.integers(3))
    data.logits[row, member, 2] = value
    with StoreWriter(tmp_path / "store", make_spec(data, reduce=reduce)) as writer:
        fill(writer, data, [0])
        before = snapshot(tmp_path / "store")
        with pytest.raises(LogitsError, match=rf"{words} \(row {row}, member {member}\)"):
            fill(writer, data, [1])
        assert snapshot(tmp_path / "store") == before
        data.logits[row, member, 2] = 0
        fill(writer, data)
        writer.seal()


@pytest.mark.parametrize("label", [-2, 7, 2**40])
def test_labels_outside_the_label_space(tmp_path: Path, rng: np.random.Generator, label: int) -> None:
    data = sample(rng, 100)
    data.labels[51] = label
    with StoreWriter(tmp_path / "store", make_spec(data)) as writer:
        words = f"row 51 has the hard label {label}, outside the label space of 7 classes; use 0 to 6, or -1"
        with pytest.raises(LabelError, match=words):
            fill(writer, data, [1])
        assert writer.pending == [0, 1, 2]


def test_nothing_is_cast_and_nothing_is_dropped(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 48)
    with StoreWriter(tmp_path / "store", make_spec(data)) as writer:
        for changes, words in [
            ({"labels": data.labels.astype(np.int32)}, r"column label of shard 0 is int32 \(48,\), not int64"),
            ({"keys": data.keys[:, :8]}, r"column content_key of shard 0 is uint8 \(48, 8\), not uint8 \(48, 16\)"),
            ({"keys": data.keys[:40]}, r"column content_key"),
            ({"inputs": None}, "column input of shard 0 is nothing"),
            ({"inputs": data.inputs.astype(np.float32)}, "column input of shard 0 is float32"),
        ]:
            with pytest.raises(UserError, match=words):
                write_first(writer, data, **changes)
        for logits in (data.logits[:40], data.logits[:, :1], data.logits[..., :6], data.logits[0]):
            with pytest.raises(LogitsError, match="do not hold 48 rows x 2 members x 7 classes"):
                write_first(writer, data, logits=logits)
        with pytest.raises(LogitsError, match="int64"):
            write_first(writer, data, logits=np.zeros((48, 2, 7), np.int64))
        for shard in (-1, 1):
            with pytest.raises(UserError, match=f"shard {shard} of a store of 1 shards"):
                fill(writer, data, [shard])
        assert writer.pending == [0]
    other = StoreWriter(tmp_path / "other", make_spec(data, embed=False))
    with other, pytest.raises(UserError, match="has no column input"):
        write_first(other, data)


def test_each_row_is_written_once(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 100)
    with StoreWriter(tmp_path / "store", make_spec(data)) as writer:
        fill(writer, data, [1])
        with pytest.raises(RepeatedRow, match=r"rows 48 to 95 are in .*store already; write each shard once"):
            fill(writer, data, [1])
    with StoreWriter(tmp_path / "store", make_spec(data)) as writer:
        assert writer.pending == [0, 2]
        with pytest.raises(RepeatedRow, match="rows 48 to 95"):
            fill(writer, data, [1])
        fill(writer, data)
        manifest = writer.seal()
        with pytest.raises(RepeatedRow, match="rows 0 to 47"):
            fill(writer, data, [0])
    before = snapshot(tmp_path / "store")
    with StoreWriter(tmp_path / "store", make_spec(data)) as writer:
        assert (writer.sealed, writer.pending, writer.seal()) == (True, [], manifest)
        with pytest.raises(RepeatedRow, match="rows 96 to 99"):
            fill(writer, data, [2])
    assert snapshot(tmp_path / "store") == before


def test_a_shard_that_was_not_committed_may_be_written_again(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 100)
    with StoreWriter(tmp_path / "store", make_spec(data)) as writer:
        with writer.shard(1):
            pass
        assert writer.pending == [0, 1, 2]
        fill(writer, data)
        assert writer.pending == []


def test_rows_one_at_a_time_are_copied_once(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the whole chunk so far with each of them."""
    copied, concatenate = [0], np.concatenate

    def counting(arrays: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
        found: np.ndarray = concatenate(arrays, axis)
        copied[0] += found.nbytes
        return found

    data = sample(rng, 100)
    spec = make_spec(data)
    arrays = {each.name: data.stored()[each.name] for each in spec.columns}
    with StoreWriter(tmp_path / "whole", spec) as whole, StoreWriter(tmp_path / "pieces", spec) as writer:
        fill(whole, data)
        monkeypatch.setattr("softlabels.store.shard_writer.np.concatenate", counting)
        for shard in writer.pending:
            with writer.shard(shard) as out:
                for row in range(*writer.rows_of(shard)):
                    out.add({name: values[row : row + 1] for name, values in arrays.items()}, 1)
                out.commit(FIDELITY)
        assert copied[0] <= 1.1 * sum(values.nbytes for values in arrays.values())
        assert writer.seal().digest == whole.seal().digest


def test_sealing_takes_every_shard(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 16 * 9)
    with StoreWriter(tmp_path / "store", make_spec(data, rows_per_shard=16)) as writer:
        fill(writer, data, [0, 4])
        with pytest.raises(UnsealedStore, match="still lacks shards 1, 2, 3, 5, 6 and 2 more; write them, then seal"):
            writer.seal()
        fill(writer, data)
        writer.seal()
    assert not (tmp_path / "store" / "staging").exists()


def test_keys_that_are_not_those_of_the_transfer_set(tmp_path: Path, rng: np.random.Generator) -> None:
    data, other = sample(rng, 60), sample(rng, 60)
    with StoreWriter(tmp_path / "store", make_spec(data)) as writer:
        fill(writer, other)
        with pytest.raises(SpecMismatch, match=r"content keys written to .* are not those of the transfer set"):
            writer.seal()
    assert not (tmp_path / "store" / "manifest.json").exists()
    swapped = data[np.r_[1, 0, 2:60]]
    with StoreWriter(tmp_path / "swapped", make_spec(data)) as writer:
        fill(writer, swapped)
        with pytest.raises(SpecMismatch, match="content keys"):
            writer.seal()


def spec_with(spec: Spec, where: str, value: object) -> Spec:
    """The specification with one field changed, by its dotted path."""
    data = msgspec.json.decode(encode_json(spec))
    *path, last = re.findall(r"\w+", where)
    at = data
    for step in path:
        at = at[int(step)] if isinstance(at, list) else at[step]
    at[last] = value
    return msgspec.convert(data, Spec)


CHANGES = [
    ("teacher.name", "other"),
    ("teacher.precision", "bfloat16"),
    ("teacher.members[1].weights", "f" * 64),
    ("teacher.members[0].weight", 0.5),
    ("transfer_set.name", "others"),
    ("transfer_set.split", "test"),
    ("transfer_set.revision", "abc"),
    ("transfer_set.content_keys", "0" * 64),
    ("label_space.names", [f"k{i}" for i in range(7)]),
    ("preprocessing.function", "resize"),
    ("preprocessing.arguments", {"size": [28, 28]}),
    ("preprocessing.sample", "d" * 64),
    ("layout", "arrow"),
    ("compression", "zstd"),
    ("cut.rows_per_shard", 96),
    ("cut.teacher_batch", 8),
]


def test_another_specification_is_refused_naming_each_field(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 100)
    spec = make_spec(data)
    with StoreWriter(tmp_path / "begun", spec) as writer:
        fill(writer, data, [0])
    write_store(tmp_path / "sealed", data, spec)
    for (first, one), (second, two) in itertools.pairwise(CHANGES):
        other = spec_with(spec, first, one)
        if (first, second) != ("layout", "compression"):  # Arrow has no compression
            other = spec_with(other, second, two)
        for name in ("begun", "sealed"):
            before = snapshot(tmp_path / name)
            with pytest.raises(UserError, match="begun with another specification") as caught:
                StoreWriter(tmp_path / name, other)
            named = [field for field, _ in CHANGES if re.search(rf"[( ]{re.escape(field)}[.:]", str(caught.value))]
            assert named == [field for field in (first, second) if field != "compression" or first != "layout"]
            assert all(str(leaf.said()) in str(caught.value) for leaf in caught.value.differences)
            assert snapshot(tmp_path / name) == before


def test_the_same_specification_again_is_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    """Tuples and whole numbers come back from JSON as lists and floats; that is no difference."""
    data = sample(rng, 40)
    spec = msgspec.structs.replace(
        make_spec(data, weights=[1, 2]),
        preprocessing=Preprocessing(function="resize", arguments={"size": (28, 28), "mean": {"b": 1, "a": (0.5,)}}),
    )
    with StoreWriter(tmp_path / "store", spec) as writer:
        fill(writer, data, [0])
    with StoreWriter(tmp_path / "store", spec) as writer:
        writer.seal()
    assert StoreWriter(tmp_path / "store", spec).sealed


IMPOSSIBLE = [
    ({"rows_per_chunk": 10}, "rows_per_chunk"),
    ({"rows_per_shard": 40, "rows_per_chunk": 16}, "rows_per_shard=40 is no multiple of rows_per_chunk=16"),
    ({"rows_per_shard": 16 << 20, "rows_per_chunk": 16}, "chunks exceeds"),
    ({"layout": "arrow", "compression": "zstd"}, "zstd needs layout: zarr"),
    ({"layout": "parquet"}, "Invalid enum value 'parquet'.*layout"),
    ({"compression": "gzip"}, "Invalid enum value 'gzip'.*compression"),
    (
        {"encoding": DenseEncoding(reduce="arithmetic")},
        "dense labels cannot be reduced to the arithmetic mean",
    ),
    ({"classes": 1}, "classes"),
    ({"embed": np.array([["a"]] * 40)}, "<U1 cannot be embedded|str.*cannot be embedded"),
    ({"embed": np.zeros((40, 1 << 28), np.bool_)[:, :0]}, "cannot be embedded"),
    (
        {"teacher": TeacherSpec(name="t", precision="", members=(MemberSpec(model="m", weight=0.0),))},
        "weights add up to 0",
    ),
    ({"teacher": TeacherSpec(name="t", precision="", members=(MemberSpec(model="m", weight=-1.0),))}, "weight"),
    ({"teacher": TeacherSpec(name="t", precision="", members=(MemberSpec(model=3),))}, "model"),  # type: ignore[arg-type]
    ({"preprocessing": Preprocessing(function="f", arguments={"a": np.int64(3)})}, "int64"),
]


@pytest.mark.parametrize(("changes", "words"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_specifications(rng: np.random.Generator, changes: dict[str, object], words: str) -> None:
    data = sample(rng, 40)
    arguments: dict[str, object] = {"teacher": "t", "name": "rows", "keys": data.keys, "classes": 7}
    with pytest.raises(UserError, match=words):
        store_spec(**{**arguments, **changes})  # type: ignore[arg-type]


def test_a_bad_specification_leaves_no_trace(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 40)
    spec = make_spec(data)
    cut = msgspec.structs.replace(spec.cut, rows_per_chunk=10, rows_per_shard=40)
    with pytest.raises(UserError, match="rows_per_chunk"):
        StoreWriter(tmp_path / "store", msgspec.structs.replace(spec, cut=cut))
    assert not (tmp_path / "store").exists()


def test_paths_that_hold_something_else(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = make_spec(sample(rng, 40))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    with pytest.raises(StorePathError, match="file is a file; a store is a folder; give another path"):
        StoreWriter(tmp_path / "file", spec)
    with pytest.raises(StorePathError, match=r"holds other files \(thesis.tex\) and no plan.json"):
        StoreWriter(tmp_path / "folder", spec)
    assert snapshot(tmp_path) == {"file": b"mine", "folder/thesis.tex": b"mine"}


def test_leftovers_of_dead_writers_are_swept(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 100)
    spec = make_spec(data)
    with StoreWriter(tmp_path / "store", spec) as writer:
        fill(writer, data, [0])
        staging = tmp_path / "store" / "staging"
        (staging / ("a" * 32)).mkdir()
        (staging / ("a" * 32) / "0").write_bytes(b"half a shard")
        (staging / "x.file").write_bytes(b"")
        with StoreWriter(tmp_path / "store", spec) as second:  # the first is alive: its files are not touched
            assert (staging / ("a" * 32) / "0").exists()
            fill(second, data, [1])
        assert writer.pending == [2]
    with StoreWriter(tmp_path / "store", spec) as writer:
        if writer.folder.sees_writers:  # else when it is sealed
            assert snapshot(staging) == lock_left(staging)
        fill(writer, data)
        writer.seal()
        assert writer.folder.names("staging") == []
    assert_holds(write_store(tmp_path / "store", data, spec), data)


@pytest.mark.on_disk("blocks of a file system")
@pytest.mark.parametrize("rows_per_shard", [16, 64, 640])
@pytest.mark.parametrize("kind", ["zarr", "arrow", "topk-zarr", "topk-arrow", "sequence-zarr"])
def test_the_estimate_covers_what_a_store_takes_of_the_disk(
    tmp_path: Path, rng: np.random.Generator, kind: str, rows_per_shard: int
) -> None:
    """Of many small shards, whose files and records take whole blocks, as of few large ones."""
    data = sample(rng, 16 * 40 + 3, kind)
    spec = make_spec(data, kind, rows_per_shard=rows_per_shard)
    with StoreWriter(tmp_path / "store", spec, basis=data.basis) as writer:
        estimate = writer.bytes_left
        fill(writer, data, [0])
        assert writer.bytes_left < estimate
        fill(writer, data, writer.pending)
        assert writer.bytes_left == 0
        writer.seal()
    taken = sum(path.lstat().st_blocks * 512 for path in (tmp_path / "store").rglob("*"))  # as `du` does
    assert taken <= estimate <= 1.3 * taken + (1 << 17)


@pytest.mark.on_disk("blocks of a file system")
def test_what_a_network_moves_at_once_is_no_block(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the estimate would refuse stores of many small files that have room."""
    data = sample(rng, 16 * 40, "zarr")
    with StoreWriter(tmp_path / "store", make_spec(data, "zarr", rows_per_shard=16)) as writer:
        found = []
        for size in (4096, 1 << 22):
            monkeypatch.setattr(os, "statvfs", lambda path, size=size: SimpleNamespace(f_frsize=size))
            found.append(writer.bytes_left)
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["sequence-zarr", "ragged-arrow"])
@pytest.mark.parametrize(("positions", "members"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_columns_of_positions_may_stand_row_behind_row(
    tmp_path: Path, rng: np.random.Generator, kind: str, positions: int, members: int
) -> None:
    whole = sample(rng, 20, kind, members=members)
    assert whole.soft is not None
    assert whole.mask is not None
    assert whole.document is not None
    data = replace(
        whole,
        mask=whole.mask[:, :positions],
        document=whole.document[:, :positions],
        soft={name: values[:, :positions] for name, values in whole.soft.items()},
    )
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in data.soft.items()}  # type: ignore[union-attr]
    with StoreWriter(tmp_path / "store", make_spec(data, kind), basis=data.basis) as writer:
        writer.write_columns(
            0,
            keys=data.keys,
            labels=data.labels,
            columns=flat,
            mask=data.mask,
            document=data.document,
            inputs=data.inputs,
            fidelity=FIDELITY,
        )
        writer.seal()
    assert_holds(open_store(tmp_path / "store"), data)
