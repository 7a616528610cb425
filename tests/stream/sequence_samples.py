"""Stores of rows of tokens, dense or sparse, and the rows that they label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from softlabels.objects import ObjectSpec
from softlabels.store import Store
from softlabels.transfer import TransferRows
from softlabels.transfer.sequences import SequenceInfo
from tests.store.samples import POSITIONS, Sample, make_spec, sample, write_store

KINDS = ("tokens-zarr", "sequence-zstd", "sequence-arrow", "ragged-arrow", "ragtokens-arrow")
CLASSES, ROWS = 7, 70
VOCABULARY = "ab" * 32


def token_sample(rng: np.random.Generator, kind: str, rows: int = ROWS) -> Sample:
    """Rows with inputs (R, 2, L): tokens, and documents that say the sample's mask."""
    data = sample(rng, rows, kind, classes=CLASSES)
    assert data.mask is not None
    assert data.document is not None
    last, counts = data.document[:, -1].astype(int), data.mask[:, -1] > 0
    after = np.where(counts, last, np.where((last > 0) & (rng.random(rows) < 0.5), last + 1, 0))
    document = np.concatenate([data.document, after[:, None]], axis=1).astype(np.int32)
    tokens = np.where(document > 0, rng.integers(0, CLASSES, document.shape), 0)
    return replace(data, inputs=np.stack([tokens, document], axis=1).astype(np.int32))


def token_rows(data: Sample, **changes: object) -> TransferRows:
    given: dict[str, object] = {
        "name": "texts", "split": "train", "revision": None, "source": "", "inputs": data.inputs, "keys": data.keys,
        "labels": data.labels, "class_names": None, "prepare": ObjectSpec("none"),
        "sequence": SequenceInfo(POSITIONS + 1, CLASSES, VOCABULARY),
    }  # fmt: skip
    return TransferRows(**given | changes)  # type: ignore[arg-type]


def token_store(path: Path, data: Sample, kind: str, *, embed: bool = False) -> Store:
    return write_store(path, data, make_spec(data, kind, embed=embed, weights=(3.0, 1.0)))


def next_tokens(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and mask (R, P), a position at a time."""
    labels = np.full((len(inputs), inputs.shape[2] - 1), -1)
    for row, (tokens, documents) in enumerate(inputs):
        for p in range(len(tokens) - 1):
            if documents[p] > 0 and documents[p] == documents[p + 1]:
                labels[row, p] = tokens[p + 1]
    return labels, labels >= 0
