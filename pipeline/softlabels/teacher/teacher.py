"""`Teacher`: what the shard loop asks of whatever produces logits, a batch at a time. `Ensemble` runs models over prepared
rows, `DenseTeacher` reads a dense store.

B rows of a batch, N their distributions (rows, or rows x positions, row behind row), M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.lost import Lost
from softlabels.store.spec import Spec, TeacherSpec

Rows = TypeVar("Rows", contravariant=True)


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows that stand among those of a batch and are copied as they are stored.

    Attributes:
        at: (B,) bool, their places among all rows of both.
        columns: what the store holds of them, by name.
        lost: what encoding them lost, by target, in this part of the shard.
        unknown: targets of which nobody knows that, and so of the shard neither.
    """

    at: NDArray[np.bool_]
    columns: Mapping[str, NDArray[np.generic]]
    lost: Mapping[str, Lost]
    unknown: Collection[str]

    def among(self, others: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All rows in order; `others` are those of the batch, if it has any."""
        if self.at.all():
            return dict(self.columns)
        if not self.at.any():
            return dict(others)
        order = np.argsort(np.concatenate([np.flatnonzero(self.at), np.flatnonzero(~self.at)]))
        return {name: np.concatenate([self.columns[name], values])[order] for name, values in others.items()}


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows, and what the teacher says of them.

    Attributes:
        blocks: of each target, by its name ("" of one without), the distributions in order, a block at a time: where they
            stand, and logits (n, M, C) on the teacher's device. Those of a target whose columns are given are left out.
        columns: what the store holds of the rows themselves (B, ...), by name: content_key, label (`softlabels.labels.hard`);
            position_mask of rows of positions, of tokens document; input where the store keeps it; and what is encoded already.
        classes: (N,) int64 hard labels or next tokens, -1 for none, of the targets that are distributions over classes.
        mask: (N,) bool, which distributions count; None for all.
        place: how a distribution is called in an error, from its number.
        lost: what encoding lost of the targets that are encoded already, in this part of the shard.
        kept: other rows that stand among these.
    """

    blocks: Mapping[str, Iterable[tuple[slice, Tensor]]]
    columns: dict[str, NDArray[np.generic]]
    classes: Mapping[str, NDArray[np.generic]]
    mask: NDArray[np.bool_] | None
    place: Callable[[int], str]
    lost: Mapping[str, Lost] = field(default_factory=dict)
    kept: Kept | None = None

    def __len__(self) -> int:
        return len(self.columns["content_key"])


class Teacher(Protocol[Rows]):
    """Anything that labels rows; `Rows` is the type of a split of rows.

    Attributes:
        spec: its specification in a store: name, precision, each member's class, weights and weight in the mean.
        device: where its logits are, and where they are encoded.
        weights: (M,) of the members, for reducing them; None if the logits are already reduced, or never are.

    Example:
        >>> teacher.spec.name, teacher.weights  # `Ensemble` is one
        ('mine', array([1.]))
    """

    spec: TeacherSpec
    device: torch.device

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """As above."""

    def environment(self) -> dict[str, str]:
        """Everything outside the specification that decides the last bits of its logits."""

    def cut(self, rows: Rows, spec: Spec, shard: int) -> list[tuple[int, int]]:
        """First row and one past the last of each batch of a shard. They never cross into another shard."""

    def batch(self, rows: Rows, start: int, stop: int, *, embed: bool) -> Batch:
        """The rows [start, stop), one batch of `cut`; with their inputs if the store is to `embed` them.

        Raises:
            LogitsError: outputs that are not logits. MissingShard, DamagedShard: from a store that is read.
        """


def teacher_batches(spec: Spec, shard: int) -> list[tuple[int, int]]:
    """The cut that a specification names: teacher batches from a shard's first row on."""
    span, size = spec.shard_rows(shard), spec.cut.teacher_batch
    return [(start, min(start + size, span.stop)) for start in range(span.start, span.stop, size)]
