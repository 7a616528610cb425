"""What a learner has come to, beside its weights: what it keeps, and the lines of its log."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from softlabels.student.metrics import Scores


@dataclass
class Standing:
    """What a learner has come to.

    Attributes:
        loss_sum: sum over the positions of the unfinished epoch of their batch's loss.
        labelled: positions with a hard label seen since the run began, by target.
        kept_epoch: the epoch (from 1) whose weights are kept, the best so far by validation loss or (keep: last) the last; 0
            before the first, and without validation.
        kept_validation: its validation loss.
        scores: its validation scores.
        kept_weights: the weights after it, on the CPU; None where they are the last ones.
        lines: the lines of `metrics.jsonl`.
    """

    loss_sum: float = 0.0
    labelled: dict[str, int] = field(default_factory=dict)
    kept_epoch: int = 0
    kept_validation: float | None = None
    scores: Scores = field(default_factory=Scores)
    kept_weights: dict[str, Tensor] | None = None
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.labelled, int):  # of a run that an earlier version began
            self.labelled = {"": self.labelled}
