"""`Batch`: what a student is given at once: inputs, and of each target hard labels and what the teacher says.

Code that handles labels looks at one target at a time, in a batch that has one without a name: `only` makes it of a batch of
several. `loader.py` makes batches.

B rows, P positions of a row, C classes (or values); N = B * P positions of a batch, row after row (B where rows have none).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import SeveralTargets, some
from softlabels.labels.soft import SoftLabels


@dataclass(frozen=True)
class TargetBatch:
    """One target of B examples.

    Attributes:
        labels: hard labels, as `softlabels.labels.hard` says for the target's kind: classes are int64, -1 = none, (B,),
            of rows of positions (B, P); of tokens each position's next token.
        soft: the teacher's outputs of N positions, or None without a store.
        classes: C where outputs beyond pad a vocabulary, as those of tokens may; else None.
    """

    labels: Tensor
    soft: SoftLabels | None
    classes: int | None = None


@dataclass(frozen=True)
class Batch:
    """B examples.

    Attributes:
        inputs: (B, ...) of the prepared inputs' dtype.
        targets: the labels of each target, by its name; "" for one without a name.
        rows: (B,) int64, the row of each example in the transfer rows.
        mask: (B, P) bool, the positions that count, for all targets; None if rows have no positions.
        first: the place of the first example in the whole batch, if this is a process's part of it, or a slice.
        whole: how many rows the whole batch has; None if these are all.

    Example:
        >>> batch = next(Loader(EmbeddedRows(store), store, batch_size=50, seed=0).epoch(0))
        >>> batch.inputs.shape, batch.labels.shape, batch.soft.log_probs(4.0).shape
        (torch.Size([50, 6]), torch.Size([50]), torch.Size([50, 5]))
    """

    inputs: Tensor
    targets: Mapping[str, TargetBatch]
    rows: NDArray[np.int64]
    mask: Tensor | None = None
    first: int = 0
    whole: int | None = None

    def only(self, name: str) -> Batch:
        """The same with one target, which then has no name. Raises `SeveralTargets` if no target has this name."""
        if name not in self.targets:
            raise SeveralTargets(f"a batch has no target {name!r}", remedy=f"ask for one of {some(self.targets)}")
        return self if not name else replace(self, targets={"": self.targets[name]})

    @property
    def target(self) -> TargetBatch:
        """The one target without a name. Raises `SeveralTargets`."""
        if "" not in self.targets:
            raise SeveralTargets(
                f"a batch holds targets by name ({some(self.targets)})", remedy="ask for one of them by `only`"
            )
        return self.targets[""]

    @property
    def labels(self) -> Tensor:
        """Of the one target."""
        return self.target.labels

    @property
    def soft(self) -> SoftLabels | None:
        """Of the one target."""
        return self.target.soft

    @property
    def classes(self) -> int | None:
        """Of the one target."""
        return self.target.classes

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """How many rows the whole batch has."""
        return len(self) if self.whole is None else self.whole

    def __getitem__(self, part: slice) -> Batch:
        """Some of the rows, one behind the other."""
        start, stop, _ = part.indices(len(self))
        each = 1 if self.mask is None else self.mask.shape[1]

        def cut(target: TargetBatch) -> TargetBatch:
            soft = None if target.soft is None else target.soft[start * each : stop * each]
            return replace(target, labels=target.labels[start:stop], soft=soft)

        mask = None if self.mask is None else self.mask[start:stop]
        rows, first = self.rows[start:stop], self.first + start
        return Batch(self.inputs[start:stop], self._each(cut), rows, mask, first, self.size)

    @property
    def positions(self) -> int:
        """How many positions count; without a mask, rows."""
        return len(self) if self.mask is None else int(self.mask.sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""

        def moved(target: TargetBatch) -> TargetBatch:
            soft = None if target.soft is None else target.soft.to(device)
            return replace(target, labels=target.labels.to(device), soft=soft)

        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, inputs=self.inputs.to(device), targets=self._each(moved), mask=mask)

    def _each(self, change: Callable[[TargetBatch], TargetBatch]) -> dict[str, TargetBatch]:
        return {name: change(target) for name, target in self.targets.items()}
