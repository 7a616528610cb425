"""Small stores of every kind of target and of rows of positions, students for them, and the training of one in plain torch.

Rows are noisy points whose class, flags and vector follow from where they lie; two members of a teacher know most of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, ValuesEncoding
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.stream import Loader

ROWS = {"train": 96, "test": 48}
FEATURES, POSITIONS, MEMBERS = 5, 12, 2
SIZES = {"softmax": 4, "sigmoid": 3, "values": 2}
ENCODINGS: dict[str, Encoding] = {
    "softmax": DenseEncoding(), "sigmoid": SigmoidEncoding(dtype="float32"), "values": ValuesEncoding(),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What a store holds.

    Attributes:
        kinds: of its targets, by name.
        positions: "" for one distribution a row; "fixed" or "ragged".
        sizes: classes or values, by kind.
    """

    kinds: Mapping[str, str]
    positions: str = ""
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)
    encodings: Mapping[str, Encoding] = field(default_factory=lambda: ENCODINGS)

    def size(self, name: str) -> int:
        return self.sizes[self.kinds[name]]


@dataclass(frozen=True)
class Rows:
    """The rows of one split: inputs (R, [P,] F), hard labels by target, the teacher's outputs (R, [P,] M, ...), mask (R, P)."""

    inputs: np.ndarray
    keys: np.ndarray
    labels: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    mask: np.ndarray | None


def made(case: Case, split: str) -> Rows:
    """The rows of a split; about a fifth of the labels are missing."""
    rng = np.random.default_rng([len(split), len(case.kinds), len(case.positions)])
    count = ROWS[split]
    lead = (count, POSITIONS) if case.positions else (count,)
    inputs = rng.normal(size=(*lead, FEATURES)).astype(np.float32)
    mask = None
    if case.positions == "fixed":
        mask = rng.random(lead) < 0.7
        mask[:, 3] = True
    elif case.positions == "ragged":
        mask = np.arange(POSITIONS) < rng.integers(1, POSITIONS + 1, (count, 1))
    ways = np.random.default_rng(7)
    labels, outputs = {}, {}
    for name, kind in case.kinds.items():
        truth = np.tanh(inputs @ ways.normal(size=(FEATURES, case.size(name)))) * 3
        noise = rng.normal(0, 0.6, (MEMBERS, *truth.shape))
        outputs[name] = np.moveaxis(truth + noise, 0, -2).astype(np.float32)
        off = (rng.random(lead) < 0.2) | (False if mask is None else ~mask)
        labels[name] = _labels(kind, truth + rng.normal(0, 0.4, truth.shape), off)
    keys = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    return Rows(inputs, keys, labels, outputs, None if mask is None else mask.astype(np.uint8))


def _labels(kind: str, truth: np.ndarray, off: np.ndarray) -> np.ndarray:
    if kind == "softmax":
        return np.where(off, -1, truth.argmax(axis=-1))
    found = truth.astype(np.float32) if kind == "values" else (truth > 0).astype(np.int8)
    found[off] = np.nan if kind == "values" else -1
    if kind == "sigmoid":
        found[..., 0][::3] = -1  # some flags of a row are unknown
    return found


def write(root: Path, case: Case, rows: Mapping[str, Rows] | None = None, **changes: Any) -> Path:
    """A store with the splits train and test, which embeds its inputs."""
    for split in ROWS:
        data = made(case, split) if rows is None else rows[split]
        targets = {name: (case.encodings[kind], case.size(name)) for name, kind in case.kinds.items()}
        named: dict[str, Any] = {"targets": targets}
        if {*targets} == {""}:
            named = {"encoding": targets[""][0], "classes": targets[""][1]}
        spec = store_spec(
            **named, teacher="two", name="points", keys=data.keys, members=MEMBERS, split=split, embed=data.inputs,
            labelled=True, layout="arrow" if case.positions == "ragged" else "zarr",
            positions=POSITIONS if case.positions else None, ragged=case.positions == "ragged",
            rows_per_shard=32, rows_per_chunk=16, **changes,
        )  # fmt: skip
        with StoreWriter(root / split, spec) as writer:
            for shard in writer.pending:
                part = slice(*writer.rows_of(shard))
                labels = {name: each[part] for name, each in data.labels.items()}
                outputs = {name: each[part] for name, each in data.outputs.items()}
                writer.write_logits(
                    shard, keys=data.keys[part], inputs=data.inputs[part],
                    labels=labels.get("", labels), logits=outputs.get("", outputs),
                    mask=None if data.mask is None else data.mask[part],
                )  # fmt: skip
            writer.seal(checked=True)
    return root


