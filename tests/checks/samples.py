"""What the tests of the checks share: rows, teachers and stores, also such as an earlier version sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.objects import ObjectSpec
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.teacher.ensemble import Ensemble
from softlabels.transfer import TransferRows, array_keys

FEATURES, CLASSES = 6, 5


class Model(nn.Module):
    """z = f(4 W x), with W that every process draws alike."""

    def __init__(self, last: str = "identity", features: int = FEATURES, classes: int = CLASSES) -> None:
        super().__init__()
        weights = np.random.default_rng(1).normal(size=(classes, features)) * 4
        self.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float32))
        self.last = last

    def forward(self, inputs: Tensor) -> Tensor:
        z = inputs @ self.weight.t()
        return z if self.last == "identity" else getattr(torch, self.last)(z, -1)


def softmax(z: np.ndarray) -> np.ndarray:
    """In float64."""
    p = np.exp(z.astype(np.float64) - z.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def exact(inputs: np.ndarray) -> np.ndarray:
    """The logits (R, C) of `Model`, in float64."""
    return np.asarray(inputs.astype(np.float64) @ Model().weight.detach().double().numpy().T)


def rows_of(inputs: np.ndarray, *, keys: np.ndarray | None = None, labels: np.ndarray | None = None) -> TransferRows:
    """A transfer set; by default without hard labels."""
    labels = np.full(len(inputs), -1) if labels is None else labels
    keys = array_keys(inputs) if keys is None else keys
    return TransferRows(
        "rows", "train", None, "here", inputs, keys, labels, None, ObjectSpec("softlabels.transfer.stack")
    )


def some_rows(rng: np.random.Generator, count: int = 96) -> np.ndarray:
    """Inputs (R, 6) float32."""
    return rng.normal(size=(count, FEATURES)).astype(np.float32)


def live(model: nn.Module, batch_size: int = 16) -> Ensemble:
    """A teacher of one model."""
    spec = TeacherSpec(name="live", precision="float32", members=(MemberSpec(model="Model"),))
    return Ensemble([model], spec, torch.device("cpu"), batch_size=batch_size)


def writer_of(path: Path, keys: np.ndarray, classes: int = CLASSES, *, members: int = 1, **options: Any) -> StoreWriter:
    """A writer of dense labels, 32 rows a shard."""
    spec = TeacherSpec(name="it", precision="float32", members=(MemberSpec(model="m"),) * members)
    options = {"teacher": spec, "rows_per_shard": 32, "rows_per_chunk": 16} | options
    return StoreWriter(path, store_spec(name="rows", keys=keys, classes=classes, **options))


def fill(
    writer: StoreWriter, logits: np.ndarray, keys: np.ndarray, labels: np.ndarray | None = None, **options: Any
) -> None:
    """Write pending shards of logits (R, [M,] C)."""
    labels = np.full(len(keys), -1) if labels is None else labels
    logits = logits if logits.ndim == 3 else logits[:, None]
    for shard in writer.pending:
        at = slice(*writer.rows_of(shard))
        inputs = {"inputs": options["inputs"][at]} if "inputs" in options else {}
        others = {name: value for name, value in options.items() if name != "inputs"}
        writer.write_logits(shard, keys=keys[at], labels=labels[at], logits=logits[at], **inputs, **others)


def earlier(
    path: Path, logits: np.ndarray, keys: np.ndarray, labels: np.ndarray | None = None, **options: Any
) -> Store:
    """A sealed store such as an earlier version made, which asked nothing."""
    inputs = {"inputs": options["embed"]} if "embed" in options else {}
    classes, members = logits.shape[-1], 1 if logits.ndim == 2 else logits.shape[1]
    with writer_of(path, keys, classes, members=members, **options) as writer:
        fill(writer, logits, keys, labels, are_logits=True, **inputs)
        writer.seal(checked=True)
    return open_store(path)
