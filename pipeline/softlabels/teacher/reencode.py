"""A dense store in the teacher's place: its logits as topk labels, a chunk at a time. Of several targets one is encoded anew,
and the others are copied.

What is exact here are the dense labels, float16 as they are stored: the fidelity that is measured is against them.
n rows of a chunk, P positions of a row, M stored members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels import NO_LABEL
from softlabels.labels.lost import Lost
from softlabels.store import Store
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.spec import Spec, TeacherSpec
from softlabels.teacher.expected import Expected
from softlabels.teacher.pilot import POSITIONS
from softlabels.teacher.teacher import Batch
from softlabels.transfer.alignment import alignment


@dataclass(frozen=True)
class DensePilot:
    """Logits (n, M, C) of at least `POSITIONS` distributions of a dense store of one target that count, or all, spread evenly
    over it, chunk by chunk, for `find_basis`.
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
    """Dense stores of one teacher, asked again for the logits of a target that they hold; see `Teacher`. Chunks are its
    batches. Other targets are copied: their stores are cut alike.
    """

    spec: TeacherSpec
    device: torch.device
    target: str = ""
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
        size, own = rows.rows_per_chunk, rows.only(self.target)
        chunk = start // size
        at = slice(start - chunk * size, stop - chunk * size)
        left = {"positions", *(stored_name(self.target, name) for name in own.soft_columns)}
        columns = {name: rows.read_chunk(name, chunk)[at] for name in rows.columns if name not in left}
        logits = own.read_chunk("logits", chunk)[at]
        classes, mask = columns[stored_name(self.target, LABEL)], None
        if rows.positions is not None:
            mask = columns["position_mask"].reshape(-1) == 1
        if rows.spec.of_tokens:
            none = np.full(columns["position_mask"].shape, NO_LABEL, np.int64)
            classes = alignment(columns["input"]).next_token if "input" in columns else none
        whole = torch.tensor(logits, device=self.device).reshape(-1, *logits.shape[-2:])
        return Batch(
            {self.target: [(slice(0, len(whole)), whole)]},
            columns,
            {self.target: classes.reshape(-1).astype(np.int64, copy=False)},
            mask,
            partial(Expected(row_positions=rows.positions).place, range(start, stop)),
            self._lost(rows, start),
        )

    def _lost(self, rows: Store, start: int) -> dict[str, Lost]:
        """What encoding lost of the targets that are copied: of a shard in its first batch."""
        shard, inside = divmod(start, rows.spec.cut.rows_per_shard)
        if inside:
            return {}
        return {name: lost for name, lost in rows.record(shard).lost.items() if name != self.target}
