"""A batch's outputs as the columns of the store, encoded where they are: of top-k labels only the columns leave the device.

N distributions of a batch (rows, or rows x positions, row behind row), M members (1 where they are reduced), C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.probabilities import SUM, looks_of
from softlabels.labels.base import Columns
from softlabels.labels.blocks import block_of
from softlabels.labels.encoding import Encoding
from softlabels.labels.lost import Lost
from softlabels.labels.targets import Target
from softlabels.teacher.teacher import Batch


@dataclass(frozen=True)
class Encoded:
    """Columns (N, M, ...) by name, what encoding them lost, and which outputs (N, M) look like probabilities (`looks`)."""

    columns: Columns
    lost: Lost
    suspects: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Encoder:
    """How a teacher's outputs are encoded.

    Attributes:
        encoding: of the store.
        weights: (M,) of the members, for those that are reduced; None where they are already.
        basis: (1 + r, C) float16 on the teacher's device, where the tails have one.
    """

    encoding: Encoding
    weights: NDArray[np.float64] | None
    basis: Tensor | None = None

    def encode(self, batch: Batch) -> Encoded:
        """Encode a batch, a block of distributions at a time; those that do not count are stored as if all logits were 0.

        Raises:
            LogitsError: NaN and the like, naming row, position and member.
        """
        given = torch.from_numpy(np.array(batch.labels))
        counts = None if batch.mask is None else torch.from_numpy(np.array(batch.mask))
        parts = []
        for at, block in batch.blocks:
            found = self.encoding.encode(
                block,
                weights=self.weights if self.encoding.is_reduced else None,
                basis=self.basis,
                labels=given[at].to(block.device),
                mask=None if counts is None else counts[at].to(block.device),
                place=lambda n, first=at.start: batch.place(first + n),  # type: ignore[misc]
            )
            parts.append(Encoded(*found, looks_among(block, self.encoding.target)))
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        suspects = np.concatenate([part.suspects for part in parts])
        return Encoded(columns, Lost.total(part.lost for part in parts), suspects)


def looks_among(logits: Tensor, target: Target) -> NDArray[np.uint8]:
    """What shows of outputs (n, M, C), (n, M): `softlabels.checks.probabilities.looks` on the device."""
    if target == "sigmoid":
        return looks_of(*(ends.float().cpu().numpy() for ends in (logits.amin(dim=-1), logits.amax(dim=-1))))
    if target == "values":
        return np.zeros(logits.shape[:2], np.uint8)
    found = (logits.sum(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)) - 1).abs() <= SUM
    if bool(found.any()):  # never, of logits: one pass over them
        found &= ((logits >= 0) & (logits <= 1 + SUM)).all(dim=-1)
    return np.asarray(found.cpu().numpy().view(np.uint8))


def require_storable(
    logits: Tensor, weights: NDArray[np.float64], *, encoding: Encoding, place: Callable[[int], str]
) -> None:
    """Raise `LogitsError` where logits (n, M, C) are such as no store can hold; arguments as in `Encoder.encode`."""
    share = weights if encoding.is_reduced else None
    encoding.check_storable(block_of(logits, share, None, place, check=encoding.check_outputs))
