"""Rows of tokens for the teacher stage's tests, and what its columns must say, from the live logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.encoding import DenseEncoding, Encoding, TopkEncoding
from softlabels.labels.tail_basis import find_basis
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.pilot import Pilot
from softlabels.transfer import TransferRows, array_keys
from softlabels.transfer.sequences import SequenceInfo

TOKENS, LENGTH = 37, 9  # the tests' models have 40 outputs: three are padding
INFO = SequenceInfo(LENGTH, TOKENS, "a" * 64)
DENSE = DenseEncoding()


def topk(**settings: Any) -> TopkEncoding:
    """A small top-k encoding."""
    chosen = {"k": 5, "tail": "lowrank", "rank": 14, "nodes": 6} | settings
    return TopkEncoding(fine=chosen["rank"], **chosen)


def token_rows(rng: np.random.Generator, count: int = 60, *, info: SequenceInfo = INFO) -> TransferRows:
    """Rows of one to three documents; some are padded, and one has a single token."""
    inputs = np.zeros((count, 2, info.length), np.int32)
    for number, row in enumerate(inputs):
        real = 1 if number == 3 else int(rng.integers(2, info.length + 1)) if number % 3 == 0 else info.length
        row[0, :real] = rng.integers(0, info.classes, real)
        cuts = np.sort(rng.choice(np.arange(1, info.length), 2, replace=False))
        row[1, :real] = 1 + np.searchsorted(cuts, np.arange(real), side="right")
    keys = np.concatenate([array_keys(row[:1, row[1] > 0]) for row in inputs])
    labels = np.full(count, -1)
    prepare = ObjectSpec("softlabels.transfer.sequences.token_rows")
    return TransferRows("tokens", "train", None, "here", inputs, keys, labels, None, prepare, info)


def other_length(rows: TransferRows) -> TransferRows:
    """The same tokens in rows with one more place."""
    assert rows.sequence is not None
    longer = np.pad(rows.inputs, ((0, 0), (0, 0), (0, 1)))
    return replace(rows, inputs=longer, sequence=replace(rows.sequence, length=LENGTH + 1))


def sequence_writer(
    path: Path, rows: TransferRows, ensemble: Ensemble, encoding: Encoding, **options: Any
) -> StoreWriter:
    """A writer of a store with four shards."""
    assert rows.sequence is not None
    ensemble.expect(rows.sequence)
    basis = None
    if encoding.basis_rank is not None:
        basis = find_basis(Pilot(rows, ensemble, encoding), encoding.basis_rank)
    settings: dict[str, Any] = {
        "teacher": ensemble.spec, "name": rows.name, "keys": rows.keys, "classes": rows.sequence.classes,
        "positions": rows.sequence.positions, "vocabulary": rows.sequence.vocabulary, "basis": basis,
        "rows_per_shard": 16, "rows_per_chunk": 16, "teacher_batch": 6,
    }  # fmt: skip
    return StoreWriter(path, store_spec(encoding, **(settings | options)), basis=basis)


def exact(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """log softmax(z / T)."""
    z = logits.astype(np.float64) / temperature
    z -= z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
