"""Which students a run trains: one of each kind, setting and seed, all of them side by side over one pass of the rows.

`--temperature=1,2,4 --seeds=0,1` makes six distilled students, and two with hard labels only to compare them with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Any, Literal, TypeVar

from softlabels.errors import ConfigError
from softlabels.student.config import DEFAULT_ALPHA, DEFAULT_TEMPERATURE, LoopConfig, TrainingConfig
from softlabels.student.loss_spec import target_of
from softlabels.student.schedule import Setting
from softlabels.student.target_config import WEIGHTS

Divide = Literal["auto", "batches", "students"]
AXES = ("temperature", "alpha", "loss")
T = TypeVar("T")


@dataclass(frozen=True)
class StudentTraining(LoopConfig):
    """Which students are trained, and how.

    Attributes:
        temperature: T > 0 of the soft term: a number, a schedule over the steps such as linear:20:4 or cosine:20:4, or a list
            of these (one student for each).
        alpha: short for soft_weight = alpha and hard_weight = 1 - alpha: a number, a schedule, or a list of these; 0.9 by
            default.
        hard_weight: weight of the hard labels' term, a number or a schedule; given together with soft_weight, without alpha.
        soft_weight: weight of the soft term.
        loss: the soft term, or a list: forward_kl, reverse_kl, js, soft_ce, logit_mse, dkd, nkd, dist; for flags (sigmoid) bce;
            for values mse, huber, cosine. forward_kl means bce for flags and mse for values. The hard student of values takes
            the first.
        seeds: one student of each kind for every seed, which decides its first weights, dropout, and with hard_label_fraction
            the rows that keep their label.
        seed: decides, with the rows' keys, their order and which are held out; the same for all students.
        members: numbers of the teacher's members to learn from, such as 0,2; all by default.
        weights: the weights of the chosen members in the mean; by default those in the store.
        baseline: also train the same student with hard labels only, on the same rows in the same order.
        row_fraction: share of the training rows to use.
        only_classes: use only the training rows whose hard label is one of these numbers.
        divide: what several processes divide: batches (the rows of each), students (each process trains some of them on whole
            batches), or auto (students, if there are at least as many as processes). See docs/scaling.md.

    Example:
        >>> StudentTraining(temperature=(1.0, 4.0), alpha=0.9, epochs=20, seeds=(0, 1)).swept  # a student for each T and seed
        ('temperature',)
    """

    temperature: Setting | tuple[Setting, ...] = DEFAULT_TEMPERATURE
    alpha: Setting | tuple[Setting, ...] | None = None
    hard_weight: Setting | None = None
    soft_weight: Setting | None = None
    loss: str | tuple[str, ...] = "forward_kl"
    seeds: tuple[int, ...] = (0,)
    seed: int = 0
    members: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None
    baseline: bool = True
    row_fraction: float = 1.0
    only_classes: tuple[int, ...] | None = None
    divide: Divide = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(
                f"seeds are {list(self.seeds)}", remedy="give distinct whole numbers >= 0, as --seeds=0,1,2"
            )
        if not 0 < self.row_fraction <= 1:
            raise ConfigError(f"row_fraction must lie in (0, 1], not {self.row_fraction}", remedy="give such a share")
        if self.seed < 0:
            raise ConfigError(f"seed must be >= 0, not {self.seed}", remedy="give a whole number >= 0")
        for axis in AXES:
            values = _values(getattr(self, axis))
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{axis} is {list(values)}", remedy="give one value, or distinct ones")
            if len(values) == 1:  # a list of one is that one: the same run however it is written
                object.__setattr__(self, axis, values[0])
        for variant in self.variants:
            self.of(variant, self.seeds[0])  # raises what is wrong with it

    @property
    def swept(self) -> tuple[str, ...]:
        """The settings that have several values."""
        return tuple(axis for axis in AXES if len(_values(getattr(self, axis))) > 1)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The distilled students of one seed, in the order of the given values."""
        axes = [_values(getattr(self, axis)) for axis in AXES]
        return tuple(
            Variant("distilled", dict(zip(AXES, values, strict=True)), self.swept) for values in product(*axes)
        )

    def of(self, variant: Variant, seed: int) -> TrainingConfig:
        """The training of one student."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(LoopConfig)}
        if variant.kind == "hard":  # its temperature is that of the KL it is measured with
            first = self.variants[0].values
            values["targets"] = {
                name: {key: value for key, value in (entry or {}).items() if key not in WEIGHTS}
                for name, entry in self.targets.items()
            }
            if target_of(first["loss"]) != "softmax":  # of which no loss but the cross-entropy is a hard label's
                values["loss"] = first["loss"]
            return TrainingConfig(
                **values, temperature=first["temperature"], hard_weight=1.0, soft_weight=0.0, seed=seed
            )
        values |= variant.values | {"hard_weight": self.hard_weight, "soft_weight": self.soft_weight}
        return TrainingConfig(**values, seed=seed)

    def settings(self, variant: Variant) -> dict[str, Any]:
        """A variant's settings in the results: for a distilled one T (if it has one), alpha (or both weights) and loss."""
        if variant.kind == "hard":
            return {}
        given = dict(variant.values)
        if target_of(given["loss"]) == "values":
            del given["temperature"]
        if self.hard_weight is not None:
            del given["alpha"]
            return given | {"hard_weight": self.hard_weight, "soft_weight": self.soft_weight}
        return given | {"alpha": DEFAULT_ALPHA if given["alpha"] is None else given["alpha"]}


@dataclass(frozen=True)
class Variant:
    """A kind of student: "hard" for hard labels only, "distilled" with its value on each axis."""

    kind: str
    values: dict[str, Any]
    swept: tuple[str, ...]

    @property
    def label(self) -> str:
        """As tables name it: `distilled`, `distilled, T=4, alpha=0.5`."""
        return ", ".join([self.kind, *self._parts()])

    def folder(self, seed: int) -> str:
        """Name of its folder in the run: `distilled-seed0`, `distilled-T=4-seed0`."""
        return "-".join([self.kind, *self._parts(), f"seed{seed}"]).replace(":", "_")

    def _parts(self) -> list[str]:
        names = {"temperature": "T=", "alpha": "alpha=", "loss": ""}
        shown = {axis: self.values[axis] for axis in self.swept if axis in self.values}
        return [names[axis] + (value if isinstance(value, str) else f"{value:g}") for axis, value in shown.items()]


HARD = Variant("hard", {}, ())


def _values(given: T | tuple[T, ...]) -> tuple[T, ...]:
    """One value, or those of a list."""
    return given if isinstance(given, tuple) else (given,)
