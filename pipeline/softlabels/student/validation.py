"""The loss that is trained, and the scores, on held-out rows, for every learner in one pass over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels
from softlabels.student.fused_terms import Part, block_term
from softlabels.student.learner import Learner
from softlabels.student.losses import LOSSES, hard_sum, soft_sum
from softlabels.student.metrics import Batches, Scores, metrics_of
from softlabels.student.outputs import StudentOutputs, blocks, naming_row

if TYPE_CHECKING:
    from softlabels.stream.loader import Batch


def validate(
    learners: Sequence[Learner], batches: Batches, device: torch.device, *, step: int
) -> list[tuple[float, Scores]]:
    """The validation loss and the scores of each learner.

    The loss is that of the whole split at once, with the temperature and the weights that the run ends with, so that epochs
    can be compared where these move. A loss over batches (dist) is averaged over the batches, by their rows.

    Raises:
        LogitsError: a loss that is NaN or infinite after `step` steps; a row whose members have no geometric mean.
        ConfigError: no row has a label, and at the end of the run the hard term alone has a weight.
    """
    tallies = [_Tally(learner) for learner in learners]
    with torch.no_grad():  # not inference_mode: a model that caches tensors could not train with them afterwards
        for batch in batches.epoch(0):
            moved = batch.to(device)
            for learner, tally in zip(learners, tallies, strict=True):
                model = learner.judged.eval()
                with naming_row(batch, learner.config.mean):
                    tally.add(learner.predict(model, moved), moved)
    return [tally.result(step) for tally in tallies]


class _Tally:
    """One learner's sums."""

    def __init__(self, learner: Learner) -> None:
        self._learner, self._spec = learner, learner.loss_at(1.0)
        self._metrics = metrics_of(self._spec.target, (self._spec.temperature,), self._spec.mean)
        # of a class without weights the scores have it: the NLL
        self._sums_hard = self._spec.target != "softmax" or self._spec.class_weights is not None
        self._soft = self._hard = 0.0

    def add(self, outputs: StudentOutputs, batch: Batch) -> None:
        spec = self._spec
        for logits, labels, soft in blocks(outputs, batch, whole=LOSSES[spec.loss].whole_batch):
            self._metrics.update(logits, labels, soft)
            if self._sums_hard and spec.hard_weight > 0:
                self._hard += hard_sum(logits, labels, spec).item()
            if spec.soft_weight > 0:
                self._soft += self._soft_sum(logits.float(), labels, soft)

    def result(self, step: int) -> tuple[float, Scores]:
        scores, spec = self._metrics.result(), self._spec
        self._learner.check_labelled("validation", scores["labelled"], is_soft=spec.soft_weight > 0)
        hard = self._hard / max(scores["labelled"], 1) if self._sums_hard else scores.get("nll", 0.0)
        loss = spec.hard_weight * hard + spec.soft_weight * self._soft / scores["rows"]
        self._learner.check_finite("validation", loss, step)
        return loss, scores

    def _soft_sum(self, logits: Tensor, labels: Tensor, soft: SoftLabels | None) -> float:
        """The soft term's sum over positions, at the end of which `logits` are overwritten."""
        if LOSSES[self._spec.loss].whole_batch:
            return soft_sum(logits, soft, labels, self._spec).item()
        alone = dataclasses.replace(self._spec, hard_weight=0.0, soft_weight=1.0)
        term = block_term(alone, soft, impossible=bool(torch.isneginf(logits.amin())))
        return term(logits, Part(soft, labels), False)[0].item()
