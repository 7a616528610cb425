"""The loss that is trained, and the scores, on held-out rows, for every learner in one pass over them.

Several processes take a part of each batch, and rank 0 makes loss and scores of the sums of all, in float64. They are those of
one process to the rounding of the model's own outputs, which depends on how many rows it is given at once, and the same ones on
every rank.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels
from softlabels.student.fused_terms import Part, block_term
from softlabels.student.heads import naming_target
from softlabels.student.learner import Learner
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import LOSSES, hard_sum, soft_sum
from softlabels.student.merging import Merging
from softlabels.student.metrics import Batches, Scores, metrics_of, together
from softlabels.student.outputs import StudentOutputs, blocks, naming_row
from softlabels.student.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from softlabels.stream.batch import Batch


def validate(
    learners: Sequence[Learner], batches: Batches, device: torch.device, *, step: int, ranks: Ranks = ALONE
) -> list[tuple[float, Scores]]:
    """The validation loss and the scores of each learner. Of several targets the loss is the weighted sum of theirs, and
    `targets` among the scores has those of each, with its own loss as `validation_loss`.

    The loss is that of the whole split at once, with the temperature and the weights that the run ends with, so that epochs
    can be compared where these move. A loss over batches (dist) is averaged over the batches, by their rows.

    Raises:
        LogitsError: a loss that is NaN or infinite after `step` steps; a row whose members have no geometric mean.
        ConfigError: no row has a label, and at the end of the run the hard term alone has a weight.
    """
    tallies = [
        {name: _Tally(learner, name, spec) for name, spec in learner.loss_at(1.0).items()} for learner in learners
    ]
    with torch.no_grad():  # not inference_mode: a model that caches tensors could not train with them afterwards
        for batch in batches.epoch(0):
            if not len(batch):  # the last one may be too short for all ranks
                continue
            moved = batch.to(device)
            for learner, own in zip(learners, tallies, strict=True):
                answers = learner.predict(learner.judged.eval(), moved)
                for name, tally in own.items():
                    with naming_target(name), naming_row(batch.only(name), tally.spec.mean):
                        tally.add(answers[name], moved.only(name))
    for other in ranks.gather([{name: tally.sums() for name, tally in own.items()} for own in tallies])[1:]:
        for own, sums in zip(tallies, other, strict=True):
            for name, tally in own.items():
                tally.merge(sums[name])
    found = [_result(learner, own, step) for learner, own in zip(learners, tallies, strict=True) if ranks.rank == 0]
    return [(loss, scores) for loss, scores in ranks.broadcast(found)]


def _result(learner: Learner, tallies: Mapping[str, _Tally], step: int) -> tuple[float, Scores]:
    """The loss and the scores of a learner."""
    found = {name: tally.result() for name, tally in tallies.items()}
    weighted = [loss * learner.heads[name].weight for name, (loss, _) in found.items()]
    total = math.fsum(weighted) if len(weighted) > 1 else weighted[0]
    learner.check_finite("validation", total, step)
    if {*found} == {""}:
        return total, found[""][1]
    own: dict[str, Scores] = {name: {**scores, "validation_loss": loss} for name, (loss, scores) in found.items()}
    return total, together(own)


class _Tally(Merging):
    """The sums of one target of a learner's."""

    SUMS = ("_metrics", "_soft", "_hard")

    def __init__(self, learner: Learner, name: str, spec: LossSpec) -> None:
        self.spec = spec
        self._learner, self._name = learner, name
        self._metrics = metrics_of(spec.target, (spec.temperature,), spec.mean)
        # of a class without weights the scores have it: the NLL
        self._sums_hard = spec.target != "softmax" or spec.class_weights is not None
        self._soft = self._hard = 0.0

    def add(self, outputs: StudentOutputs, batch: Batch) -> None:
        spec = self.spec
        for logits, labels, soft in blocks(outputs, batch, whole=LOSSES[spec.loss].whole_batch):
            self._metrics.update(logits, labels, soft)
            if self._sums_hard and spec.hard_weight > 0:
                self._hard += hard_sum(logits, labels, spec).item()
            if spec.soft_weight > 0:
                self._soft += self._soft_sum(logits.float(), labels, soft)

    def result(self) -> tuple[float, Scores]:
        scores, spec = self._metrics.result(), self.spec
        self._learner.check_labelled("validation", self._name, scores["labelled"], is_soft=spec.soft_weight > 0)
        hard = self._hard / max(scores["labelled"], 1) if self._sums_hard else scores.get("nll", 0.0)
        return spec.hard_weight * hard + spec.soft_weight * self._soft / scores["rows"], scores

    def _soft_sum(self, logits: Tensor, labels: Tensor, soft: SoftLabels | None) -> float:
        """The soft term's sum over positions, at the end of which `logits` are overwritten."""
        if LOSSES[self.spec.loss].whole_batch:
            return soft_sum(logits, soft, labels, self.spec).item()
        alone = dataclasses.replace(self.spec, hard_weight=0.0, soft_weight=1.0)
        term = block_term(alone, soft, impossible=bool(torch.isneginf(logits.amin())))
        return term(logits, Part(soft, labels), False)[0].item()
