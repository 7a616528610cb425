"""`merge`, `concat` and `select`: what they make is what one pass would have made, bit for bit, of every kind of store; what
they carry, resume and refuse.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.ma  # which numpy imports when it is first needed, inside what is measured
import pytest
from msgspec.structs import replace as with_fields

from softlabels import StoreWriter, array_keys, concat, errors, merge, open_store, select, store_spec
from softlabels.jobs.sources import Source
from softlabels.jobs.watch import Watch
from softlabels.labels.encoding import DenseEncoding, Encoding, TopkEncoding, ValuesEncoding
from softlabels.labels.lost import Lost, LostTable
from softlabels.store import Store, chunks
from softlabels.store.new_spec import prepared_by
from softlabels.store.spec import MemberSpec, Parent, TeacherSpec
from softlabels.store.verify import verify
from softlabels.system.buffers import Buffers
from tests.store.places import MemoryPath
from tests.store.samples import Sample, assert_holds, make_spec, sample, topk, write_store

KINDS = ("zarr", "topk-zarr", "several-zarr", "ragseveral-arrow")
MORE = (
    "zstd", "arrow", "sequence-zstd", "ragged-arrow", "tokens-zarr", "ragtokens-arrow", "sigmoid-zarr", "values-arrow",
    "frames-arrow",
)  # fmt: skip


def kinds(*quick: str) -> list[Any]:
    """These, and the others as slow ones."""
    return [*quick, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (*KINDS, *MORE) if kind not in quick)]


NAMES = ["ant", "bee", "cat", "dog"]
X, Y = np.arange(60).reshape(60, 1), np.random.default_rng(9).integers(0, 4, 60)


def of_members(data: Sample, *members: int) -> Sample:
    """The same rows with some of the members."""
    soft, axis = data.soft, 1 if data.mask is None else 2
    if soft is not None:
        soft = {name: values.take(members, axis=axis) for name, values in soft.items()}
    several = {name: of_members(each, *members) for name, each in data.several.items()}
    logits = data.logits.take(members if data.soft is None else [0] * len(members), axis=-2)
    return replace(data, logits=logits, soft=soft, several=several)


def made(path: MemoryPath, data: Sample, kind: str, **options: Any) -> Store:
    return write_store(path, data, make_spec(data, kind, **options))


@pytest.fixture
def tmp_path() -> MemoryPath:
    """A folder in memory."""
    return MemoryPath()


def from_arrays(
    path: MemoryPath,
    logits: np.ndarray,
    *,
    inputs: np.ndarray,
    labels: np.ndarray | None = None,
    classes: Any = NAMES,
    mask: np.ndarray | None = None,
    encoding: Encoding | None = None,
    teacher: TeacherSpec | str = "one",
) -> Store:
    """A store in shards of 16 rows of logits (R, [P,] M, C); labels are -1 by default."""
    keys = array_keys(inputs)
    spec = store_spec(
        encoding or DenseEncoding(), teacher=teacher, name="rows", keys=keys, classes=classes, rows_per_shard=16,
        members=logits.shape[-2], embed=inputs, positions=None if mask is None else mask.shape[1],
    )  # fmt: skip
    own = np.full(logits.shape[:-2], -1) if labels is None else labels
    with StoreWriter(path, spec) as writer:
        for shard in writer.pending:
            at = slice(*writer.rows_of(shard))
            hard = None if spec.encoding.target == "values" else own[at]
            where = None if mask is None else mask[at]
            writer.write_logits(shard, keys=keys[at], labels=hard, logits=logits[at], inputs=inputs[at], mask=where)
        writer.seal()
    return open_store(path)


@pytest.fixture
def one(tmp_path: MemoryPath) -> Callable[..., Store]:
    """Makes a store of one member with names for its classes: of the same rows each time, or some of them."""

    def write(name: str, rows: Any = slice(None), member: int = 0, **options: Any) -> Store:
        given = {"inputs": X[rows], "labels": Y[rows]} | options
        return from_arrays(tmp_path / name / "train", logits_of(member)[rows], **given)

    return write


def require_listed(places: Sequence[Any], out: MemoryPath, *, missing: Any = "error", **options: Any) -> None:
    """Raise `AssertionError` unless the stores, read as one, say what the merged store in `out` says."""
    merged, [joined] = open_store(out), Source(tuple(places), **options).open(missing=missing).values()
    assert (joined.columns, joined.spec, joined.manifest.lost) == (merged.columns, merged.spec, merged.manifest.lost)
    assert (joined.basis is None) == (merged.basis is None)
    at = np.random.default_rng(0).permutation(merged.rows)
    for name in merged.columns:
        np.testing.assert_array_equal(joined.column(name), merged.column(name))
        np.testing.assert_array_equal(joined.gather(name, at), merged.gather(name, at))


def logits_of(member: int) -> np.ndarray:
    return np.random.default_rng(member).normal(size=(60, 1, 4))


@pytest.mark.parametrize("kind", kinds("zarr", "ragseveral-arrow"))
def test_members_in_any_order_of_rows_and_with_gaps(kind: str, tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 70, kind, members=3)
    rows = [np.arange(70), rng.permutation(70)[:66], rng.permutation(70)[:67]]
    for member, weight in enumerate([2, 1, 3]):
        made(tmp_path / str(member), of_members(data, member)[rows[member]], kind, weights=[weight])
    merge([tmp_path / str(member) for member in range(3)], tmp_path / "out", missing="skip")
    both = np.intersect1d(rows[1], rows[2])
    found = open_store(tmp_path / "out")
    assert_holds(found, data[both])
    require_listed([tmp_path / str(member) for member in range(3)], tmp_path / "out", missing="skip")
    assert verify(tmp_path / "out") == []
    assert [m.weight for m in found.spec.teacher.members] == [2, 1, 3]
    assert found.spec.parents == tuple(
        Parent(digest=open_store(tmp_path / str(member)).digest, how="merged") for member in range(3)
    )


def test_means_at_all_temperatures_and_what_is_carried(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    x, z, y = np.arange(50).reshape(50, 1), rng.normal(size=(50, 3, 4)), rng.integers(0, 4, 50)
    whole = from_arrays(tmp_path / "whole" / "train", z, inputs=x, labels=y)
    for member in range(3):
        order = rng.permutation(50) if member else np.arange(50)
        from_arrays(tmp_path / str(member) / "train", z[order, member : member + 1], inputs=x[order], labels=y[order])
    done = merge([tmp_path / str(member) for member in range(3)], tmp_path / "out")
    found = open_store(tmp_path / "out")
    assert found.content_digest == whole.content_digest == done["train"].content_digest
    for mean in ("arithmetic", "geometric", "tempered"):
        for temperature in (1.0, 2.0, 4.0):
            p = found.probabilities(range(50), temperature=temperature, mean=mean)
            np.testing.assert_array_equal(p, whole.probabilities(range(50), temperature=temperature, mean=mean))
    for temperature, line in whole.manifest.fidelity.items():
        own = found.manifest.fidelity[temperature]
        assert own.kl_mean == pytest.approx(line.kl_mean)
        assert (own.kl_max, own.top1_agreement) == (line.kl_max, line.top1_agreement)
    weighed = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "weighed", weights=[3, 1])["train"]
    assert [m.weight for m in weighed.spec.teacher.members] == [3, 1]
    again = merge([tmp_path / "out", tmp_path / "weighed"], tmp_path / "five", weights=[3, 8])
    assert [m.weight for m in again["train"].spec.teacher.members] == [1, 1, 1, 6, 2]


def test_what_was_lost_is_unknown_where_rows_are_left_out(one: Callable[..., Store], tmp_path: MemoryPath) -> None:
    one("a")
    one("b", slice(1, None), member=1)
    found = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", missing="skip")["train"]
    assert (found.spec.rows, found.fidelity) == (59, {})
    card = (tmp_path / "out" / "train" / "README.md").read_text()
    assert "What storing lost, against the exact logits, is unknown." in card
    assert f"- Made of stores: merged `{open_store(tmp_path / 'a').digest[:16]}`, merged `" in card


@pytest.mark.parametrize("kind", kinds("ragseveral-arrow"))
def test_rows_behind_each_other(kind: str, tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 70, kind)
    first = made(tmp_path / "a", data[:25], kind)
    made(tmp_path / "b", data[25:], kind, rows_per_shard=16)
    done = concat([tmp_path / "a", tmp_path / "b"], tmp_path / "out")["train"]
    assert_holds(open_store(tmp_path / "out"), data)
    assert verify(tmp_path / "out") == []
    second = open_store(tmp_path / "b")
    for target in first.targets:
        before = [store.manifest.lost[target] for store in (first, second)]
        parts = [store.record(shard).lost[target] for store in (first, second) for shard in range(store.spec.shards)]
        assert done.lost[target] == LostTable.of(parts)
        assert all(each.fidelity or each.errors for each in before)
        here = [open_store(tmp_path / "out").record(shard).lost[target] for shard in range(5)]
        assert here == [*parts, Lost()]  # the second store's shards begin in rows 25, 41 and 57
    made(tmp_path / "c", data[20:30], kind)
    with pytest.raises(errors.RepeatedRow, match=r"10 rows of .*c, the first of them row 0, have content keys that"):
        concat([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "more")
    said = list[str]()
    concat([tmp_path / "a", tmp_path / "c"], tmp_path / "more", repeated="first", watch=Watch(say=said.append))
    assert said[0].endswith("; 5 of 10 rows of memory:/c left out")
    assert_holds(open_store(tmp_path / "more"), data[:30])


@pytest.mark.parametrize("kind", kinds("several-zarr"))
def test_a_selection(kind: str, tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 70, kind, members=3)
    store = made(tmp_path / "a", data, kind, weights=[1, 2, 3])
    rows = rng.permutation(70)[:40]
    done = select(tmp_path / "a", tmp_path / "out", rows=rows, members=[2, 0])["train"]
    assert_holds(open_store(tmp_path / "out"), of_members(data, 2, 0)[rows])
    assert verify(tmp_path / "out") == []
    assert [m.weight for m in done.spec.teacher.members] == [3, 1]
    assert not any(each.fidelity or each.errors for each in done.lost.values())
    select(tmp_path / "a", tmp_path / "keys", rows=data.keys[rows], targets=store.targets[:1])
    found = open_store(tmp_path / "keys")
    assert found.targets == store.targets[:1]
    np.testing.assert_array_equal(found.column("content_key"), data.keys[rows])
    if len(store.targets) > 1:
        alone = select(tmp_path / "a", tmp_path / "tag", targets=["tag"])["train"]
        assert alone.lost["tag"] == store.manifest.lost["tag"]
        assert_holds(open_store(tmp_path / "tag"), replace(data, several={"tag": data.several["tag"]}, basis=None))


def test_few_rows_take_few_bytes(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 100)
    made(tmp_path / "a", data, "zarr", rows_per_shard=192, rows_per_chunk=96)
    few = select(tmp_path / "a", tmp_path / "few", rows="3:20")["train"]
    assert (few.spec.cut.rows_per_shard, few.spec.cut.rows_per_chunk) == (32, 32)
    assert_holds(open_store(tmp_path / "few"), data[3:20])


def test_splits_and_ranges_of_rows(one: Callable[..., Store], tmp_path: MemoryPath) -> None:
    keys = one("a").column("content_key")
    select(tmp_path / "a", tmp_path / "copy", splits=["train"])
    (tmp_path / "copy" / "train").rename(tmp_path / "a" / "test")
    for text, rows in {"50:": range(50, 60), "::20": range(0, 60, 20), "7, 3:5,0": [7, 3, 4, 0]}.items():
        out = tmp_path / str(len(text))
        select(tmp_path / "a", out, rows=text, splits=["test"])
        np.testing.assert_array_equal(open_store(out / "test").column("content_key"), keys[list(rows)])
    for wrong, said in {"-1": "'-1'", "a": "'a'", "": "''", "1:2:0": "'1:2:0'", "1.5": "'1.5'"}.items():
        with pytest.raises(errors.ConfigError, match=f"rows are {said}; write numbers and ranges"):
            select(tmp_path / "a" / "train", tmp_path / "out", rows=wrong)
    for strange, said in {
        "60": "60 asked for",
        "9" * 50: "asked for",
        "60:": "none asked for",
        "3,1:5": "row 3 is named twice",
    }.items():
        with pytest.raises(errors.UserError, match=said):
            select(tmp_path / "a" / "train", tmp_path / "out", rows=strange)
    with pytest.raises(errors.ConfigError, match="rows are selected from 2 splits"):
        select(tmp_path / "a", tmp_path / "out", rows="0")
    with pytest.raises(errors.ConfigError, match="nothing is selected; choose rows"):
        select(tmp_path / "a", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_meet_by_name(one: Callable[..., Store], tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    order = [2, 0, 3, 1]
    y, z = rng.integers(0, 4, 60), rng.normal(size=(60, 1, 4))
    names, back = [NAMES[i] for i in order], np.argsort(order)
    expected = one("expected", labels=y, member=1)
    one("a", labels=np.where(np.arange(60) % 2, y, -1))
    theirs = expected.column("logits")[..., order].astype(np.float32)
    labels = np.where(np.arange(60) % 3, back[y], -1)
    from_arrays(tmp_path / "b" / "train", theirs, inputs=X, labels=labels, classes=names)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    found = open_store(tmp_path / "out")
    assert found.class_names == tuple(NAMES)
    stored = open_store(tmp_path / "b").column("logits")[..., back]
    np.testing.assert_array_equal(found.column("logits")[:, 1:], stored)
    known = (np.arange(60) % 2 > 0) | (np.arange(60) % 3 > 0)
    np.testing.assert_array_equal(found.column("label"), np.where(known, y, -1))
    renamed = {"b": "bee", "a": "ant", "c": "cat"}
    from_arrays(tmp_path / "c" / "train", z, inputs=X, classes=["c", "b", "a", "dog"])
    merge([tmp_path / "a", tmp_path / "c"], tmp_path / "mapped", rename=renamed)
    require_listed([tmp_path / "a", tmp_path / "c"], tmp_path / "mapped", rename=renamed)
    both = open_store(tmp_path / "mapped").column("logits")[:, 1]
    np.testing.assert_array_equal(both, open_store(tmp_path / "c").column("logits")[:, 0][:, [2, 1, 0, 3]])
    with pytest.raises(errors.SpecMismatch, match="begun from other values"):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "mapped", rename={"b": "ant", "a": "bee", "c": "cat"})


@pytest.mark.parametrize("kind", ["sigmoid", "values", "topk"])
def test_classes_of_other_kinds_meet_by_name(kind: str, tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    classes, order = 7, rng.permutation(7)
    data = sample(rng, 40, "zarr" if kind == "topk" else f"{kind}-zarr", members=1, classes=classes)
    if kind == "topk":
        encoding = TopkEncoding(k=3, tail="uniform", nodes=4)
        soft, basis = topk(rng, (40,), encoding, members=1, classes=classes)
        data = replace(data, encoding=encoding, logits=np.zeros((40, 1, 1), np.float32), soft=soft, basis=basis)
    spec = make_spec(data, "zarr", names=True)
    write_store(tmp_path / "a", data, spec)
    space = spec.one_label_space
    other = replace(data, keys=data.keys)
    if kind == "topk":
        other = _changed(data, rng)
    else:
        other = replace(data, logits=(data.logits + 1)[..., order], labels=data.labels[..., order])
    names = tuple(space.names[i] for i in order)  # type: ignore[union-attr]

    write_store(tmp_path / "b", other, with_fields(spec, one_label_space=with_fields(space, names=names)))  # type: ignore[type-var]
    if kind == "topk":
        back = np.argsort(order)
        relabelled = replace(data, labels=np.where(data.labels >= 0, back[data.labels], -1))
        write_store(tmp_path / "c", relabelled, with_fields(spec, one_label_space=with_fields(space, names=names)))  # type: ignore[type-var]
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "out")
        require_listed([tmp_path / "a", tmp_path / "c"], tmp_path / "out")
        found, stored = open_store(tmp_path / "out"), open_store(tmp_path / "c")
        assert verify(tmp_path / "out") == []
        for temperature in (1.0, 3.0):
            here = found.log_probs(range(40), temperature=temperature, weights=[0, 1])
            there = stored.log_probs(range(40), temperature=temperature)
            np.testing.assert_allclose(here[:, order], there, rtol=1e-12, atol=1e-12)
        return
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    name = "values" if kind == "values" else "logits"
    found = open_store(tmp_path / "out")
    stored = open_store(tmp_path / "b").column(name)[:, 0]
    np.testing.assert_array_equal(found.column(name)[:, 1][:, order], stored)
    np.testing.assert_array_equal(found.column("label"), data.labels)


def _changed(data: Sample, rng: np.random.Generator) -> Sample:
    return data.changed(float(rng.uniform(0.5, 0.9)))


def refused(kind: type[Exception], text: str) -> Any:
    return pytest.raises(kind, match=text)


def test_what_cannot_be_merged(one: Callable[..., Store], tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    def go(*names: str, **options: Any) -> Mapping[str, Any]:
        return merge([tmp_path / name for name in names], tmp_path / "out", **options)

    def wrong(name: str, *args: Any, **options: Any) -> str:
        one(name, *args, **{"member": 1} | options)
        return name

    a = wrong("a", member=0)
    twice = wrong("twice", np.r_[0:60, 5, 7])
    with refused(
        errors.RepeatedRow, r"rows 5 and 60 of .*twice/train have one content key, and 1 more rows .*; give repeated"
    ):
        go(a, twice)
    with refused(errors.RepeatedRow, "have one content key"):
        go(twice, a)
    with refused(
        errors.ClassMismatch,
        r"share 3 of 4 and 4 classes: .*a/train alone has 'cat', .*part/train .* 'cow'; say",
    ):
        go(a, wrong("part", classes=["ant", "bee", "cow", "dog"]))
    from_arrays(tmp_path / "five" / "train", rng.normal(size=(60, 1, 5)), inputs=X, classes=[*NAMES, "eel"])
    with refused(errors.ClassMismatch, r"share 4 of 4 and 5 classes: memory:/five/train alone has 'eel'"):
        go(a, "five")
    with refused(errors.ConfigError, r"2 classes of .*part/train are called 'bee' then \('bee', 'cow'\)"):
        go(a, "part", rename={"cow": "bee"})
    with refused(errors.ConfigError, "none of the later stores has a class 'cat'; map names of the later"):
        go(a, "part", rename={"cat": "cow"})
    with refused(errors.ClassMismatch, "names its classes and .*bare/train does not"):
        go(a, wrong("bare", classes=4))
    with refused(
        errors.UnlabelledRows, r"few/train lacks 2 of the 60 rows of .*a/train, and has 0 others; say missing=skip"
    ):
        go(a, wrong("few", slice(2, None)))
    with refused(errors.UnlabelledRows, r"a/train lacks 0 of the 58 rows of .*few/train, and has 2 others"):
        go("few", a)
    with refused(errors.UnlabelledRows, "no row is in all of"):
        go(a, wrong("others", inputs=X + 100))
    with refused(errors.OtherLabels, r"row 0 of .*label/train has the hard label \d, and a store before it \d"):
        go(a, wrong("label", labels=(Y + 1) % 4))
    with refused(
        errors.SpecMismatch,
        r"cannot be merged \(.*encoding.kind: \"dense\" in memory:/a/train, \"values\" in memory:/vec",
    ):
        go(a, wrong("vectors", encoding=ValuesEncoding()))
    cells, mask = rng.normal(size=(60, 3, 1, 4)), np.ones((60, 3), np.uint8)
    from_arrays(tmp_path / "cells" / "train", cells, inputs=X, mask=mask)
    with refused(errors.SpecMismatch, r"cannot be merged \(positions: null in .*, 3 in .*cells"):
        go(a, "cells")
    with refused(errors.ConfigError, "weights are 1, and there are 2 stores"):
        go(a, wrong("b"), weights=[1])
    with refused(errors.ConfigError, "weights are 0, 0, and there are 2 stores"):
        go(a, "b", weights=[0, 0])
    with refused(errors.ConfigError, "hold the same labels; name each store once"):
        go(a, a)
    with refused(errors.ConfigError, "one store cannot be merged"):
        go(a)
    with refused(errors.StorePathError, "one is inside the other"):
        merge([tmp_path / a, tmp_path / "b"], tmp_path / "b")
    with refused(errors.ConfigError, "is one split, and .* a folder of splits"):
        go(a, "b/train")
    assert not (tmp_path / "out").exists()


def test_means_rows_and_members_that_there_are_not(
    tmp_path: MemoryPath, rng: np.random.Generator, one: Callable[..., Store]
) -> None:
    data = sample(rng, 40)
    data = replace(data, logits=np.where(np.isinf(data.logits), np.float32(-9), data.logits))
    made(tmp_path / "mean", data, "zarr", reduce="geometric")
    made(tmp_path / "all", data, "zarr")
    said = "mean keeps the geometric mean of its members, not their outputs, and cannot be"
    with refused(errors.MeanUnavailable, f"{said} merged; give stores that keep every member"):
        merge([tmp_path / "all", tmp_path / "mean"], tmp_path / "out")
    with refused(errors.MeanUnavailable, f"{said} taken apart"):
        select(tmp_path / "mean", tmp_path / "out", members=[0])
    for members, text in (
        ([2], "has the members 0 to 1, and 2 asked for"),
        ([], "none asked for"),
        ([1, 1], "member 1 named twice"),
    ):
        with refused(errors.UserError, text):
            select(tmp_path / "all", tmp_path / "out", members=members)
    with refused(errors.SeveralTargets, "has no target 'box'"):
        select(tmp_path / "all", tmp_path / "out", targets=["box"])
    with refused(errors.UnlabelledRows, "holds no row of 1 of 2 content keys"):
        select(tmp_path / "all", tmp_path / "out", rows=np.concatenate([data.keys[:1], data.keys[:1] ^ np.uint8(1)]))
    with refused(errors.UserError, r"rows are float64 \(1,\); give numbers"):
        select(tmp_path / "all", tmp_path / "out", rows=[1.5])
    with refused(errors.ConfigError, "has the splits train, and these are wanted: test"):
        select(tmp_path / "all", tmp_path / "out", splits=["test"])
    teacher = TeacherSpec(name="other", precision="float32", members=(MemberSpec(model="m", weights="ab" * 32),))
    one("a", slice(30))
    one("b", slice(30, None), teacher=teacher)
    with refused(
        errors.SpecMismatch,
        r"cannot be concatenated \(.*teacher.members\[0\].weights: \"\" in .*; give stores of one teacher",
    ):
        concat([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_positions_of_one_key(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 40, "anchors-zarr", members=1)
    made(tmp_path / "a", data, "anchors-zarr")
    assert data.mask is not None
    mask = data.mask.copy()
    mask[7] = 1 - mask[7] | (np.arange(mask.shape[1]) == 0)
    labels = np.where(mask == 1, data.labels, -1)
    labels[7] = np.where((data.mask[7] == 1) & (mask[7] == 1), data.labels[7], -1)
    made(tmp_path / "b", replace(data, mask=mask, labels=labels).changed(0.5), "anchors-zarr")
    with refused(errors.SpecMismatch, r"row 7 of .*a and row 7 of .*b have one content key, and position_mask differs"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_ragged_rows_beside_padded_ones(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 40, "frames-arrow", members=2)
    made(tmp_path / "ragged", of_members(data, 0), "frames-arrow")
    made(tmp_path / "padded", of_members(replace(data, ragged=False), 1), "frames-zarr")
    merge([tmp_path / "ragged", tmp_path / "padded"], tmp_path / "out")
    assert_holds(open_store(tmp_path / "out"), data)
    merge([tmp_path / "padded", tmp_path / "ragged"], tmp_path / "reversed")
    assert open_store(tmp_path / "reversed").layout == "zarr"
    assert_holds(open_store(tmp_path / "reversed"), of_members(replace(data, ragged=False), 1, 0))
    assert verify(tmp_path / "out") == verify(tmp_path / "reversed") == []


def test_what_inputs_are_said_to_be(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 80)
    for name, function, embed in (("a", "one", True), ("b", "two", True), ("c", "one", False), ("d", "two", False)):
        changed = data.changed({"a": 1.0, "b": 0.5, "c": 0.75, "d": 0.25}[name])
        spec = with_fields(make_spec(changed, embed=embed), preprocessing=prepared_by(function, {}, data.inputs))
        write_store(tmp_path / name, changed, spec)

    def said(*names: str) -> tuple[str, bool]:
        done = merge([tmp_path / name for name in names], tmp_path / "".join(names))["train"].spec
        return done.preprocessing.function, done.preprocessing.sample != ""

    assert (said("a", "b"), said("c", "d"), said("c", "a")) == (("one", True), ("", False), ("one", True))
    kept = [
        select(tmp_path / "a", tmp_path / rows, rows=rows)["train"].spec.preprocessing.sample
        for rows in (":64", ":63", "1:")
    ]
    assert kept == [prepared_by("one", {}, data.inputs).sample, "", ""]
    for name, part in (("30", data[:30]), ("50", data[30:])):  # the digest of 30 rows is none of the first 64 of 80
        spec = with_fields(make_spec(part), preprocessing=prepared_by("one", {}, part.inputs))
        write_store(tmp_path / name, part, spec)
    done = concat([tmp_path / "30", tmp_path / "50"], tmp_path / "80")["train"]
    assert (done.spec.rows, done.spec.preprocessing.sample) == (80, "")


def test_classes_without_names_in_another_order(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    y, x = rng.integers(0, 4, 300), np.arange(300).reshape(300, 1)
    z = (4 * np.eye(4)[y] + rng.normal(size=(300, 4)))[:, None]
    from_arrays(tmp_path / "a" / "train", z, inputs=x, labels=y, classes=4)
    from_arrays(tmp_path / "b" / "train", z[..., [1, 2, 3, 0]], inputs=x, classes=4)
    with pytest.raises(errors.OtherClassOrder):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_it_resumes_to_the_same_bytes(one: Callable[..., Store], tmp_path: MemoryPath) -> None:
    one("a")
    one("b", np.arange(60)[::-1], member=1)
    stores, lines = [tmp_path / "a", tmp_path / "b"], list[str]()
    whole = merge(stores, tmp_path / "whole", watch=Watch(say=lines.append))["train"]
    assert lines[0].startswith("train: 60 rows, 2 members, ")
    asked = iter([False, False, True])
    with pytest.raises(errors.Interrupted, match="stopped with 2 of 4 shards left"):
        merge(stores, tmp_path / "out", watch=Watch(should_stop=lambda: next(asked)))
    with pytest.raises(errors.SpecMismatch, match=r"begun with another specification .*parents\[0\].digest"):
        merge(stores[::-1], tmp_path / "out")
    from_arrays(tmp_path / "two" / "train", np.concatenate([logits_of(0), logits_of(1)], axis=1), inputs=X)
    asked = iter([False, True])
    with pytest.raises(errors.Interrupted):
        select(tmp_path / "two", tmp_path / "one", members=[0], watch=Watch(should_stop=lambda: next(asked)))
    with pytest.raises(errors.SpecMismatch, match="begun from other values"):  # though both are called alike
        select(tmp_path / "two", tmp_path / "one", members=[1])
    assert merge(stores, tmp_path / "out")["train"].digest == whole.digest
    assert merge(stores, tmp_path / "out")["train"].digest == whole.digest  # and leaves a finished store as it is


def test_three_chunks_in_memory(
    tmp_path_factory: pytest.TempPathFactory, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of stores of 12 chunks. Seen to fail where whole columns are read, and where a check looks at a whole chunk's outputs."""
    classes, disk = 1 << 13, tmp_path_factory.mktemp("disk")
    data = replace(sample(rng, 192, members=2), labels=np.full(192, -1), classes=classes)
    data = replace(data, logits=rng.normal(size=(192, 2, classes)).astype(np.float32))
    for number in (0, 1):
        for name, part in (("member", of_members(data, number)), ("half", data[96 * number : 96 * (number + 1)])):
            write_store(disk / f"{name}{number}", part, make_spec(part, rows_per_shard=96))
    monkeypatch.setattr(chunks, "KEPT", Buffers(0))
    chunk = 2 * 16 * classes * 2  # bytes of the new store's
    for make, name in ((merge, "member"), (concat, "half")):
        tracemalloc.start()
        make([disk / f"{name}0", disk / f"{name}1"], disk / name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3.5 * chunk + (1 << 21), f"{peak / chunk:.2f} chunks"  # with names, digests, fidelity and all
