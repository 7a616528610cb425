"""Small stores with random content, and what should be found in them. Imports no torch: writers in other processes use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import DamagedStore
from pipeline.labels.dense import encode_dense
from pipeline.store import Store, StoreWriter, open_store
from pipeline.store.dense_spec import dense_spec
from pipeline.store.spec import MemberSpec, Spec, TeacherSpec
from pipeline.store.verify import verify

KINDS = ("zarr", "zstd", "arrow")


@dataclass(frozen=True)
class Sample:
    """Rows as a teacher stage has them: keys (R, 16), labels (R,), logits (R, M, C) float32, inputs (R, 3, 2) uint8."""

    keys: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    inputs: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> Sample:
        return Sample(self.keys[rows], self.labels[rows], self.logits[rows], self.inputs[rows])

    def stored(self) -> dict[str, np.ndarray]:
        """The columns that a store of these rows holds."""
        encoded = encode_dense(self.logits)
        return {
            "content_key": self.keys, "label": self.labels, "logits": encoded.logits, "shift": encoded.shift,
            "input": self.inputs,
        }  # fmt: skip


def sample(rng: np.random.Generator, rows: int, *, members: int = 2, classes: int = 7) -> Sample:
    """Distinct keys, some rows without a label, some impossible classes."""
    logits = (rng.normal(size=(rows, members, classes)) * 5).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    logits[..., 0] = rng.normal(size=(rows, members))
    return Sample(
        keys=rng.integers(0, 256, (rows, 16), np.uint8),
        labels=rng.integers(-1, classes, rows),
        logits=logits,
        inputs=rng.integers(0, 256, (rows, 3, 2), np.uint8),
    )


def make_spec(
    data: Sample,
    kind: str = "zarr",
    *,
    rows_per_shard: int = 48,
    rows_per_chunk: int = 16,
    embed: bool = True,
    names: bool = False,
    split: str = "train",
    reduce: str = "none",
    weights: Iterable[float] | None = None,
) -> Spec:
    """A specification for these rows; `kind` is one of `KINDS`."""
    _, members, classes = data.logits.shape
    shares = (1.0,) * members if weights is None else tuple(weights)
    return dense_spec(
        teacher=TeacherSpec(
            name="sample", precision="float32", members=tuple(MemberSpec(model="m", weight=share) for share in shares)
        ),
        name="rows",
        keys=data.keys,
        classes=[f"class {i}" for i in range(classes)] if names else classes,
        split=split,
        layout="arrow" if kind == "arrow" else "zarr",
        compression="zstd" if kind == "zstd" else "none",
        reduce=reduce,
        embed=data.inputs if embed else None,
        rows_per_shard=rows_per_shard,
        rows_per_chunk=rows_per_chunk,
    )


def fill(writer: StoreWriter, data: Sample, shards: Iterable[int] | None = None) -> None:
    """Write these shards (default: all that are pending)."""
    for shard in writer.pending if shards is None else shards:
        part = data[slice(*writer.rows_of(shard))]
        writer.write_logits(
            shard,
            keys=part.keys,
            labels=part.labels,
            logits=part.logits,
            inputs=part.inputs if writer.spec.encoding.inputs == "embed" else None,
        )


def write_store(path: Path, data: Sample, spec: Spec) -> Store:
    """A sealed store of these rows."""
    with StoreWriter(path, spec) as writer:
        fill(writer, data)
        writer.seal()
    return open_store(path)


def assert_holds(store: Store, data: Sample) -> None:
    """Every column that the store has is what these rows encode to, bit for bit."""
    expected = data.stored()
    for name in store.columns:
        found = store.column(name)
        assert found.dtype == expected[name].dtype, name
        assert found.shape == expected[name].shape, name
        assert found.tobytes() == expected[name].tobytes(), name


def require_sound(path: Path) -> None:
    """Raise `DamagedStore` listing every problem that `verify` finds."""
    if problems := verify(path):
        listing = "\n".join(map(str, problems))
        raise DamagedStore(f"{path} is damaged in {len(problems)} places:\n{listing}", remedy="see each line's remedy")
