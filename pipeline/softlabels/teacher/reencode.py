"""A dense store in the teacher's place: its logits as topk labels, a chunk at a time.

What is exact here are the dense labels, float16 as they are stored: the fidelity that is measured is against them.
n rows of a chunk, P positions of a sequence row, M stored members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels import NO_LABEL
from softlabels.store import Store
from softlabels.store.spec import Spec, TeacherSpec
from softlabels.teacher.pilot import POSITIONS
from softlabels.teacher.teacher import Batch
from softlabels.transfer.alignment import alignment


@dataclass(frozen=True)
class DensePilot:
    """Logits (n, M, C) of at least `POSITIONS` distributions of a dense store that count, or all, spread evenly over it, chunk
    by chunk, for `find_basis`.
    """

    store: Store
    device: torch.device

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that are read, ascending."""
        store = self.store
        count = np.ones(store.rows, np.int64)
        if store.positions is not None:
            count = store.column("position_mask").sum(axis=-1, dtype=np.int64)
        every = max(1, int(count.sum()) // POSITIONS)
        while count[::every].sum() < min(POSITIONS, count.sum()):
            every -= 1
        return np.arange(store.rows, dtype=np.int64)[::every]

    def __iter__(self) -> Iterator[Tensor]:
        store, per_chunk, rows = self.store, self.store.rows_per_chunk, self.rows
        for chunk in np.unique(rows // per_chunk).tolist():
            inside = rows[rows // per_chunk == chunk] - chunk * per_chunk
            logits = store.read_chunk("logits", chunk)[inside]
            if store.positions is not None:
                logits = logits[store.read_chunk("position_mask", chunk)[inside] == 1]
            if len(logits):
                yield torch.tensor(logits, device=self.device)


@dataclass
class DenseTeacher:
    """Dense stores of one teacher, asked again for the logits that they hold; see `Teacher`. Chunks are its batches."""

    spec: TeacherSpec
    device: torch.device
    weights: NDArray[np.float64] | None = None  # members that are stored reduced are reduced

    def environment(self) -> dict[str, str]:
        """No model is run."""
        return {"torch": str(torch.__version__)}

    def cut(self, rows: Store, spec: Spec, shard: int) -> list[tuple[int, int]]:
        """Chunks of the dense store, as far as they lie in the shard."""
        span, size = spec.shard_rows(shard), rows.rows_per_chunk
        first = span.start // size * size
        return [(max(at, span.start), min(at + size, span.stop)) for at in range(first, span.stop, size)]

    def batch(self, rows: Store, start: int, stop: int, *, embed: bool) -> Batch:
        """As `Teacher.batch`."""
        size = rows.rows_per_chunk
        chunk = start // size
        at = slice(start - chunk * size, stop - chunk * size)
        names = [name for name in rows.columns if name not in ("shift", "positions")]
        columns = {name: rows.read_chunk(name, chunk)[at] for name in names}
        labels, mask = columns["label"], None
        if rows.positions is not None:
            mask = columns["position_mask"].reshape(-1) == 1
            none = np.full(columns["position_mask"].shape, NO_LABEL, np.int64)
            labels = alignment(columns["input"]).next_token if "input" in columns else none
        logits = columns.pop("logits")
        whole = torch.tensor(logits, device=self.device).reshape(-1, *logits.shape[-2:])
        each = rows.positions or 1
        return Batch(
            {"": [(slice(0, len(whole)), whole)]},
            columns,
            {"": labels.reshape(-1).astype(np.int64, copy=False)},
            mask,
            lambda number: f"row {start + number // each}" + (f", position {number % each}" if rows.positions else ""),
        )
