"""A batch's outputs as the columns of the store, encoded where they are: of top-k labels only the columns leave the device.

N distributions of a batch (rows, or rows x positions, row behind row), M members (1 where they are reduced), C classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.probabilities import SUM
from softlabels.errors import LogitsError
from softlabels.labels.dense import check_logits, encode_dense
from softlabels.labels.encoding import Encoding, TopkEncoding
from softlabels.labels.ensemble import normalised_weights
from softlabels.labels.fidelity import FidelitySums, add_up, measure_dense
from softlabels.teacher.teacher import Batch

Columns = dict[str, NDArray[np.generic]]
_PLACE = re.compile(r"\((?:row|position) (\d+)")


@dataclass(frozen=True)
class Encoded:
    """Columns (N, M, ...) by name, what encoding them lost, and which outputs (N, M) look like probabilities."""

    columns: Columns
    fidelity: tuple[FidelitySums, ...]
    suspects: NDArray[np.bool_]


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
            reduces = self.encoding.reduce == "geometric"
            logits = block if self.weights is None or not reduces else reduced(block, self.weights)
            real = None if counts is None else counts[at].to(block.device)
            try:
                columns, lost = self._block(logits, given[at].to(block.device), real)
            except LogitsError as error:
                raise _renamed(error, at.start, batch.place) from error
            parts.append(Encoded(columns, lost, probabilities_among(block)))
        return joined(parts)

    def _block(self, logits: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Columns, tuple[FidelitySums, ...]]:
        if isinstance(self.encoding, TopkEncoding):
            from softlabels.labels.topk_encode import encode_topk

            return encode_topk(logits, self.encoding, basis=self.basis, labels=labels, mask=mask)
        if mask is not None:
            logits = torch.where(mask[:, None, None], logits, 0.0)
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32)).cpu().numpy()
        check_logits(exact)
        dense = encode_dense(exact)
        real = slice(None) if mask is None else mask.cpu().numpy()
        return {"logits": dense.logits, "shift": dense.shift}, measure_dense(exact[real], dense.logits[real])


def reduced(logits: Tensor, weights: NDArray[np.float64]) -> Tensor:
    """The members' weighted mean logits, (n, M, C) -> (n, 1, C) float64; see `softlabels.labels.dense.reduce_geometric`."""
    share = torch.from_numpy(normalised_weights(weights, logits.shape[1])).to(logits.device)
    keep = share > 0
    return (logits[:, keep].double() * share[keep, None]).sum(dim=1, keepdim=True)


def probabilities_among(logits: Tensor) -> NDArray[np.bool_]:
    """Which of (n, M, C) are >= 0 and sum to 1, (n, M): `softlabels.checks.probabilities.are_probabilities` on the device."""
    found = (logits.sum(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)) - 1).abs() <= SUM
    if bool(found.any()):  # never, of logits: one pass over them
        found &= ((logits >= 0) & (logits <= 1 + SUM)).all(dim=-1)
    return found.cpu().numpy()


def require_storable(logits: Tensor, weights: NDArray[np.float64], *, reduce: str, place: Callable[[int], str]) -> None:
    """Raise `LogitsError` where logits (n, M, C) are such as no store can hold; arguments as of `Encoder` and `Batch`."""
    logits = (
        reduced(logits, weights)
        if reduce == "geometric"
        else logits.to(torch.promote_types(logits.dtype, torch.float32))
    )
    peak = logits.amax(dim=-1)
    spread = peak - logits.masked_fill(logits.isneginf(), torch.inf).amin(dim=-1)
    suspects = (~torch.isfinite(peak) | (spread > torch.finfo(torch.float16).max)).any(dim=1).nonzero()[:, 0].tolist()
    for number in suspects:
        try:
            encode_dense(logits[number : number + 1].cpu().numpy())
        except LogitsError as error:
            raise _renamed(error, number, place) from error


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Parts one behind the other."""
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    suspects = np.concatenate([part.suspects for part in parts])
    return Encoded(columns, add_up(part.fidelity for part in parts), suspects)


def _renamed(error: LogitsError, first: int, place: Callable[[int], str]) -> LogitsError:
    """The error with the place in the transfer set instead of that in the block."""
    what = _PLACE.sub(lambda found: f"({place(first + int(found[1]))}", error.what, count=1)
    return type(error)(what, remedy=error.remedy)
