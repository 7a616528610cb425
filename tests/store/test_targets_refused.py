"""What is refused of several targets, of sigmoid and values, and of rows of positions: by writers, and by readers of stores
that somebody made to harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.errors import (
    DamagedManifest,
    DamagedShard,
    LabelError,
    LogitsError,
    UserError,
)
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, TopkEncoding, ValuesEncoding
from softlabels.labels.fidelity import FidelitySums
from softlabels.labels.lost import ErrorSums, Lost
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.rules import check_spec
from softlabels.store.spec import Parent, Spec, fields_of_3, plan_of
from softlabels.store.verify import verify
from tests.store.places import AnyPath
from tests.store.samples import fill, make_spec, sample
from tests.store.test_hostile import Edit, in_little_memory, put, read_all, seal_again
from tests.store.test_writer import snapshot

ROWS = 70
several = pytest.mark.parametrize("target_store", ["several-zarr"], indirect=True)


# What writers refuse, each in one message that names row and target.


def with_value(*where: str, at: Any, value: float) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        part = given
        for name in where[:-1]:
            part = part[name]
        part[where[-1]] = part[where[-1]].copy()
        part[where[-1]][at] = value

    return change


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], type[Exception], str]] = {
    "a mask that is all false": (
        with_value("mask", at=20, value=0),
        UserError,
        r"row 20: none of its positions counts",
    ),
    "a mask of other numbers": (
        with_value("mask", at=(20, 0), value=2),
        UserError,
        r"row 20: the mask .* neither 0 nor 1",
    ),
    "no mask": (lambda g: g.update(mask=None), UserError, "a mask belongs only to rows of positions"),
    "a mask of another length": (
        lambda g: g.update(mask=g["mask"][:, :4]),
        UserError,
        r"mask has the shape \(48, 4\), not \(48, 5\)",
    ),
    "documents": (lambda g: g.update(document=g["mask"].astype(np.uint16)), UserError, "has no column document"),
    "targets with different positions": (
        lambda g: g["logits"].update(box=g["logits"]["box"][:, :3]),
        LogitsError,
        r"target box, logits of shape \(48, 3, 2, 4\) do not hold 48 rows x 5 positions x 2 members x 4 classes",
    ),
    "members for positions": (
        lambda g: g["logits"].update(tag=g["logits"]["tag"].reshape(48, 10, 3)),
        LogitsError,
        r"target tag, logits of shape \(48, 10, 3\)",
    ),
    "sigmoid labels": (
        with_value("labels", "tag", at=(20, 1, 2), value=2),
        LabelError,
        r"target tag: row 20 has the hard label 2 of class 2 at position 1, which is neither 0 nor 1; give 0 or 1 a class",
    ),
    "a class that is none": (
        with_value("labels", "class", at=(20, 1), value=7),
        LabelError,
        r"target class: row 20 has the hard label 7 at position 1, outside the label space of 7 classes; use 0 to 6",
    ),
    "half a box": (
        with_value("labels", "box", at=(20, 1, 0), value=np.inf),
        LabelError,
        "target box: row 20 has a hard label at position 1, which is infinite",
    ),
    "labels of another length": (
        lambda g: g["labels"].update({"class": g["labels"]["class"][:, :4]}),
        UserError,
        r"column class.label of shard 0 is int64 \(48, 4\), not int64 \(48, 5\)",
    ),
    "labels of another dtype": (
        lambda g: g["labels"].update(tag=g["labels"]["tag"].astype(np.int64)),
        UserError,
        r"column tag.label .* not int8 \(48, 5, 3\)",
    ),
    "no labels": (lambda g: g["labels"].pop("class"), UserError, "column class.label of shard 0 is nothing"),
    "labels of nothing": (lambda g: g["labels"].update(cat=g["labels"]["class"]), UserError, "has no column cat.label"),
    "NaN boxes": (
        with_value("logits", "box", at=(20, 1, 1, 3), value=np.nan),
        LogitsError,
        r"NaN .*target box, row 20, position 1, member 1",
    ),
    "infinite boxes": (
        with_value("logits", "box", at=(20, 1, 0, 3), value=np.inf),
        LogitsError,
        r"target box, row 20, position 1, member 0",
    ),
    "NaN sigmoids": (
        with_value("logits", "tag", at=(20, 1, 1, 2), value=np.nan),
        LogitsError,
        r"target tag, row 20, position 1, member 1",
    ),
    "a target less": (
        lambda g: g["logits"].pop("tag"),
        UserError,
        r"logits are \['box', 'class'\], and the targets of the store are class, tag, box",
    ),
    "no mapping": (lambda g: g.update(logits=g["logits"]["class"]), UserError, "logits are ndarray, and the targets"),
}


@pytest.mark.on_disk("what is refused knows no folder")
@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_and_nothing_is_written(tmp_path: AnyPath, rng: np.random.Generator, what: str) -> None:
    change, kind, words = BAD[what]
    data = sample(rng, ROWS, "several-zarr")
    data.mask[20] = 1  # type: ignore[index]
    for each in data.several.values():
        each.mask[20] = 1  # type: ignore[index]
    with StoreWriter(tmp_path / "store", make_spec(data, "several-zarr")) as writer:
        part = data[:48]
        given: dict[str, Any] = {
            "keys": part.keys, "mask": part.mask, "inputs": part.inputs,
            "labels": {name: each.labels for name, each in part.several.items()},
            "logits": {name: each.logits for name, each in part.several.items()},
        }  # fmt: skip
        change(given)
        before = snapshot(tmp_path / "store")
        with pytest.raises(kind, match=words):
            writer.write_logits(0, **given)
        assert snapshot(tmp_path / "store") == before


def test_a_position_that_the_mask_leaves_out_has_no_label(tmp_path: AnyPath, rng: np.random.Generator) -> None:
    data = sample(rng, 20, "several-zarr")
    data.mask[7] = [1, 0, 1, 1, 1]  # type: ignore[index]
    for each in data.several.values():
        each.labels[7, 1] = np.nan if each.kind == "values" else -1
    for name, label in {"class": 3, "tag": 0, "box": 1.5}.items():
        other = {key: each[:] for key, each in data.several.items()}
        labels = other[name].labels.copy()
        labels[7, 1] = label
        other[name] = replace(other[name], labels=labels)
        with StoreWriter(tmp_path / name, make_spec(data, "several-zarr")) as writer:
            words = f"row 7: target {name}: a position that the mask leaves out has a hard label"
            with pytest.raises(UserError, match=words):
                fill(writer, replace(data, several=other), [0])


def test_lengths_beyond_the_most(tmp_path: AnyPath, rng: np.random.Generator) -> None:
    """A count that mask and columns do not have room for, or that cuts off what counts."""
    data = sample(rng, 20, "frames-arrow")
    spec, stored = make_spec(data, "frames-arrow"), data.stored()
    for count, words in (
        (6, "row 0: the number of its positions is not 1 to 5"),
        (0, "row 0: the number of its positions"),
        (1, "beyond the number"),
    ):
        arrays = {column.name: stored[column.name] for column in spec.columns}
        arrays["positions"] = np.full(20, count, np.int32)
        arrays["position_mask"] = np.ones((20, 5), np.uint8)
        arrays["label"] = np.full((20, 5), -1)
        with (
            StoreWriter(tmp_path / str(count), spec) as writer,
            writer.shard(0) as out,
            pytest.raises(UserError, match=words),
        ):
            out.add(arrays, 20)


# Specifications.

KEYS = np.arange(16 * 20, dtype=np.uint8).reshape(20, 16)
TWO = {"class": (DenseEncoding(), ("a", "b")), "box": (ValuesEncoding(), 4)}


def new_spec(**facts: Any) -> Spec:
    return store_spec(**{"teacher": "t", "name": "n", "keys": KEYS, "targets": TWO} | facts)


def test_columns_stand_in_the_order_of_the_format() -> None:
    spec = new_spec(
        positions=300, labelled=["box"], folds=5, ragged=True, layout="arrow", embed=np.zeros((20, 2), np.uint8)
    )
    assert [(c.name, c.dtype, c.shape) for c in spec.columns] == [
        ("content_key", "uint8", (16,)), ("class.label", "int64", (300,)), ("box.label", "float32", (300, 4)),
        ("fold", "uint16", ()), ("positions", "int32", ()), ("position_mask", "uint8", (300,)),
        ("class.logits", "float16", (300, 1, 2)), ("class.shift", "float32", (300, 1)),
        ("box.values", "float32", (300, 1, 4)), ("input", "uint8", (2,)),
    ]  # fmt: skip
    assert (spec.positions, spec.ragged, spec.of_tokens, spec.inputs) == (300, True, False, "embed")
    alone = spec.only("box")
    assert [c.name for c in alone.columns] == [
        "content_key", "label", "fold", "positions", "position_mask", "values", "input",
    ]  # fmt: skip
    assert (alone.label_space.classes, alone.encoding.kind) == (4, "values")
    assert plan_of(spec).format == 3


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"targets": None, "classes": 3}, []),
        ({"targets": None, "classes": 3, "positions": 4, "vocabulary": "ab" * 32}, []),
        ({"targets": None, "classes": 3, "positions": 4}, ["positions"]),
        ({"targets": None, "classes": 3, "folds": 2}, ["folds"]),
        ({"targets": None, "classes": 3, "parents": [Parent(digest="0" * 64, how="merged")]}, ["parents"]),
        ({"targets": None, "classes": 3, "encoding": SigmoidEncoding()}, ["sigmoid labels"]),
        ({"targets": None, "classes": 1, "encoding": ValuesEncoding()}, ["values labels"]),
        ({"targets": None, "classes": 3, "encoding": DenseEncoding(known_at=2.0)}, ["encoding.known_at"]),
        ({}, ["targets"]),
    ],
)  # fmt: skip
def test_what_format_2_can_express_is_format_2(facts: dict[str, Any], found: list[str]) -> None:
    spec = new_spec(**facts)
    assert (fields_of_3(spec), plan_of(spec).format) == (found, 3 if found else 2)
    if found:
        with pytest.raises(DamagedManifest, match=f"format 2 has no {found[0]}"):
            check_spec(spec, version=2)


LOWRANK = TopkEncoding(k=2, tail="lowrank", nodes=4, rank=2, fine=1)
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"targets": {"Box": TWO["box"]}}, "name"),
    ({"targets": {"a" * 33: TWO["box"]}}, "name"),
    ({"targets": {"a.b": TWO["box"]}}, "name"),
    ({"targets": {"a\n": TWO["box"]}}, "name"),
    ({"targets": {"": TWO["box"], "b": TWO["box"]}}, "name"),
    ({"targets": {}}, "a store needs a target"),
    ({"targets": {f"t{n}": TWO["box"] for n in range(33)}}, "targets"),
    ({"targets": {"a": (DenseEncoding(), 1)}}, "target a: dense labels of 1 classes; at least 2"),
    ({"targets": {"a": (ValuesEncoding(reduce="geometric"), 4)}}, "values labels cannot be reduced"),
    ({"targets": {"a": (ValuesEncoding(known_at=2.0), 4)}}, "target a: values have no temperature"),
    ({"targets": {"a": (ValuesEncoding(dtype="float64"), 4)}}, "dtype"),  # type: ignore[arg-type]
    (
        {"targets": dict.fromkeys("ab", (LOWRANK, 90)), "basis": np.zeros((3, 90), np.float16)},
        "2 targets have tails with a basis",
    ),
    ({"positions": 0}, "Expected `int` >= 1"),
    ({"positions": (1 << 20) + 1}, "positions"),
    ({"positions": 1 << 20, "targets": {"a": (ValuesEncoding(), 1 << 20)}}, "a chunk of .* exceeds"),
    ({"positions": 3, "ragged": True}, "ragged rows need layout: arrow"),
    (
        {"positions": 3, "vocabulary": "ab" * 32, "targets": {"box": TWO["box"]}},
        "has no target of distributions over its tokens",
    ),
    ({"positions": 3, "vocabulary": "ab" * 32, "labelled": True}, r"have no hard labels beside them \(box\)"),
    ({"vocabulary": "ab" * 32}, "label_space.vocabulary and sequence go together"),
    ({"labelled": ["boxes"]}, "there is no target boxes; name some of class, box"),
    ({"folds": 1}, "folds"),
    ({"folds": (1 << 16) + 1}, "folds"),
    ({"parents": [Parent(digest="ab", how="merged")]}, "digest"),
    ({"parents": [Parent(digest="0" * 64, how="stolen")]}, "how"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("facts", "words"), IMPOSSIBLE, ids=lambda value: str(value)[:50])
def test_impossible_specifications(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        new_spec(**facts)


SPECS: dict[str, Edit] = {
    "positions: huge": put("positions", "most")(1 << 50),
    "positions: beyond limits": put("positions", "most")((1 << 20) + 1),
    "positions: the most": put("positions", "most")(1 << 20),
    "positions: another": put("positions", "most")(6),
    "positions: null": put("positions")(None),
    "positions: gone": lambda s: s.pop("positions"),
    "positions: of tokens too": lambda s: s.update(sequence={"positions": 5, "ragged": False}),
    "positions: of tokens": lambda s: s.update(
        sequence={"positions": 5, "ragged": False}, positions=s.pop("positions") and None
    ),
    "ragged: in zarr": put("positions", "ragged")(True),
    "targets: none": put("targets")([]),
    "targets: gone": lambda s: s.pop("targets"),
    "targets: very many": lambda s: s.update(targets=s["targets"] * 50),
    "targets: twice": lambda s: s.update(targets=s["targets"] * 2),
    "targets: in another order": lambda s: s["targets"].reverse(),
    "targets: and one more": lambda s: s.update(label_space={"classes": 7, "names": None}, encoding={"kind": "dense"}),
    "name: a path": put("targets", 0, "name")("../../evil"),
    "name: empty": put("targets", 0, "name")(""),
    "name: another": put("targets", 0, "name")("klass"),
    "name: of another": put("targets", 0, "name")("box"),
    "name: a line": put("targets", 0, "name")("class\n"),
    "dtype: float64": put("targets", 1, "encoding", "dtype")("float64"),
    "dtype: object": put("targets", 1, "encoding", "dtype")("O"),
    "dtype: another": put("targets", 1, "encoding", "dtype")("float32"),
    "kind: another": put("targets", 1, "encoding", "kind")("values"),
    "classes: huge": put("targets", 2, "label_space", "classes")(1 << 24),
    "known_at: zero": put("targets", 0, "encoding", "known_at")(0.0),
    "known_at: lower than any that readers give": put("targets", 0, "encoding", "known_at")(2.0**-11),
    "known_at: of values": put("targets", 2, "encoding", "known_at")(1.0),
    "inputs: one alone": put("targets", 0, "encoding", "inputs")("reference"),
    "column: label of none": lambda s: s["columns"].insert(3, s["columns"][1] | {"name": "cat.label"}),
    "column: no label": lambda s: s["columns"].pop(1),
    "column: order": lambda s: s["columns"].insert(1, s["columns"].pop(2)),
    "column: without its name": put("columns", 5, "name")("logits"),
    "columns: very many": lambda s: s.update(columns=s["columns"] * 50),
    "views: two": put("views")(2),
    "folds: none": put("folds")(0),
    "folds: without a column": put("folds")(5),
    "parents: nobody": put("parents")([]),
}


@several
@pytest.mark.parametrize("name", SPECS)
def test_hostile_specifications_of_targets(target_store: Store, name: str) -> None:
    store = target_store
    seal_again(store.path, spec=SPECS[name])
    with pytest.raises(DamagedManifest):
        read_all(store.path)
    with pytest.raises(DamagedManifest):
        verify(store.path)


@several
def test_harmless_fields_are_read(target_store: Store) -> None:
    """They are in the format, and nobody writes them yet."""
    store = target_store
    seal_again(store.path, spec=lambda s: s.update(views=1, parents=[{"digest": "ab" * 32, "how": "merged"}]))
    found = open_store(store.path)
    assert (found.spec.views, found.spec.parents) == (1, (Parent(digest="ab" * 32, how="merged"),))
    read_all(store.path)


@pytest.mark.on_disk("another process")
@several
def test_the_most_positions_that_a_specification_can_claim(target_store: Store) -> None:
    """A million of them, in columns of their sizes: nothing of that size is asked for."""

    def edit(spec: dict[str, Any]) -> None:
        spec["positions"]["most"] = 1 << 20
        for column in spec["columns"]:
            column["shape"] = [
                1 << 20 if axis == "position" else size
                for axis, size in zip(column["axes"], column["shape"], strict=True)
            ]

    seal_again(target_store.path, spec=edit)
    said = in_little_memory(target_store.path, 100, "class.logits")
    assert re.search(r"DamagedShard .*column class.logits decodes to \d+ bytes, not \d+", said)


LOST: dict[str, Edit] = {
    "of another": lambda m: m["targets"].update(cat=m["targets"]["class"]),
    "a target less": lambda m: m["targets"].pop("tag"),
    "gone": lambda m: m.pop("targets"),
    "beside": lambda m: m.update(fidelity=m["targets"]["class"]["fidelity"]),
    "errors of distributions": lambda m: m["targets"].update({"class": m["targets"]["box"]}),
    "distributions of values": lambda m: m["targets"].update(box=m["targets"]["class"]),
    "no temperature": lambda m: m["targets"]["class"]["fidelity"].update(abc=m["targets"]["class"]["fidelity"]["1"]),
}


@several
@pytest.mark.parametrize("name", LOST)
def test_what_storing_lost_stands_in_its_place(target_store: Store, name: str) -> None:
    store = target_store
    from tests.faults.forge import seal_again as seal_part

    if isinstance(store.path, Path):
        seal_part(store.path, "manifest", LOST[name])
        with pytest.raises(DamagedManifest, match=r"does not say what storing cost|is no temperature"):
            open_store(store.path)


@several
def test_what_nobody_measured_is_unknown(target_store: Store) -> None:
    store = target_store
    card = (store.path / "README.md").read_text()
    assert "**box**: what storing lost" in card
    assert store.manifest.fidelity == {}
    assert (store.manifest.lost["box"].fidelity, store.manifest.lost["class"].errors) == ({}, None)


@pytest.mark.parametrize("target_store", ["frames-arrow"], indirect=True)
def test_a_mask_that_is_all_false_is_not_read(target_store: Store) -> None:
    """Though every digest fits: the reader asks, not only the writer."""
    store = target_store
    from tests.faults.damage import write_bytes
    from tests.store.test_hostile import blake3_hex

    payload = store.payload(0)
    ((name, record),) = payload.files.items()
    place = payload.chunks["position_mask"][0]
    write_bytes(store.path / name, place.offset, bytes(place.size))
    whole = (store.path / name).read_bytes()

    def edit(forged: dict[str, Any]) -> None:
        forged["files"][name] = {"size": record.size, "blake3": blake3_hex(whole)}
        forged["chunks"]["position_mask"][0] = [place.offset, place.size, blake3_hex(bytes(place.size))]

    seal_again(store.path, payload=edit)
    with pytest.raises(DamagedShard, match=r"column position_mask .*row 0: none of its positions counts"):
        open_store(store.path).read_chunk("position_mask", 0)


KL = Lost(
    fidelity=(FidelitySums(temperature=1.0, samples=16, kl_sum=0.0, kl_max=0.0, tail_mass_error=0.0, top1_agreed=16),)
)
OFF = Lost(errors=ErrorSums(samples=32, squares=0.0, largest=0.0))


@pytest.mark.parametrize(
    ("encoding", "lost"),
    [(ValuesEncoding(), KL), (ValuesEncoding(), {"box": OFF}), (SigmoidEncoding(), OFF), (DenseEncoding(), OFF)],
    ids=["values", "another name", "sigmoid", "dense"],
)
def test_what_was_lost_of_another_kind_is_no_part_of_a_store(
    tmp_path: AnyPath, encoding: Encoding, lost: Lost | dict[str, Lost]
) -> None:
    """It is refused before the shard is committed, which could not be read again."""
    keys, soft = np.arange(256, dtype=np.uint8).reshape(16, 16), np.zeros((16, 1, 2), np.float32)
    spec = store_spec(encoding, teacher="mine", name="rows", keys=keys, classes=2)
    columns, own = encoding.encode_arrays(soft, weights=None, mask=None, place=str)
    labels = np.full(16, -1) if encoding.target == "softmax" else None
    with StoreWriter(tmp_path / "store", spec) as writer:
        with pytest.raises(UserError, match=rf"are not for its targets and their kinds \({encoding.kind}\); give what"):
            writer.write_columns(0, keys=keys, labels=labels, columns=columns, fidelity=lost)
        assert writer.pending == [0]
        writer.write_columns(0, keys=keys, labels=labels, columns=columns, fidelity=own)
        writer.seal()


@several
def test_a_column_that_only_a_target_has(target_store: Store) -> None:
    for read in (target_store.column, lambda name: target_store.gather(name, [0])):
        with pytest.raises(UserError, match=r"the store has no column 'logits'; its columns are .*tag\.logits"):
            read("logits")
