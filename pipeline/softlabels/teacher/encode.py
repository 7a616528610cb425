"""A batch's outputs as the columns of the store, encoded where they are: of top-k labels only the columns leave the device.

N distributions of a batch (rows, or rows x positions, row behind row), M members (1 where they are reduced), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.probabilities import SUM, looks_of
from softlabels.labels.blocks import block_of
from softlabels.labels.decoder import Columns
from softlabels.labels.encoding import Encoding
from softlabels.labels.lost import Lost
from softlabels.labels.tail_fit import TailBasis
from softlabels.labels.targets import Target
from softlabels.store.columns import stored_name
from softlabels.teacher.teacher import Batch


@dataclass(frozen=True)
class Encoded:
    """Columns (N, M, ...) by the name that the store has for them; and by target what encoding them lost, and what shows of its
    outputs (N, M), see `looks`.
    """

    columns: Columns
    lost: Mapping[str, Lost]
    looks: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Encoder:
    """How a teacher's outputs for a target are encoded.

    Attributes:
        encoding: of the store.
        weights: (M,) of the members, for those that are reduced; None where they are already.
        basis: on the teacher's device, where the tails have one.
    """

    encoding: Encoding
    weights: NDArray[np.float64] | None
    basis: TailBasis | None = None

    def encode(self, name: str, batch: Batch) -> tuple[dict[str, NDArray[np.generic]], Lost, NDArray[np.uint8]]:
        """Columns, what was lost and `looks` of a target's outputs in a batch, a block of distributions at a time; those that
        do not count are stored as if all logits were 0.

        Raises:
            LogitsError: NaN and the like, naming target, row, position and member.
        """
        given = None if name not in batch.classes else torch.from_numpy(np.array(batch.classes[name], np.int64))
        counts = None if batch.mask is None else torch.from_numpy(np.array(batch.mask))
        where = f"target {name}, " if name else ""
        parts = []
        for at, block in batch.blocks[name]:
            columns, lost = self.encoding.encode(
                block,
                weights=self.weights if self.encoding.is_reduced else None,
                basis=self.basis,
                labels=None if given is None else given[at].to(block.device),
                mask=None if counts is None else counts[at].to(block.device),
                place=partial(_placed, batch, where, at.start),
            )
            parts.append((columns, lost, looks_among(block, self.encoding.target)))
        columns = {stored_name(name, one): _joined(part[0][one] for part in parts) for one in parts[0][0]}
        return columns, Lost.total(part[1] for part in parts), _joined(part[2] for part in parts)


def encode(encoders: Mapping[str, Encoder], batch: Batch) -> Encoded:
    """All targets of a batch, one after the other; `encoders` by target. Raises `LogitsError`."""
    found = {name: encoders[name].encode(name, batch) for name in batch.blocks}
    columns = {name: values for each, _, _ in found.values() for name, values in each.items()}
    lost = {**batch.lost, **{name: each for name, (_, each, _) in found.items()}}
    return Encoded(columns, lost, {name: looks for name, (_, _, looks) in found.items()})


def _placed(batch: Batch, where: str, first: int, number: int) -> str:
    """What an error calls distribution `number` of a block that begins with distribution `first` of a batch."""
    return where + batch.place(first + number)


def _joined(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    first, *others = parts
    return np.concatenate([first, *others]) if others else first


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
