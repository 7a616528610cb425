"""How a student (or a teacher) is trained: the `training` section of a recipe, whose field names are command-line flags.

What is trained and on which data stands elsewhere (`pipeline.models`, `pipeline.transfer`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from pipeline.errors import ConfigError
from pipeline.labels.ensemble import MEANS, check_temperature
from pipeline.objects import ObjectSpec
from pipeline.student.losses import LOSSES

DEFAULT_ALPHA = 0.9


@dataclass(frozen=True)
class TrainingConfig:
    """Loss, optimizer and schedule of one training run.

    Attributes:
        temperature: T > 0 of the soft term.
        alpha: short for soft_weight = alpha and hard_weight = 1 - alpha; 0.9 where nothing is given, 0 for hard labels only.
        hard_weight: weight of the cross-entropy with the hard labels; given together with soft_weight, without alpha.
        soft_weight: weight of the soft term.
        loss: the soft term: forward_kl, reverse_kl, soft_ce or logit_mse.
        mean: how an ensemble's members are averaged: arithmetic, geometric or tempered.
        epochs: passes over the training rows.
        batch_size: rows a step.
        micro_batch: rows a forward pass, where a batch does not fit into memory; the loss does not depend on it.
        optimizer: class and arguments, called with the model's parameters.
        scheduler: learning rate schedule, stepped once a step; an argument "total_steps" becomes the run's number of steps.
        max_norm: largest norm of the incoming weights of a unit, kept after every step.
        seed: of initialisation, dropout, order of rows and splits.
        validation: share of the training rows held out to choose the best epoch; 0 keeps the last epoch.
        hard_label_fraction: share of the training rows whose hard label is used.
        checkpoint_every: epochs between checkpoints.
        device: auto (cuda where there is one, else cpu), cpu, cuda or cuda:N.
        threads: CPU threads; torch's own choice when not given.
    """

    temperature: float = 4.0
    alpha: float | None = None
    hard_weight: float | None = None
    soft_weight: float | None = None
    loss: str = "forward_kl"
    mean: str = "arithmetic"
    epochs: int = 10
    batch_size: int = 128
    micro_batch: int | None = None
    optimizer: ObjectSpec = field(default_factory=lambda: ObjectSpec("torch.optim.AdamW", {"lr": 1e-3}))
    scheduler: ObjectSpec | None = None
    max_norm: float | None = None
    seed: int = 0
    validation: float = 0.1
    hard_label_fraction: float = 1.0
    checkpoint_every: int = 1
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        self._check_weights()
        for name, known in (("loss", tuple(LOSSES)), ("mean", MEANS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}", remedy=f"choose one of {', '.join(known)}")
        for name in ("epochs", "batch_size", "checkpoint_every", "micro_batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}", remedy=f"give {name} >= 1")
        if self.max_norm is not None and not 0 < self.max_norm < math.inf:
            raise ConfigError(f"max_norm must be above 0, not {self.max_norm}", remedy="give such a number, or null")
        if not 0 <= self.validation < 1:
            raise ConfigError(
                f"validation must be >= 0 and < 1, not {self.validation}", remedy="give a share of the rows"
            )
        if not 0 <= self.hard_label_fraction <= 1:
            raise ConfigError(
                f"hard_label_fraction must lie in [0, 1], not {self.hard_label_fraction}",
                remedy="give a share of the rows",
            )
        if self.seed < 0:
            raise ConfigError(f"seed must be >= 0, not {self.seed}", remedy="give a whole number >= 0")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device is {self.device!r}", remedy="choose auto, cpu, cuda or cuda:N")

    @property
    def weights(self) -> tuple[float, float]:
        """(hard_weight, soft_weight), with alpha spelled out."""
        if self.hard_weight is not None and self.soft_weight is not None:
            return self.hard_weight, self.soft_weight
        alpha = DEFAULT_ALPHA if self.alpha is None else self.alpha
        return 1 - alpha, alpha

    def _check_weights(self) -> None:
        given = (self.hard_weight, self.soft_weight)
        if self.alpha is not None and given != (None, None):
            raise ConfigError(
                f"alpha={self.alpha} and hard_weight={self.hard_weight}, soft_weight={self.soft_weight} say the same twice",
                remedy="give alpha, or both weights and alpha=null",
            )
        if (self.hard_weight is None) != (self.soft_weight is None):
            raise ConfigError(
                f"hard_weight={self.hard_weight} and soft_weight={self.soft_weight}: one of the two is missing",
                remedy="give both weights, or alpha alone",
            )
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ConfigError(
                f"alpha must lie in [0, 1], not {self.alpha}", remedy="give both weights for anything else"
            )
        if not all(weight >= 0 and math.isfinite(weight) for weight in self.weights) or self.weights == (0, 0):
            raise ConfigError(
                f"hard_weight={self.hard_weight}, soft_weight={self.soft_weight}: both must be finite, >= 0, and not both 0",
                remedy="give such weights",
            )
