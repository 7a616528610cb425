"""Which loss it is: what a config, or the keywords of `distillation_loss`, hand to all that compute it. `losses` says what it
comes to; which batch it is of, and how much of that, is no part of it. No torch at import.

The name of a loss says what it compares: distributions (softmax), a Bernoulli a class (sigmoid), or real vectors (values).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from softlabels.errors import ConfigError
from softlabels.labels.ensemble import check_temperature
from softlabels.labels.targets import Target
from softlabels.student.hard_labels import count_labelled

if TYPE_CHECKING:
    from torch import Tensor

LOSS_NAMES: Mapping[Target, tuple[str, ...]] = {
    "softmax": ("forward_kl", "reverse_kl", "js", "soft_ce", "logit_mse", "dkd", "nkd", "dist"),
    "sigmoid": ("bce",),
    "values": ("mse", "huber", "cosine"),
}  # those of `losses.LOSSES`, which needs torch
AT_1 = ("nkd",)  # whose formula has the teacher's probabilities at T = 1
WITHOUT_T = 1.0  # the temperature of a loss of values, which have none


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one bool
class LossSpec:
    """The options of `losses.distillation_loss` of the same names, which explains them; the soft term alone by default.

    Raises:
        ConfigError: an unknown loss, an impossible temperature or weight, or an option that means nothing for the loss.
            Arguments of the loss are checked where it is computed.
    """

    temperature: float
    hard_weight: float = 0.0
    soft_weight: float = 1.0
    loss: str = "forward_kl"
    loss_args: Mapping[str, float] | None = None
    logit_standardization: bool = False
    mean: str = "arithmetic"
    class_weights: Tensor | None = None

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if not (0 <= self.hard_weight < math.inf and 0 <= self.soft_weight < math.inf):
            raise ConfigError(
                f"weights must be finite numbers >= 0, not hard_weight={self.hard_weight}, soft_weight={self.soft_weight}",
                remedy="give such numbers",
            )
        require_meaning(
            self.loss,
            temperature=self.temperature != WITHOUT_T,
            mean=self.mean != "arithmetic",
            logit_standardization=self.logit_standardization,
            class_weights=self.class_weights is not None,
        )

    @property
    def target(self) -> Target:
        """The kind of target that the loss is for."""
        return target_of(self.loss)

    def per_position(self, labels: Tensor, *, positions: int | None, labelled: int | None) -> LossSpec:
        """The same with the weights of one position, for sums: divided by how many the whole batch has, with a label
        (`labelled`) and in all (`positions`); where not given, those of `labels` (N, ...).
        """
        if labelled is None:
            labelled = count_labelled(labels, self.target) if self.hard_weight > 0 else 0
        hard_weight = self.hard_weight / max(labelled, 1)
        soft_weight = self.soft_weight / max(len(labels) if positions is None else positions, 1)
        return replace(self, hard_weight=hard_weight, soft_weight=soft_weight)


def target_of(loss: str) -> Target:
    """The kind of target that a loss is for. Raises ConfigError for a name of none."""
    for target, names in LOSS_NAMES.items():
        if loss in names:
            return target
    known = ", ".join(name for names in LOSS_NAMES.values() for name in names)
    raise ConfigError(f"there is no loss {loss!r}", remedy=f"choose one of {known}")


def require_served(loss: str, target: Target, classes: int | None = None) -> None:
    """Raise ConfigError, naming the losses that can be had, where labels of the kind `target`, of so many classes or values
    where that is known, cannot serve a loss.
    """
    of = target_of(loss)
    if of != target:
        raise ConfigError(
            f"the loss {loss} is for labels of kind {of}, and these are of kind {target}",
            remedy=f"use loss={' or '.join(LOSS_NAMES[target])}",
        )
    if loss == "cosine" and classes == 1:
        raise ConfigError(
            "the loss cosine of one value depends only on its sign, and has no gradient", remedy="use loss=mse or huber"
        )


def require_meaning(loss: str, **given: bool) -> None:
    """Raise ConfigError where an option that is `given` means nothing for a loss: of values none does; and what standardising
    takes from logits, a constant and a scale, is no matter of indifference to a sigmoid.
    """
    target = target_of(loss)
    meaningless = {"softmax": (), "sigmoid": ("logit_standardization",), "values": tuple(given)}[target]
    names = ", ".join(name for name in meaningless if given.get(name))
    if names:
        raise ConfigError(
            f"labels of kind {target} have no use for {names} (loss {loss})",
            remedy=f"drop {names}",
        )
