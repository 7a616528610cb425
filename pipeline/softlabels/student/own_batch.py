"""What one learner uses of a batch that several share: the targets that it is taught, the hard labels of its own rows, and the
positions that a step of its takes.

B rows, P positions of a row, R rows of the transfer set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import ConfigError, some
from softlabels.student.config import TrainingConfig
from softlabels.student.hard_labels import count_labelled, only_where
from softlabels.student.heads import Head
from softlabels.student.loss_spec import LossSpec
from softlabels.student.sampled import position_sample, sampled_positions

if TYPE_CHECKING:
    from softlabels.stream.batch import Batch, TargetBatch


class OwnBatches:
    """A learner's view of batches.

    Args:
        who: the learner, for messages.
        config, heads: how it is taught.
        labelled: (R,) bool, the rows whose hard label it may use; None for all that have one.
        device: where it is trained.

    Raises:
        ConfigError: positions that are to be sampled by the labels of a target that has none of classes.
    """

    def __init__(
        self,
        who: str,
        config: TrainingConfig,
        heads: Mapping[str, Head],
        *,
        labelled: NDArray[np.bool_] | None,
        device: torch.device,
    ) -> None:
        self._who, self._seed, self._heads = who or "the student", config.seed, heads
        self._labelled, self._device = labelled, device
        self._sample = position_sample(config.positions)
        self._background = self._target_of_background()

    def of(
        self, batch: Batch, moved: Batch, specs: Mapping[str, LossSpec], *, step: int
    ) -> tuple[Batch, int, dict[str, int]]:
        """What step `step` uses of a batch, on the device; how many positions count in it, and how many have a hard label, by
        target.

        Args:
            batch: B rows on the CPU.
            moved: the same on the device.
            specs: the loss of each target.

        Raises:
            ConfigError: the batch lacks a target, or the positions that are to be sampled.
        """
        if lacking := [name for name in self._heads if name not in batch.targets]:
            raise ConfigError(
                f"{self._who} is taught {some(map(repr, lacking))}, and batches carry {some(map(repr, batch.targets))}",
                remedy="give it a config of these targets (`softlabels.student.heads.resolved`)",
            )
        taken = None if self._sample is None else torch.from_numpy(self._taken(batch, step))
        targets, labelled = {}, {}
        for name, head in self._heads.items():
            targets[name], labelled[name] = self._target(head, batch, moved.targets[name], taken)
            if specs[name].soft_weight == 0:
                targets[name] = dataclasses.replace(targets[name], soft=None)
        if taken is None:
            return dataclasses.replace(moved, targets=targets), batch.positions, labelled
        own = dataclasses.replace(moved, targets=targets, mask=taken.to(self._device))
        return own, int(taken.sum()), labelled

    def _target(self, head: Head, batch: Batch, moved: TargetBatch, taken: Tensor | None) -> tuple[TargetBatch, int]:
        """The same of one target, and how many positions have a label."""
        labels = self._own_labels(head, batch)
        if self._labelled is None and taken is None:
            return moved, count_labelled(labels, head.target)
        if taken is not None:
            labels = only_where(taken, labels, head.target)
        return dataclasses.replace(moved, labels=labels.to(self._device)), count_labelled(labels, head.target)

    def _own_labels(self, head: Head, batch: Batch) -> Tensor:
        """The hard labels (B, [P], ...) of a target that may be used."""
        labels = batch.targets[head.name].labels
        if self._labelled is None:
            return labels
        return only_where(torch.from_numpy(self._labelled[batch.rows]), labels, head.target)

    def _taken(self, batch: Batch, step: int) -> NDArray[np.bool_]:
        """Which positions (B, P) a step takes."""
        sample = self._sample
        assert sample is not None
        if batch.mask is None:
            raise ConfigError(
                "training.positions is given, and rows have no positions", remedy="drop training.positions"
            )
        labels = None if self._background is None else self._own_labels(self._heads[self._background], batch).numpy()
        return sampled_positions(batch.mask.numpy(), sample, labels, seed=self._seed, step=step, first=batch.first)

    def _target_of_background(self) -> str | None:
        """The target whose hard labels say what is background, where that is asked."""
        if self._sample is None or not self._sample.is_background:
            return None
        of_classes = [name for name, head in self._heads.items() if head.target == "softmax"]
        name = self._sample.target
        if name in of_classes or (name is None and len(of_classes) == 1):
            return of_classes[0] if name is None else name
        raise ConfigError(
            f"training.positions samples the background of {'one' if name is None else name!r} of the targets with classes "
            f"({some(map(repr, of_classes)) or 'there are none'})",
            remedy="name one of them in training.positions.target, or give a number of positions",
        )
