"""The pilot: a sample of the transfer set through the teacher, from which the tails' prior and basis are found once.

The sample is a pure function of the rows: as many as hold about `POSITIONS` distributions that count, spread evenly. What is
found is written down before any shard, and read from there ever after: a resumed run computes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.dependence import spread
from softlabels.labels.blocks import reduced
from softlabels.labels.encoding import Encoding
from softlabels.teacher.encode import require_storable
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.expected import mask_of
from softlabels.teacher.served import Served
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows

POSITIONS = 4096


def pilot_rows(rows: TransferRows) -> NDArray[np.int64]:
    """Numbers of the sample's rows, ascending."""
    total = len(rows.inputs)
    positions = rows.positions if rows.sequence is None else rows.sequence.positions
    if positions is None:
        return spread(total, POSITIONS)
    count = -(-POSITIONS // positions)
    while True:
        chosen = spread(total, count)
        found = int(pilot_mask(rows, chosen).sum())
        if found >= POSITIONS or len(chosen) == total:
            return chosen
        count = max(count + 1, min(total, count * POSITIONS // max(found, 1)))


def pilot_mask(rows: TransferRows, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n, P) which positions of these rows count; P is 1 where they have none."""
    if rows.sequence is not None:
        return np.asarray(alignment(np.array(rows.inputs[chosen])).mask == 1)
    if rows.positions is not None:
        return np.asarray(mask_of(rows)[chosen] == 1)
    return np.ones((len(chosen), 1), np.bool_)


@dataclass(frozen=True, eq=False)
class Pilot:
    """The sample's logits (n, M, C) of a target, block by block on the device; each iteration asks the teacher again. Raises
    `LogitsError` where no store can hold them, naming row (position) and member.
    """

    rows: TransferRows
    ensemble: Ensemble | Served
    encoding: Encoding
    target: str = ""

    def __iter__(self) -> Iterator[Tensor]:
        chosen, size, weights = pilot_rows(self.rows), self.ensemble.rows_at_once, self.ensemble.weights
        assert weights is not None  # a teacher that gives no logits has no pilot
        for start in range(0, len(chosen), size):
            batch = chosen[start : start + size]
            counts = pilot_mask(self.rows, batch).reshape(-1)
            for at, block in self.ensemble.blocks(self.rows, batch, self.target):
                kept = block[torch.from_numpy(counts[at]).to(block.device)]
                if len(kept):
                    numbers = (at.start + np.flatnonzero(counts[at])).tolist()
                    place = partial(self.ensemble.place, batch.tolist(), numbers)
                    require_storable(kept, weights, encoding=self.encoding, place=place)
                    yield reduced(kept, weights) if self.encoding.is_reduced else kept
