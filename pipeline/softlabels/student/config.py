"""How a student (or a teacher) is trained: the `training` section of a recipe, whose field names are command-line flags.

What is trained and on which data stands elsewhere (`softlabels.models`, `softlabels.transfer`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from softlabels.errors import ConfigError
from softlabels.labels.encoding import Encoding
from softlabels.labels.ensemble import MEANS, check_temperature
from softlabels.names import as_before
from softlabels.objects import ObjectSpec
from softlabels.student.class_weights import ClassWeights, check_class_weights
from softlabels.student.loss_spec import AT_1, WITHOUT_T, LossSpec, require_meaning, target_of
from softlabels.student.sampled import position_sample
from softlabels.student.schedule import Setting, ends, value_at
from softlabels.student.target_config import target_configs

DEFAULT_ALPHA = 0.9
DEFAULT_TEMPERATURE = 4.0


@dataclass(frozen=True)
class LoopConfig:
    """What students that are trained side by side share: everything but the loss and the seed of each.

    Attributes:
        mean: how an ensemble's members are averaged: arithmetic, geometric or tempered.
        logit_standardization: scale the logits of teacher and student to mean 0 and standard deviation 1 in the soft term.
        tail_bound: use labels that are known at one temperature also at higher ones, with an upper bound for the mass of their
            tails (docs/translate.md).
        loss_args: arguments of the soft term, by name; docs/losses.md lists them.
        epochs: passes over the training rows.
        batch_size: rows per step.
        block: consecutive rows of the transfer set that stay together in the shuffle: rows are mixed over 16 such blocks at a
            time. By default 512, fewer where a row's distributions and input are large (docs/training.md).
        micro_batch: rows per forward pass, if a batch does not fit into memory (gradients are accumulated); the loss does not
            depend on it.
        optimizer: class and arguments, called with the model's parameters.
        scheduler: learning rate schedule, stepped once a step; an argument "total_steps" becomes the run's number of steps.
        precision: arithmetic of the forward pass; weights, loss and optimizer stay float32.
        clip_norm: largest norm of a step's gradient, over all parameters.
        max_norm: largest norm of the incoming weights of a unit, kept after every step.
        ema: decay of an exponential moving average of the weights, such as 0.999; the average is then evaluated and kept.
        validation: share of the training rows held out to compare epochs; 0 for none.
        keep: best keeps the epoch with the lowest validation loss (the last one without validation), last the last epoch.
        class_weights: weights of the classes in both terms: balanced (by the labelled training rows), or a list with one number
            per class; equal by default. For flags they weigh each class's term. See docs/losses.md.
        targets: for a store of several targets, settings for each by its name: {box: {loss: huber, weight: 2}}. An entry may
            give loss, loss_args, temperature, alpha (or hard_weight and soft_weight), mean, logit_standardization,
            class_weights; weight, of its loss in the sum (0 leaves the target out); and output, the student's output for it (by
            default the one with its name). See docs/targets.md for the defaults.
        positions: for rows of positions, how many positions of a row a step takes: a number, or a share between 0 and 1; all by
            default. {background: 30, class: 0} takes all with a hard label of another class, and 30 of the others (without
            class: of those without a label). See docs/training.md.
        hard_label_fraction: share of the training rows whose hard label is used.
        checkpoint_every: epochs between checkpoints.
        shard: each of several processes holds a piece of the student, its gradients and its optimizer, for a student that does
            not fit one device. See docs/scaling.md.
        device: auto (cuda where there is one, else cpu), cpu, cuda or cuda:N.
        threads: CPU threads; torch's own choice when not given.
    """

    mean: str = "arithmetic"
    logit_standardization: bool = False
    tail_bound: bool = False
    loss_args: dict[str, float] = field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 128
    block: int | None = None
    micro_batch: int | None = None
    optimizer: ObjectSpec = field(default_factory=lambda: ObjectSpec("torch.optim.AdamW", {"lr": 1e-3}))
    scheduler: ObjectSpec | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    clip_norm: float | None = None
    max_norm: float | None = None
    ema: float | None = None
    validation: float = 0.1
    keep: Literal["best", "last"] = "best"
    class_weights: ClassWeights = None
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    positions: int | float | dict[str, Any] | None = None
    hard_label_fraction: float = 1.0
    checkpoint_every: int = 1
    shard: bool = False
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        _one_of("mean", self.mean, MEANS)
        for name in ("epochs", "batch_size", "block", "checkpoint_every", "micro_batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}", remedy=f"give {name} >= 1")
        for name in ("clip_norm", "max_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be above 0, not {value}", remedy="give such a number, or null")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema must lie between 0 and 1, not {self.ema}", remedy="give such a number, or null")
        if not 0 <= self.validation < 1:
            raise ConfigError(
                f"validation must be >= 0 and < 1, not {self.validation}", remedy="give a share of the rows"
            )
        if not 0 <= self.hard_label_fraction <= 1:
            raise ConfigError(
                f"hard_label_fraction must lie in [0, 1], not {self.hard_label_fraction}",
                remedy="give a share of the rows",
            )
        check_class_weights(self.class_weights)
        _ = target_configs(self.targets), position_sample(self.positions)  # refuse what cannot be meant
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device is {self.device!r}", remedy="choose auto, cpu, cuda or cuda:N")


@dataclass(frozen=True)
class TrainingConfig(LoopConfig):
    """Loss, optimizer and schedule of one training run.

    Attributes:
        temperature: T > 0 of the soft term: a number, or a schedule over the steps such as linear:20:4 or cosine:20:4; a loss
            of values has none.
        alpha: short for soft_weight = alpha and hard_weight = 1 - alpha, a number or a schedule; 0.9 where nothing is given,
            0 for hard labels only.
        hard_weight: weight of the hard labels' term, a number or a schedule; given together with soft_weight, without alpha.
        soft_weight: weight of the soft term.
        loss: the soft term: forward_kl, reverse_kl, js, soft_ce, logit_mse, dkd, nkd or dist; of flags (sigmoid) bce, of
            values mse, huber or cosine, which are the hard labels' term too.
        seed: of initialisation, dropout, and which rows keep their hard label.
    """

    temperature: Setting = DEFAULT_TEMPERATURE
    alpha: Setting | None = None
    hard_weight: Setting | None = None
    soft_weight: Setting | None = None
    loss: str = "forward_kl"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for temperature in ends(self.temperature, name="temperature"):
            check_temperature(temperature)
        self._check_weights()
        target_of(self.loss)
        if not self.targets:  # where there are several targets, each has its own (`heads`)
            require_meaning(
                self.loss,
                temperature=self.temperature != DEFAULT_TEMPERATURE,
                mean=self.mean != "arithmetic",
                logit_standardization=self.logit_standardization,
                class_weights=self.class_weights is not None,
            )
        if self.seed < 0:
            raise ConfigError(f"seed must be >= 0, not {self.seed}", remedy="give a whole number >= 0")

    def loss_at(self, share: float) -> LossSpec:
        """The loss after `share` of the run's steps, 0 to 1, with alpha spelled out and without class weights."""
        if self.hard_weight is not None and self.soft_weight is not None:
            hard, soft = value_at(self.hard_weight, share), value_at(self.soft_weight, share)
        else:
            soft = value_at(DEFAULT_ALPHA if self.alpha is None else self.alpha, share)
            hard = 1 - soft
        temperature = value_at(self.temperature, share) if self.has_temperature else WITHOUT_T
        return LossSpec(temperature, hard, soft, self.loss, self.loss_args, self.logit_standardization, self.mean)

    @property
    def has_temperature(self) -> bool:
        """Whether a temperature plays a part: not in losses of values."""
        return target_of(self.loss) != "values"

    @property
    def is_soft(self) -> bool:
        """Whether the soft term has a weight at any step."""
        return self.loss_at(0.0).soft_weight > 0 or self.loss_at(1.0).soft_weight > 0

    @property
    def is_scheduled(self) -> bool:
        """Whether temperature or weights change over the steps."""
        return any(isinstance(s, str) for s in (self.temperature, self.alpha, self.hard_weight, self.soft_weight))

    def _check_weights(self) -> None:
        given = (self.hard_weight, self.soft_weight)
        if self.alpha is not None and given != (None, None):
            raise ConfigError(
                f"alpha={self.alpha} and hard_weight={self.hard_weight}, soft_weight={self.soft_weight} both set the weights",
                remedy="give alpha, or both weights and alpha=null",
            )
        if (self.hard_weight is None) != (self.soft_weight is None):
            raise ConfigError(
                f"hard_weight={self.hard_weight} and soft_weight={self.soft_weight}: one of the two is missing",
                remedy="give both weights, or alpha alone",
            )
        if self.alpha is not None and not all(0 <= alpha <= 1 for alpha in ends(self.alpha, name="alpha")):
            raise ConfigError(
                f"alpha must lie in [0, 1], not {self.alpha}", remedy="give both weights for anything else"
            )
        hard, soft = (ends(value, name="a weight") if value is not None else (0.0, 0.0) for value in given)
        finite = all(weight >= 0 and math.isfinite(weight) for weight in (*hard, *soft))
        if given != (None, None) and not (finite and all(pair != (0, 0) for pair in zip(hard, soft, strict=True))):
            raise ConfigError(
                f"hard_weight={self.hard_weight}, soft_weight={self.soft_weight}: both must be finite, >= 0, and not both 0",
                remedy="give such weights",
            )


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by name, that decide what is trained: not how often it is saved, nor what
    processes divide or hold.
    """
    return {
        name: value
        for name, value in as_before("training", settings).items()
        if name not in ("checkpoint_every", "divide", "shard")
    }


def require_temperatures(encoding: Encoding, config: TrainingConfig) -> None:
    """Raise `ConfigError` where labels of this encoding do not know a temperature that a student is trained or judged at:
    that next to 1, and both ends of its own setting; nothing of a student that has none.
    """
    if not config.has_temperature:
        return
    for temperature in (1.0 if config.loss in AT_1 else encoding.near_1, *ends(config.temperature, name="temperature")):
        encoding.check_temperature(temperature)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}", remedy=f"choose one of {', '.join(known)}")
