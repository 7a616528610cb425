"""Labelling rows of positions, sigmoid and values targets, and several targets: through, stopped, asked again, converted, read
without us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from softlabels import Ensemble, LabelsConfig, encode, errors, label, open_store
from softlabels.jobs.encode import try_encoding
from softlabels.jobs.watch import Watch
from softlabels.labels.settings import EncodingSettings
from softlabels.objects import ObjectSpec
from softlabels.store import Store
from softlabels.store.convert import convert
from softlabels.store.verify import verify
from softlabels.teacher.recheck import compare_with_teacher
from softlabels.transfer import TransferRows, array_keys

R, P, F, C = 40, 12, 6, 5
Outputs = Tensor | dict[str, Tensor]


class Heads(nn.Module):
    """A linear head for each name, or one that gives a tensor; of rows (B, [P,] F)."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name or "only": nn.Linear(F, size) for name, size in sizes.items()})
        self.named = "" not in sizes

    def forward(self, inputs: Tensor) -> Outputs:
        found = {name: 4 * head(inputs) for name, head in self.heads.items()}
        return found | {"aux": inputs} if self.named else found["only"]


@dataclass(frozen=True)
class Case:
    """How many outputs each target has, how the store is written, and what rows have."""

    sizes: Mapping[str, int]
    labels: Mapping[str, Any]
    members: int = 1
    positions: int | None = None
    ragged: bool = False

    @property
    def kinds(self) -> dict[str, str]:
        targets = self.labels.get("targets") or {"": self.labels}
        return {name: entry.get("kind", "softmax") for name, entry in targets.items()}


BOTH = {"class": {"kind": "softmax"}, "box": {"kind": "values", "dtype": "float16"}}
MEANS = {"class": {"reduce": "geometric"}, "box": {"kind": "values", "reduce": "arithmetic"}}
CASES = {
    "anchors-zarr": Case({"": C}, {}, members=3, positions=P),
    "anchors-arrow": Case({"": C}, {"layout": "arrow"}, members=3, positions=P),
    "anchors-mean": Case({"": C}, {"reduce": "geometric"}, members=3, positions=P),
    "anchors-topk": Case({"": C}, {"encoding": "topk", "k": 3, "rank": 4}, members=2, positions=P),
    "frames": Case({"": C}, {"layout": "arrow", "inputs": "embed"}, members=2, positions=P, ragged=True),
    "frames-zarr": Case({"": C}, {}, positions=P, ragged=True),
    "tags": Case({"": C}, {"kind": "sigmoid"}, members=2),
    "tags-mean": Case({"": 1}, {"kind": "sigmoid", "dtype": "float32", "reduce": "geometric"}, members=2),
    "one value": Case({"": 1}, {"kind": "values"}, members=2),
    "values": Case(
        {"": 3}, {"kind": "values", "dtype": "float16", "layout": "arrow", "reduce": "arithmetic"}, members=2
    ),
    "detector": Case({"class": C, "box": 4}, {"targets": BOTH, "inputs": "embed"}, members=2, positions=P),
    "ragged detector": Case({"class": C, "box": 4}, {"targets": MEANS, "layout": "arrow"}, 2, positions=P, ragged=True),
    "embedder": Case({"tag": C, "vector": 7}, {"targets": {"tag": {"kind": "sigmoid"}, "vector": {"kind": "values"}}}),
}


def rows_of(case: Case, rng: np.random.Generator) -> TransferRows:
    """Rows with hard labels of every kind that they have targets of, some without."""
    lead = (R,) if case.positions is None else (R, case.positions)
    inputs = rng.normal(size=(*lead, F)).astype(np.float32)
    counts = rng.integers(1, P + 1, R) if case.ragged else np.full(R, P)
    mask = np.arange(P) < counts[:, None]
    hard: dict[str, np.ndarray] = {}
    for name, kind in case.kinds.items():
        made = {
            "softmax": lambda name: rng.integers(-1, case.sizes[name], lead),
            "sigmoid": lambda name: rng.integers(-1, 2, (*lead, case.sizes[name])).astype(np.int8),
            "values": lambda name: rng.normal(size=(*lead, case.sizes[name])).astype(np.float32),
        }[kind](name)
        if case.positions is not None:
            inputs[~mask] = 0
            made[~mask] = np.nan if kind == "values" else -1
        hard[name] = made
    rest = {"positions": case.positions, "ragged": case.ragged, "mask": mask.astype(np.uint8)} if case.positions else {}
    return TransferRows(
        "random", "train", None, "here", inputs, array_keys(inputs), hard.get("", np.full(R, -1)), None,
        ObjectSpec("softlabels.transfer.stack"), named={name: each for name, each in hard.items() if name}, **rest,
    )  # fmt: skip