class Net(nn.Module):
    """A student of one target: (B, [P,] F) to (B, [P,] outputs)."""

    def __init__(self, outputs: int, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, width), nn.Tanh(), nn.Dropout(0.0), nn.Linear(width, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Heads(nn.Module):
    """A student of several: a mapping of outputs by name."""

    def __init__(self, outputs: dict[str, int], width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, width), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in outputs.items()})

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        hidden = self.body(inputs)
        return {name: head(hidden) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Taught:
    """How plain torch teaches a target."""

    loss: str
    hard: float = 0.5
    soft: float = 0.5
    temperature: float = 4.0
    weight: float = 1.0


def plain_training(
    model: nn.Module, store: Store, loader: Loader, taught: Mapping[str, Taught], *, epochs: int, lr: float
) -> None:
    """The same training as ours, of the numbers that zarr or arrow hold, with torch's own losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    labels = {name: torch.from_numpy(np.array(store.only(name).column("label"))) for name in taught}
    mask = None if store.positions is None else torch.from_numpy(np.array(store.column("position_mask"))) > 0
    inputs = torch.from_numpy(np.array(store.column("input")))
    teacher = {name: _outputs(store.only(name)) for name in taught}
    for epoch in range(epochs):
        for rows in [torch.from_numpy(batch.rows) for batch in loader.epoch(epoch)]:
            found = model(inputs[rows])
            counted = torch.ones(len(rows), dtype=torch.bool) if mask is None else mask[rows]
            loss = torch.zeros(())
            for name, how in taught.items():
                z = (found[name] if isinstance(found, dict) else found)[counted]
                loss = loss + how.weight * plain_loss(z, teacher[name][rows][counted], labels[name][rows][counted], how)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _outputs(store: Store) -> Tensor:
    """(R, [P,] M, C) float32."""
    columns = {name: torch.from_numpy(np.array(store.column(name))).float() for name in store.soft_columns}
    if "values" in columns:
        return columns["values"]
    return columns["logits"] + (columns["shift"][..., None] if "shift" in columns else 0)


def plain_loss(z: Tensor, v: Tensor, labels: Tensor, how: Taught) -> Tensor:
    """Of N positions: hard labels averaged over those that have one, the teacher's outputs (N, M, C) over all."""
    t = how.temperature
    if how.loss == "forward_kl":
        p = (v / t).softmax(-1).mean(1)
        soft = functional.kl_div((z / t).log_softmax(-1), p, reduction="batchmean") * t**2
        known = labels >= 0
        hard = functional.cross_entropy(z, labels, ignore_index=-1, reduction="sum")
    elif how.loss == "bce":
        p = (v / t).sigmoid().mean(1)
        soft = functional.binary_cross_entropy_with_logits(z / t, p, reduction="sum") / len(z) * t**2
        flags = labels >= 0
        known = flags.any(-1)
        hard = functional.binary_cross_entropy_with_logits(z[flags], labels[flags].float(), reduction="sum")
    else:
        measure = {"mse": functional.mse_loss, "huber": functional.huber_loss}.get(how.loss)
        known = ~labels.isnan().any(-1)

        def distance(s: Tensor, wanted: Tensor) -> Tensor:
            if measure is None:
                return (1 - functional.cosine_similarity(s, wanted)).sum()
            return measure(s, wanted, reduction="none").mean(-1).sum()

        soft, hard = distance(z, v.mean(1)) / len(z), distance(z[known], labels[known])
    return how.soft * soft + how.hard * hard / max(int(known.sum()), 1)


def rows_of(store: Path, split: str = "train") -> Store:
    return open_store(store, split=split)


def weights_of(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


def named(names: Sequence[str]) -> list[str]:
    return [name for name in names if name]
