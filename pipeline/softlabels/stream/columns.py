"""A target's columns of soft labels in a store, and the `SoftLabels` of rows of them, dense or sparse.

B rows, P positions, M members, C classes, N = B * P (B without positions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import ConfigError, MeanUnavailable
from softlabels.labels.encoding import Encoding
from softlabels.labels.ensemble import normalised_weights
from softlabels.labels.soft import SoftLabels
from softlabels.store.columns import bare, stored_name

if TYPE_CHECKING:
    from softlabels.store import Store


def chosen_members(
    store: Store, weights: Sequence[float] | None = None, members: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The numbers of the stored members to take, in the order given; all by default. Raises as `SoftColumns.of`."""
    if store.reduce != "none" and (weights is not None or members is not None):
        raise MeanUnavailable(
            f"{store.path} keeps only the members' mean {'logits' if store.reduce == 'geometric' else 'values'} (reduce: "
            f"{store.reduce}): no member of it can be chosen or weighted anew",
            remedy="drop members and weights, or label the transfer set again with reduce: none",
        )
    chosen = tuple(range(store.members)) if members is None else tuple(members)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(store.members)):
        raise ConfigError(
            f"members are {list(chosen)}, and {store.path} has {store.members}",
            remedy=f"give distinct numbers from 0 to {store.members - 1}",
        )
    return chosen


@dataclass(frozen=True)
class SoftColumns:
    """What the columns of a target's soft labels are.

    Attributes:
        names: as the store has them.
        by_position: whether rows have positions, an axis of all columns.
        encoding, classes: of the target.
        weights: (M,) float32 member weights, summing to 1.
        members: the numbers of the stored members that are taken, M of them; None for all.
        basis: (1 + r, C) float32, the prior and the basis of the tails, made once; None where there is none.
    """

    names: tuple[str, ...]
    by_position: bool
    encoding: Encoding
    classes: int
    weights: Tensor
    members: tuple[int, ...] | None
    basis: Tensor | None

    @classmethod
    def of(
        cls, store: Store, weights: Sequence[float] | None = None, members: Sequence[int] | None = None
    ) -> SoftColumns:
        """Those of a store of one target (of several: of one of them, see `Store.only`), with its own member weights or others,
        of all its members or some.

        Raises:
            ConfigError: weights or members that do not fit.
            MeanUnavailable: the store keeps only the members' mean.
        """
        chosen = chosen_members(store, weights, members)
        own = store.member_weights[list(chosen)]
        share = normalised_weights(own if weights is None else weights, len(chosen))
        return cls(
            tuple(stored_name(store.name, column) for column in store.soft_columns),
            store.positions is not None,
            store.encoding,
            store.classes,
            torch.from_numpy(share.astype(np.float32)),
            None if chosen == tuple(range(store.members)) else chosen,
            None if store.basis is None else torch.from_numpy(store.basis.astype(np.float32)),
        )

    def stackable(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """`columns` with their unsigned integers seen as signed ones of the same bits, which torch can stack."""
        return {
            name: values.view(f"i{values.itemsize}") if name in self.names and values.dtype.kind == "u" else values
            for name, values in columns.items()
        }

    def soft_labels(self, columns: Mapping[str, Tensor]) -> SoftLabels:
        """The labels of columns (B, [P,] M, ...) among others, N positions row after row."""
        own = {bare(name): columns[name] for name in self.names}
        if self.by_position:
            own = {name: values.flatten(0, 1) for name, values in own.items()}
        if self.members is not None:
            own = {name: values[:, list(self.members)] for name, values in own.items()}
        device = next(iter(own.values())).device
        basis = None if self.basis is None else self.basis.to(device)
        members = self.encoding.members(own, self.classes, basis)
        known = self.encoding
        return SoftLabels(members, self.weights.to(device), known.reduce, known.only_at, known.near_1)