def teacher(case: Case) -> Ensemble:
    torch.manual_seed(7)
    models = [Heads(case.sizes) for _ in range(case.members)]
    return Ensemble.of(models, name="it", device="cpu", batch_size=8)


def settings(case: Case) -> LabelsConfig:
    return LabelsConfig(rows_per_shard=32, rows_per_chunk=16, **case.labels)


def stopping(after: int) -> Callable[[], bool]:
    asked = count()
    return lambda: next(asked) >= after


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def exact(case: Case, rows: TransferRows) -> dict[str, np.ndarray]:
    """(R, [P,] M, C) float64 of each target, by hand."""
    found = {}
    for name in case.sizes:
        parts = []
        for model in teacher(case).models:
            head = model.heads[name or "only"]
            parts.append(
                4 * (rows.inputs.astype(np.float64) @ head.weight.double().numpy().T + head.bias.double().numpy())
            )
        found[name] = np.stack(parts, axis=-2)
    return found


def softmax(z: np.ndarray) -> np.ndarray:
    exp = np.exp(z - z.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def expected(kind: str, reduce: str, z: np.ndarray) -> np.ndarray:
    """What a store says of outputs (R, [P,] M, C), at T = 2."""
    if kind == "values":
        return z.mean(axis=-2)
    turn = softmax if kind == "softmax" else lambda z: 1 / (1 + np.exp(-z))
    return turn(z.mean(axis=-2) / 2) if reduce == "geometric" else turn(z / 2).mean(axis=-2)


def test_from_the_teacher_to_a_plain_reader(case: Case, tmp_path: Path, rng: np.random.Generator) -> None:
    """Labelled, stopped and gone on with, verified, held against the live teacher, converted, and read without us."""
    rows, said = rows_of(case, rng), list[str]()
    whole = label(rows, teacher(case), settings(case), tmp_path / "whole", watch=Watch(said.append))["train"]
    assert any("the teacher also gives aux" in line for line in said) == ("" not in case.sizes)
    with pytest.raises(errors.Interrupted, match="stopped with 1 of 2 shards left in"):
        label(rows, teacher(case), settings(case), tmp_path / "store", watch=Watch(should_stop=stopping(4)))
    assert label(rows, teacher(case), settings(case), tmp_path / "store")["train"].digest == whole.digest
    store = open_store(tmp_path / "store/train")
    assert verify(store.folder) == []
    counts = np.ones(R, bool)[:, None] if rows.mask is None else rows.mask == 1
    assert (store.positions, store.spec.ragged) == (case.positions, case.ragged and store.layout == "arrow")
    if rows.mask is not None:
        np.testing.assert_array_equal(store.column("position_mask"), rows.mask)
    for name, z in exact(case, rows).items():
        one, kind = store.only(name), case.kinds[name]
        mean = "geometric" if one.reduce == "geometric" else "arithmetic"
        own = one.values(range(R)) if kind == "values" else one.probabilities(range(R), temperature=2.0, mean=mean)
        apart = np.abs(own - expected(kind, one.reduce, z)).reshape(R, -1, own.shape[-1])
        assert apart[counts].max() < (0.05 if "topk" in str(case.labels) else 0.01)
        np.testing.assert_array_equal(one.column("label"), rows.hard[name])
    if "embed" in str(case.labels):
        np.testing.assert_array_equal(store.column("input"), rows.inputs)
    _hold_against_the_live_teacher(case, store, rows, rng.permutation(R))
    convert(store.folder, tmp_path / "copy", layout="zarr" if store.layout == "arrow" and not case.ragged else "arrow")
    copy = open_store(tmp_path / "copy")
    assert copy.content_digest == whole.content_digest or case.ragged
    for name in store.soft_columns:
        np.testing.assert_array_equal(copy.column(name), store.column(name))
    first = next(iter(store.soft_columns))
    if store.layout == "zarr":
        plain = zarr.open_group(str(tmp_path / "store/train"), mode="r")[first][:]
        np.testing.assert_array_equal(plain, store.column(first))
    else:
        read = datasets.load_from_disk(str(tmp_path / "store/train")).with_format("numpy")[7][first]
        np.testing.assert_array_equal(read, store.gather(first, [7])[0][: len(read)])


def _hold_against_the_live_teacher(case: Case, store: Store, rows: TransferRows, order: np.ndarray) -> None:
    """It is found again wherever its rows stand, and a changed one is not."""
    shuffled = replace(
        rows, inputs=rows.inputs[order], keys=rows.keys[order], mask=None if rows.mask is None else rows.mask[order],
        labels=rows.labels[order], named={name: each[order] for name, each in rows.named.items()},
    )  # fmt: skip
    found = compare_with_teacher(store, shuffled, teacher(case), sample=R)
    assert {name: (each.sound, each.rows) for name, each in found.items()} == dict.fromkeys(case.sizes, (True, R))
    for name in case.sizes:
        changed = teacher(case)
        with torch.no_grad():
            changed.models[-1].heads[name or "only"].weight[0] *= 1.05  # without a word to the digest of its weights
        found = compare_with_teacher(store, rows, changed, sample=R)
        assert {other: each.sound for other, each in found.items()} == {other: other != name for other in case.sizes}


@pytest.mark.parametrize("name", ["anchors-mean", "frames", "detector", "ragged detector"])
def test_dense_labels_of_positions_and_of_one_target_become_topk(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    case, sparse = CASES[name], EncodingSettings("topk", k=3, rank=4)
    rows, own = rows_of(case, rng), "class" if "class" in case.sizes else ""
    label(rows, teacher(case), settings(case), tmp_path)
    dense, said = open_store(tmp_path / "train"), list[str]()
    whole = encode(dense.folder, tmp_path / "whole", sparse, watch=Watch(said.append))["train"]
    with pytest.raises(errors.Interrupted, match="shards left in"):
        encode(dense.folder, tmp_path / "again", sparse, watch=Watch(should_stop=stopping(1)))
    assert encode(dense.folder, tmp_path / "again", sparse, target=own or None)["train"].digest == whole.digest
    assert not any("no tokens" in line for line in said)
    made = open_store(tmp_path / "again")
    assert verify(made.folder) == []
    assert (made.positions, made.spec.ragged, made.targets) == (dense.positions, dense.spec.ragged, dense.targets)
    counts = dense.column("position_mask") == 1
    mean = "geometric" if made.only(own).reduce == "geometric" else "arithmetic"
    one, two = (store.only(own).probabilities(range(R), temperature=2.0, mean=mean) for store in (dense, made))
    assert np.abs(one - two)[counts].max() < 0.05
    for column in (*made.columns.keys() & dense.columns.keys(),):
        np.testing.assert_array_equal(made.column(column), dense.column(column))
    logit = made.only(own).column("label_logit")
    np.testing.assert_array_equal(np.isnan(logit).all(-1), rows.hard[own] < 0)
    assert {name: lost for name, lost in made.manifest.lost.items() if name != own} == {
        name: lost for name, lost in dense.manifest.lost.items() if name != own
    }
    assert f"{'target class: ' * bool(own)}40 rows, " in said[-1]
    found = compare_with_teacher(made, rows, teacher(case), sample=R)
    assert all(each.sound for each in found.values()), [each.line for each in found.values()]
    tried = try_encoding(dense.folder, sparse)
    assert "bytes a position" in tried
    assert tried.split(" bytes a position")[0].split("-> ")[1] in said[-1] or case.ragged


def test_what_cannot_become_topk(tmp_path: Path, rng: np.random.Generator) -> None:
    sparse = EncodingSettings("topk", k=2, rank=2)
    case = CASES["embedder"]
    label(rows_of(case, rng), teacher(case), settings(case), tmp_path / "a")
    with pytest.raises(errors.ConfigError, match=r"target tag: .* holds sigmoid labels, and topk is of distributions"):
        encode(tmp_path / "a", tmp_path / "b", sparse)
    with pytest.raises(errors.SeveralTargets, match="has no target 'box'; ask for one of tag, vector"):
        encode(tmp_path / "a", tmp_path / "b", sparse, target="box")
    both = Case({"a": C, "b": C}, {"targets": {"a": {}, "b": {}}})
    label(rows_of(both, rng), teacher(both), settings(both), tmp_path / "c")
    with pytest.raises(errors.ConfigError, match=r"holds 2 dense targets \(a, b\); say --target=a"):
        encode(tmp_path / "c", tmp_path / "b", sparse)
    encode(tmp_path / "c", tmp_path / "d", sparse, target="b")
    store = open_store(tmp_path / "d/train")
    assert [target.encoding.kind for target in store.spec.targets] == ["dense", "topk"]
    with pytest.raises(
        errors.ConfigError, match=r"target b: .* holds topk labels already, and what they left out is gone"
    ):
        encode(tmp_path / "d", tmp_path / "e", sparse, target="b")
