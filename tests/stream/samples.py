"""Stores and rows in which every value says which row it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from msgspec.structs import replace

from softlabels.labels.encoding import DenseEncoding
from softlabels.objects import ObjectSpec
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.columns import input_column
from softlabels.store.digest import keys_digest
from softlabels.store.rules import spec_columns
from softlabels.store.spec import Cut, LabelSpace, MemberSpec, Preprocessing, Spec, TeacherSpec, TransferSpec
from softlabels.transfer import TransferRows

CLASSES, MEMBERS = 5, 2
CHUNK = 16


def keys_of(numbers: np.ndarray) -> np.ndarray:
    """(R, 16) distinct keys for distinct numbers, in another order than the numbers."""
    words = np.zeros((len(numbers), 2), np.uint64)
    words[:, 0] = np.asarray(numbers).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return words.view(np.uint8).reshape(-1, 16)


def labels_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stored logits (R, M, C) float16 and shift (R, M) float32 of some store rows; both carry the row and member exactly."""
    logits = np.zeros((len(rows), MEMBERS, CLASSES), np.float16)
    logits[:, :, 1] = -(rows % 1000)[:, None]
    logits[:, :, 2] = -np.arange(MEMBERS)
    return logits, (rows[:, None] * MEMBERS + np.arange(MEMBERS)).astype(np.float32)


def inputs_of(numbers: np.ndarray) -> np.ndarray:
    """(R, 2, 3) float32."""
    return np.repeat(np.asarray(numbers, np.float32), 6).reshape(-1, 2, 3)


def rows_of(numbers: np.ndarray, *, labels: np.ndarray | None = None) -> TransferRows:
    """Transfer rows with the given identities."""
    labels = numbers % CLASSES if labels is None else labels
    return TransferRows(
        name="digits",
        split="train",
        revision=None,
        source="",
        inputs=inputs_of(numbers),
        keys=keys_of(numbers),
        labels=labels,
        class_names=None,
        prepare=ObjectSpec("none"),
    )


def write_store(
    path: Path,
    numbers: np.ndarray,
    *,
    embed: bool = False,
    layout: str = "zarr",
    chunks_a_shard: int = 4,
    reduce: Literal["none", "geometric"] = "none",
    labels: np.ndarray | None = None,
    top: np.ndarray | None = None,
) -> Store:
    """A store over rows with the given identities, in chunks of `CHUNK` rows; perhaps with other labels, or a teacher whose
    top classes are `top`.
    """
    keys, inputs = keys_of(numbers), inputs_of(numbers)
    members = tuple(MemberSpec(model=f"m{i}", weight=weight) for i, weight in enumerate((3.0, 1.0)))
    spec = Spec(
        teacher=TeacherSpec(name="teacher", precision="float32", members=members),
        transfer_set=TransferSpec(name="digits", split="train", rows=len(keys), content_keys=keys_digest(keys)),
        one_label_space=LabelSpace(classes=CLASSES),
        preprocessing=Preprocessing(function="none"),
        one_encoding=DenseEncoding(inputs="embed" if embed else "reference", reduce=reduce),
        layout=layout,
        cut=Cut(rows_per_shard=CHUNK * chunks_a_shard, rows_per_chunk=CHUNK),
        columns=(),
    )
    spec = replace(spec, columns=spec_columns(spec, input_column(inputs) if embed else None))
    with StoreWriter(path, spec) as writer:
        for shard in writer.pending:
            rows = slice(*writer.rows_of(shard))
            logits, shift = labels_of(np.arange(len(keys))[rows])
            if top is not None:
                logits[np.arange(len(logits)), :, top[rows]] = 1
            writer.write_logits(
                shard,
                keys=keys[rows],
                labels=(np.asarray(numbers) % CLASSES if labels is None else labels)[rows],
                logits=logits + shift[:, :, None],
                inputs=inputs[rows] if embed else None,
            )
        writer.seal(checked=True)  # rows of one key may contradict each other
    return open_store(path)
