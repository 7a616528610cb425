"""`diff`: fields, rows, hard labels and distributions of two stores, against a reference in float64 that shares no code."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softlabels import StoreWriter, array_keys, diff, errors, open_store, select, store_spec, write_store
from softlabels.labels.divergence import softmax_apart
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, TopkEncoding, ValuesEncoding
from softlabels.store import Store, apart_target
from softlabels.store.apart import StoreDiff
from softlabels.store.key_index import met
from softlabels_stages.__main__ import main
from tests.labels import topk_reference
from tests.labels.test_topk import tail_shape
from tests.store.places import MemoryPath
from tests.store.samples import make_spec, sample
from tests.store.samples import write_store as write_sample

QUICK = ("zarr", "ragtokens-arrow", "ragseveral-arrow")
MORE = ("topk-zarr", "sigmoid-zarr", "values-arrow", "anchors-zarr")
NAMES = ["ant", "bee", "cat", "dog"]


def only(found: dict[str, StoreDiff]) -> StoreDiff:
    [each] = found.values()
    return each


def stored(store: Store, name: str) -> dict[str, np.ndarray]:
    return {column: store.only(name).column(column) for column in store.only(name).soft_columns}


def outputs(store: Store, name: str, columns: Any, at: tuple[int, ...], temperature: float) -> np.ndarray:
    """Of one position the log-probabilities (C,), of sigmoids the pairs (C, 2) of both outcomes', of values these: the weighted
    arithmetic mean of the members, one number after the other.
    """
    view = store.only(name)
    weights = np.array([member.weight for member in view.spec.teacher.members])
    found = []
    for member in range(view.members):
        place = (*at, member)
        if view.encoding.target == "values":
            found.append(columns["values"][place].astype(float))
        elif view.encoding.target == "sigmoid":
            z = columns["logits"][place].astype(float) / temperature
            found.append([log_sigmoids(v) for v in z.tolist()])
        elif view.encoding.kind == "dense":
            found.append(topk_reference.log_softmax(columns["logits"][place].astype(float) / temperature))
        else:
            shape = tail_shape(columns, view.basis, place, view.classes)  # type: ignore[arg-type]
            ids, tail = (
                columns["top_class"][place].astype(int),
                (columns["tail_odds"][place], columns["tail_curve"][place]),
            )
            found.append(topk_reference.decode_one(ids, columns["top_logit"][place], tail, shape, 1.0, temperature))
    if view.encoding.target == "values":
        return np.array(sum(w * v for w, v in zip(weights, found, strict=True)) / weights.sum())
    with np.errstate(divide="ignore"):
        return np.array(np.log(sum(w * np.exp(v) for w, v in zip(weights / weights.sum(), found, strict=True))))


def log_sigmoids(z: float) -> tuple[float, float]:
    """Of both outcomes."""
    small = -math.log1p(math.exp(-abs(z)))
    return (small, small - abs(z)) if z > 0 else (small - abs(z), small)


def kl(log_p: np.ndarray, log_q: np.ndarray) -> float:
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p.ravel(), log_q.ravel(), strict=True) if a > -math.inf)


@pytest.fixture
def tmp_path() -> MemoryPath:
    """A folder in memory."""
    return MemoryPath()


def pair(
    kind: str, path: MemoryPath, rng: np.random.Generator, *, weights: Any = (2, 1)
) -> tuple[Store, Store, np.ndarray]:
    """A store of 40 rows, and one of other outputs of 36 of them in another order."""
    data, rows = sample(rng, 40, kind), rng.permutation(40)[:36]
    one = write_sample(path / "one", data, make_spec(data, kind, weights=weights))
    other = data.changed(1.25)[rows]
    return one, write_sample(path / "other", other, make_spec(other, kind, weights=weights)), rows


@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE)])
def test_numbers_of_every_kind(kind: str, tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    one, other, rows = pair(kind, tmp_path, rng)
    found = only(diff(one.folder, other.folder, temperatures=[2.0, 1.0], most=5))
    assert (found.rows, found.only, found.equal) == (36, (4, 0), False)
    assert found.only_rows[0] == tuple(np.setdiff1d(np.arange(40), rows).tolist())
    assert not found.left_out
    places = [(row,) for row in range(36)]
    if one.positions is not None:
        places = [*zip(*np.nonzero(other.column("position_mask")), strict=True)]
    for name, each in found.targets.items():
        target = one.only(name).encoding.target
        ours, theirs = stored(one, name), stored(other, name)
        pairs = {
            temperature: [
                (
                    outputs(one, name, ours, (int(rows[at[0]]), *at[1:]), temperature),
                    outputs(other, name, theirs, at, temperature),
                )
                for at in places
            ]
            for temperature in ((2.0, 1.0) if target != "values" else (1.0,))
        }
        assert (each.other_labels, each.labels_of_one, each.counted_by_one) == (0, 0, 0)
        if target == "values":
            gaps = np.array([a - b for a, b in pairs[1.0]])
            assert each.errors is not None
            expected = [np.sqrt((gaps**2).mean()), abs(gaps).max()]
            np.testing.assert_allclose([each.errors.rmse, each.errors.largest], expected, rtol=1e-9)
            np.testing.assert_allclose(
                [line.forward for line in each.classes], np.sqrt((gaps**2).mean(axis=0)), rtol=1e-9
            )
            distances = [float(np.sqrt((gap**2).mean())) for gap in gaps]
        else:
            for line in each.lines:
                both = pairs[line.temperature]
                ways = np.array([(kl(a, b), kl(b, a)) for a, b in both])
                said = [line.forward, line.forward_max, line.backward, line.backward_max]
                expected = [*zip(ways.mean(axis=0), ways.max(axis=0), strict=True)]
                np.testing.assert_allclose(said, np.ravel(expected), rtol=1e-9, atol=1e-12)
                decide = (lambda v: tuple(v[:, 0] > v[:, 1])) if target == "sigmoid" else np.argmax
                assert line.agreement == np.mean([decide(a) == decide(b) for a, b in both])
                assert line.positions == len(places)
            ways = np.array([(kl(a, b), kl(b, a)) for a, b in pairs[2.0]])
            distances = ways.max(axis=1).tolist()
            if target == "softmax":
                tops = [int(np.argmax(a)) for a, _ in pairs[2.0]]
                for line in each.classes:
                    own = [way for way, top in zip(ways, tops, strict=True) if str(top) == line.name]
                    np.testing.assert_allclose(
                        [line.forward, line.backward], np.mean(own, axis=0), rtol=1e-9, atol=1e-12
                    )
                    assert line.positions == len(own)
        best: dict[int, tuple[float, Any]] = {}
        for at, distance in zip(places, distances, strict=True):
            best[at[0]] = max(best.get(at[0], (0.0, at)), (distance, at), key=lambda v: v[0])
        wanted = sorted(best.items(), key=lambda v: -v[1][0])[:5]
        assert [moved.rows[1] for moved in each.moved] == [row for row, _ in wanted]
        for moved, (row, (_, at)) in zip(each.moved, wanted, strict=True):
            assert moved.rows[0] == rows[row]
            assert moved.key == one.column("content_key")[rows[row]].tobytes().hex()
            assert moved.position == (at[1] if one.positions is not None else None)


@pytest.mark.parametrize("kind", ["zarr", "ragseveral-arrow"])
def test_a_store_and_itself(kind: str, tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    data = sample(rng, 40, kind)
    if kind == "zarr":
        data = replace(data, keys=data.keys[np.arange(40) % 30], labels=np.arange(40) % 5)  # keys that stand twice
    one = write_sample(tmp_path / "one", data, make_spec(data, kind), checked=True)
    found = only(diff(one.folder, one.folder))
    assert found.equal
    assert (found.rows, found.only) == (40, (0, 0))


def test_rows_of_one_key_meet_in_their_order() -> None:
    keys = np.repeat(np.arange(5, dtype=np.uint8)[:, None], 16, axis=1)
    pairs, (ours, theirs) = met(keys[[3, 1, 1, 0, 1]], keys[[1, 2, 1, 3, 3]])
    assert pairs.tolist() == [[0, 3], [1, 0], [2, 2]]
    assert (ours.tolist(), theirs.tolist()) == ([3, 4], [1, 4])
    pairs, (ours, theirs) = met(keys[:2], keys[2:])
    assert (pairs.shape, ours.tolist(), theirs.tolist()) == ((0, 2), [0, 1], [0, 1, 2])


def of(path: MemoryPath, logits: np.ndarray, encoding: Encoding | None = None, **given: Any) -> Store:
    """A store of logits (R, M, C) of as many inputs."""
    encoding = encoding or DenseEncoding()
    rows, classes = np.arange(len(logits))[:, None], given.pop("classes", NAMES)
    labels = given.pop("labels", None)
    spec = store_spec(
        encoding, teacher="t", name="rows", keys=array_keys(rows), classes=classes, members=logits.shape[1],
        labelled=[] if labels is None and encoding.target != "softmax" else [""], **given,
    )  # fmt: skip
    with StoreWriter(path, spec) as writer:
        for shard in writer.pending:
            at = slice(*writer.rows_of(shard))
            own = np.full(len(rows[at]), -1) if labels is None and encoding.target == "softmax" else labels
            own = own[at] if labels is not None else own
            if encoding.keeps_all:
                writer.write_logits(shard, keys=array_keys(rows[at]), labels=own, logits=logits[at])
                continue
            columns, lost = encoding.encode(torch.from_numpy(logits[at]), labels=torch.from_numpy(own))
            writer.write_columns(shard, keys=array_keys(rows[at]), labels=own, columns=columns, fidelity=lost)
        writer.seal(checked=True)
    return open_store(path)


@pytest.mark.parametrize(
    "encoding",
    [DenseEncoding(), SigmoidEncoding(), ValuesEncoding(), TopkEncoding(k=2, tail="uniform", nodes=4)],
    ids=lambda encoding: encoding.kind,
)
def test_classes_meet_by_name(encoding: Encoding, tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    z, order = rng.normal(size=(40, 1, 4)), [2, 0, 3, 1]
    labels = np.argmax(z[:, 0], axis=1) if encoding.target == "softmax" else None
    one = of(tmp_path / "one", z, encoding, labels=labels)
    theirs = None if labels is None else np.argsort(order)[labels]
    names = [{"cat": "kitty"}.get(NAMES[n], NAMES[n]) for n in order]
    other = of(tmp_path / "other", z[:, :, order], encoding, classes=names, labels=theirs)
    with pytest.raises(errors.ClassMismatch, match="share 3 of 4 and 4 classes"):
        diff(one.folder, other.folder)
    found = only(diff(one.folder, other.folder, rename={"kitty": "cat"}))
    [each] = found.targets.values()
    assert {leaf.path.partition("[")[0] for leaf in found.specification} == {"label_space.names"}
    assert each.other_labels == 0
    if encoding.target == "values":
        assert each.errors is not None
        assert each.errors.largest == 0
        assert each.equal
        assert not only(diff(one.folder, of(tmp_path / "near", z + 1, encoding).folder, most=0)).targets[""].equal
    else:
        assert [line.agreement for line in each.lines] == [1, 1, 1]
        assert max(line.forward_max or 0 for line in each.lines) < 1e-12
    with pytest.raises(errors.ConfigError, match="none of the later stores has a class 'puppy'"):
        diff(one.folder, other.folder, rename={"puppy": "dog"})


def test_dense_against_topk_and_what_one_holds_for_impossible(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    z = rng.normal(size=(40, 1, 4))
    z[:, 0, 2:] -= 4
    one = of(tmp_path / "one", z)
    other = of(tmp_path / "other", z, TopkEncoding(k=2, tail="renormalised", nodes=0))
    found = only(diff(one.folder, other.folder)).targets[""]
    assert found.lines[0].agreement == 1
    assert found.lines[0].forward is found.lines[0].forward_max is None  # infinite: it has no tail
    top = np.sort(np.exp(topk_reference_rows(z)), axis=1)[:, 2:]
    np.testing.assert_allclose(found.lines[0].backward, -np.log(top.sum(axis=1)).mean(), rtol=1e-3)
    assert found.moved[0].forward is None
    assert json.dumps([line._asdict() for line in found.lines])


def topk_reference_rows(z: np.ndarray) -> np.ndarray:
    return np.stack([topk_reference.log_softmax(row[0]) for row in z])


def test_what_underflows_is_still_possible() -> None:
    one, other = np.array([[0.0, -800.0, -np.inf]]), np.array([[0.0, -np.inf, -np.inf]])
    found = softmax_apart(one, other)
    assert (found.forward[0], found.backward[0]) == (np.inf, 0.0)


def test_labels_that_are_known_at_one_temperature(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    z = rng.normal(size=(20, 1, 4))
    two, three, free = (
        of(tmp_path / str(t), z, DenseEncoding(**({"known_at": t} if t else {}))) for t in (2.0, 3.0, None)
    )
    assert [line.temperature for line in only(diff(two.folder, free.folder)).targets[""].lines] == [2.0]
    with pytest.raises(errors.ConfigError, match="known at temperature 2 only, not at 1"):
        diff(free.folder, two.folder, temperatures=[1.0])
    found = only(diff(two.folder, three.folder))
    assert found.left_out == {"": "they are known at no common temperature"}
    assert not found.equal


def test_hard_labels_and_members(tmp_path: MemoryPath, rng: np.random.Generator) -> None:
    z, labels = rng.normal(size=(40, 2, 4)), np.arange(40) % 4
    one = of(tmp_path / "one", z, labels=labels)
    changed = labels.copy()
    changed[[5, 7]] = (changed[[5, 7]] + 1) % 4
    changed[9] = -1
    other = of(tmp_path / "other", z, labels=changed)
    found = only(diff(one.folder, other.folder, most=1)).targets[""]
    assert (found.other_labels, found.other_label_rows, found.labels_of_one) == (2, ((5, 5),), 1)
    assert not found.moved
    swapped = only(diff(one.folder, of(tmp_path / "swapped", z[:, ::-1], labels=labels).folder))
    assert (swapped.specification, swapped.same_content, swapped.equal) == ((), False, False)
    assert max(line.forward_max or 0 for line in swapped.targets[""].lines) < 1e-12


def test_positions_that_one_alone_counts_and_targets_that_one_alone_has(
    tmp_path: MemoryPath, rng: np.random.Generator
) -> None:
    data = sample(rng, 40, "several-zarr")
    one = write_sample(tmp_path / "one", data, make_spec(data, "several-zarr"))
    select(one.folder, tmp_path / "two", targets=["class", "tag"])
    found = only(diff(one.folder, tmp_path / "two"))
    assert found.left_out == {"box": f"only {one.folder} has it"}
    assert all(each.equal for each in found.targets.values())
    plain = sample(rng, 40, "anchors-zarr")
    assert plain.mask is not None
    fewer = replace(plain, mask=np.where(plain.mask.cumsum(axis=1) == 1, plain.mask, 0).astype(np.uint8))
    fewer = replace(fewer, labels=np.where(fewer.mask == 1, fewer.labels, -1))
    stores = [
        write_sample(tmp_path / str(n), each, make_spec(each, "anchors-zarr")) for n, each in enumerate((plain, fewer))
    ]
    found = only(diff(*(store.folder for store in stores)))
    assert found.targets[""].counted_by_one == int(plain.mask.sum()) - 40
    assert found.targets[""].lines[0].positions == 40


@pytest.mark.slow
def test_three_chunks_in_memory(
    tmp_path: MemoryPath, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of stores of 6 chunks, one of them in another order. Seen to fail where whole columns are read."""
    monkeypatch.setattr(apart_target, "_DECODED", 1 << 18)
    classes = 1 << 12
    data = replace(sample(rng, 384, members=1), labels=np.full(384, -1), classes=classes)
    data = replace(data, logits=rng.normal(size=(384, 1, classes)).astype(np.float32))
    stores = []
    for name, each in (("one", data), ("other", data.changed(1.1)[np.arange(384)[::-1]])):
        stores.append(
            write_sample(tmp_path / name, each, make_spec(each, rows_per_shard=128, rows_per_chunk=64)).folder
        )
    chunk = 2 * 64 * classes * 2  # of both
    tracemalloc.start()
    found = only(diff(*stores, temperatures=[1.0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.rows == 384
    assert peak < 3 * chunk, f"{peak / chunk:.2f} chunks"


def test_command(
    tmp_path_factory: pytest.TempPathFactory, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path_factory.mktemp("stores")
    x, labels = np.arange(40.0, dtype=np.float32)[:, None], np.arange(40) % 4
    z = 5 * np.eye(4)[labels] + rng.normal(size=(40, 4))
    near = z + rng.normal(size=z.shape) / 4
    near[3] = np.roll(near[3], 1)
    other = labels.copy()
    other[8] = 3
    for name, given, kept in (("a", z, labels), ("b", near, other)):
        for split, at in (("train", slice(None)), ("test", slice(20))):
            write_store(root / name / "rows" / split, given[at], inputs=x[at], labels=kept[at], classes=NAMES)
    a, b = str(root / "a" / "rows"), str(root / "b" / "rows")
    assert main(["diff", a, a]) == 0
    assert "train: no differences in 40 rows" in capsys.readouterr().out
    moved = np.where(x == 7, np.float32(-7), x)  # inputs, which stand outside the content digest
    for split, at in (("train", slice(None)), ("test", slice(20))):
        write_store(
            root / "c" / "rows" / split,
            z[at],
            inputs=moved[at],
            keys=array_keys(x[at]),
            labels=labels[at],
            classes=NAMES,
        )
    assert main(["diff", a, str(root / "c" / "rows"), "--splits=train"]) == 4
    assert "1 row (A / B: 7 / 7) with other inputs" in capsys.readouterr().out
    assert main(["diff", a, b, "--temperatures=1,8", "--most=2", "--splits=train"]) == 4
    out = capsys.readouterr().out
    for line in (
        "train: 40 rows in both, 0 only in A, 0 only in B",
        "T = 8",
        "1 row (A / B: 8 / 8) with another hard label",
        "changed most, A / B; at the end a class and its probability, A -> B:",
        "row 3 / 3, key ",
        "dog 0.9",
    ):
        assert line in out, line
    assert main(["diff", a, b, "--json"]) == 4
    said = json.loads(capsys.readouterr().out)
    assert said["train"]["targets"][""]["moved"][0]["classes"] == ["dog", "ant"]
    assert said["test"]["equal"] is False
    for words, what in (
        ([a], "two stores are needed"),
        ([a, str(root / "b" / "rows" / "train")], "is one split, and"),
        ([a, b, "--splits=validation"], "these are wanted: validation"),
        ([a, b, "--temperatures=0"], "temperature must be"),
        ([a, b, "--most=-1"], "most is -1"),
        ([a, "nowhere"], "nowhere does not exist"),
    ):
        assert main(["diff", *words]) == 2
        assert what in capsys.readouterr().err
    damaged = next(Path(b, "train", "logits").glob("c*"))
    damaged.write_bytes(bytes(len(damaged.read_bytes())))
    assert main(["diff", a, b]) == 3
