"""A dense store in the teacher's place: its logits as topk labels, a chunk at a time.

What is exact here are the dense labels, float16 as they are stored: the fidelity that is measured is against them.
n rows of a chunk, P positions of a sequence row, M stored members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels import NO_LABEL
from softlabels.labels.fidelity import FidelitySums, add_up
from softlabels.store import Store, StoreWriter
from softlabels.store.spec import Spec
from softlabels.teacher.pilot import POSITIONS
from softlabels.transfer.alignment import alignment

Arrays = Mapping[str, NDArray[Any]]


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


def reencode(
    store: Store,
    writer: StoreWriter,
    shard: int,
    *,
    basis: Tensor | None,
    device: torch.device,
    on_rows: Callable[[int], None] = lambda _: None,
) -> None:
    """Write one shard of a topk store from a dense one of the same rows.

    Args:
        basis: (1 + r, C) float16 on `device`, where the tails have one.
        on_rows: told of each chunk's rows, once they are encoded; what it raises ends the shard unwritten.

    Raises:
        MissingShard, DamagedShard: of the dense store; nothing of the shard is written.
    """
    first, last = writer.rows_of(shard)
    parts, sums = [], []
    for chunk in range(first // store.rows_per_chunk, -(-last // store.rows_per_chunk)):
        start = chunk * store.rows_per_chunk
        rows = slice(max(first - start, 0), last - start)
        arrays = {name: store.read_chunk(name, chunk)[rows] for name in store.columns if name != "shift"}
        columns, lost = _encoded(arrays, writer.spec, basis, device)
        parts.append({name: values for name, values in arrays.items() if name != "logits"} | columns)
        sums.append(lost)
        on_rows(len(arrays["content_key"]))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    writer.write_arrays(shard, whole, fidelity=add_up(sums))


def _encoded(
    arrays: Arrays, spec: Spec, basis: Tensor | None, device: torch.device
) -> tuple[dict[str, NDArray[np.generic]], tuple[FidelitySums, ...]]:
    """The topk columns (n, [P,] M, ...) of some rows of a dense store, and what they lost against it."""
    labels, mask = arrays["label"], None
    if spec.positions is not None:
        mask = torch.tensor(arrays["position_mask"].reshape(-1) == 1, device=device)
        none = np.full(arrays["position_mask"].shape, NO_LABEL, np.int64)
        labels = alignment(arrays["input"]).next_token if "input" in arrays else none
    logits = arrays["logits"]
    columns, lost = spec.encoding.encode(
        torch.tensor(logits, device=device).reshape(-1, *logits.shape[-2:]),
        basis=basis,
        labels=torch.tensor(labels.reshape(-1), device=device),
        mask=mask,
    )
    lead = logits.shape[:-2]
    return {name: values.reshape(*lead, *values.shape[1:]) for name, values in columns.items()}, lost
