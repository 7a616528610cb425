"""The loss that is trained, and the scores, on held-out rows, for every learner in one pass over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels
from softlabels.student.fused_terms import Part, block_term
from softlabels.student.learner import Learner
from softlabels.student.losses import LOSSES, hard_sum, soft_sum
from softlabels.student.metrics import Batches, Metrics, Scores
from softlabels.student.outputs import Outputs, blocks, naming_row

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
        self._learner, self._config = learner, learner.config
        self._temperature = self._config.temperature_at(1.0)
        self._hard_weight, self._soft_weight = self._config.weights_at(1.0)
        self._metrics = Metrics((self._temperature,), self._config.mean)
        self._soft = self._hard = 0.0

    def add(self, outputs: Outputs, batch: Batch) -> None:
        for logits, labels, soft in blocks(outputs, batch, whole=LOSSES[self._config.loss].whole_batch):
            self._metrics.update(logits, labels, soft)
            if self._learner.class_weights is not None and self._hard_weight > 0:
                self._hard += hard_sum(logits, labels, self._learner.class_weights).item()
            if self._soft_weight > 0:
                self._soft += self._soft_sum(logits.float(), labels, soft)

    def result(self, step: int) -> tuple[float, Scores]:
        scores = self._metrics.result()
        self._learner.check_labelled("validation", scores["labelled"], is_soft=self._soft_weight > 0)
        hard = scores.get("nll", 0.0)
        if self._learner.class_weights is not None:
            hard = self._hard / max(scores["labelled"], 1)
        loss = self._hard_weight * hard + self._soft_weight * self._soft / scores["rows"]
        self._learner.check_finite("validation", loss, step)
        return loss, scores

    def _soft_sum(self, logits: Tensor, labels: Tensor, soft: SoftLabels | None) -> float:
        """The soft term's sum over positions, at the end of which `logits` are overwritten."""
        config = self._config
        options: dict[str, Any] = {
            "temperature": self._temperature,
            "logit_standardization": config.logit_standardization,
            "mean": config.mean,
        }
        if LOSSES[config.loss].whole_batch or self._learner.class_weights is not None:
            options |= {"class_weights": self._learner.class_weights}
            return soft_sum(logits, soft, labels, loss=config.loss, loss_args=config.loss_args, **options).item()
        impossible = bool(torch.isneginf(logits.amin()))
        options |= {"hard_weight": 0.0, "soft_weight": 1.0, "has_soft": soft is not None, "impossible": impossible}
        term = block_term(config.loss, config.loss_args, **options)
        return term(logits, Part(soft, labels), False)[0].item()
