"""How a student meets each of a store's targets: by which of its outputs, with which loss, and with which weight. No torch at
import.

Code that trains looks at one target at a time, by a config that knows of no other: `heads_of`. What `training.targets` leaves
open follows from the other settings and the kind of the target: `resolved`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from softlabels.errors import ConfigError, SoftLabelsError, some
from softlabels.labels.targets import Target
from softlabels.student.config import DEFAULT_ALPHA, DEFAULT_TEMPERATURE, TrainingConfig
from softlabels.student.loss_spec import LOSS_NAMES, require_served, target_of
from softlabels.student.target_config import SECTION, WEIGHTS, TargetConfig, target_configs

USUAL: Mapping[Target, str] = {target: names[0] for target, names in LOSS_NAMES.items()}


@dataclass(frozen=True)
class Head:
    """One target as a student meets it.

    Attributes:
        name: of the target, "" of one without a name.
        output: the name of the student's output, "" where it gives one tensor alone.
        weight: of the target's loss in the sum.
        config: how it is taught, as if it were the only one.
    """

    name: str
    output: str
    weight: float
    config: TrainingConfig

    @property
    def target(self) -> Target:
        """Its kind."""
        return target_of(self.config.loss)


def head_settings(head: Head) -> dict[str, Any]:
    """What results say of how a target was taught: T (if it has one), alpha (or both weights), loss, and its weight."""
    config = head.config
    found: dict[str, Any] = {"temperature": config.temperature} if config.has_temperature else {}
    if config.hard_weight is not None:
        found |= {"hard_weight": config.hard_weight, "soft_weight": config.soft_weight}
    else:
        found["alpha"] = DEFAULT_ALPHA if config.alpha is None else config.alpha
    return {**found, "loss": config.loss, "weight": head.weight}


@contextmanager
def naming_target(name: str) -> Iterator[None]:
    """Let errors name the target that they are about, where it has a name."""
    try:
        yield
    except SoftLabelsError as error:
        if not name:
            raise
        raise type(error)(f"target {name}: {error.what}", remedy=error.remedy) from error


def heads_of(config: TrainingConfig) -> dict[str, Head]:
    """The targets of a config by name; of one that names none a target without a name.

    Raises:
        ConfigError: settings that mean nothing for a target, or a config that nobody has `resolved`.
    """
    if not config.targets:
        return {"": Head("", "", 1.0, config)}
    found = {}
    for name, entry in target_configs(config.targets).items():
        with naming_target(name):
            if "loss" not in entry.given:
                raise ConfigError(
                    f"{SECTION}.{name} has no loss, and the kind of its labels is not known",
                    remedy="name the loss, or train from a store by `softlabels.train`",
                )
            own = dataclasses.replace(config, targets={}, **entry.given)
        found[name] = Head(name, entry.output or name, entry.weight, own)
    return {name: head for name, head in found.items() if head.weight > 0}


def resolved(config: TrainingConfig, kinds: Mapping[str, Target]) -> TrainingConfig:
    """The config with a whole entry for each of these targets, whose kinds are given by name; those left out have none.

    Where an entry says nothing of the loss, the target has the config's own if that is of its kind, else the first of its kind;
    other settings are the config's where they mean something for the kind (class weights: for distributions).

    Raises:
        ConfigError: entries of other targets, or that leave all out; a loss that cannot be had of a target.
    """
    if {*kinds} == {""}:
        if config.targets:
            raise ConfigError(
                f"{SECTION} names {some(config.targets)}, and the labels are of one target without a name",
                remedy=f"drop {SECTION}, and give its settings in training",
            )
        return config
    given = target_configs(config.targets)
    if strangers := [name for name in given if name not in kinds]:
        raise ConfigError(f"{SECTION} names {some(strangers)}, and the targets are {some(kinds)}", remedy="name these")
    entries = {name: given.get(name, TargetConfig()) for name in kinds}
    taught = {name: kinds[name] for name, entry in entries.items() if entry.weight > 0}
    if not taught:
        raise ConfigError(f"{SECTION} leaves all of {some(kinds)} out by weight 0", remedy="give one a weight above 0")
    if config.loss != USUAL["softmax"] and target_of(config.loss) not in taught.values():
        for kind in taught.values():
            require_served(config.loss, kind)
    full = {name: _full(config, entries[name], kind, name) for name, kind in taught.items()}
    found = dataclasses.replace(config, targets=full)
    heads_of(found)
    return found


def with_class_weights(config: TrainingConfig, weights: Mapping[str, tuple[float, ...] | None]) -> TrainingConfig:
    """The config with these weights of classes, by target."""
    if not config.targets:
        return dataclasses.replace(config, class_weights=weights[""])
    targets = {
        name: {**entry, "class_weights": None if (own := weights.get(name)) is None else list(own)}
        for name, entry in config.targets.items()
    }
    return dataclasses.replace(config, class_weights=None, targets=targets)


def _full(config: TrainingConfig, entry: TargetConfig, kind: Target, name: str) -> dict[str, Any]:
    """An entry that leaves nothing open."""
    own = entry.given
    loss = own.get("loss", config.loss if target_of(config.loss) == kind else USUAL[kind])
    with naming_target(name):
        require_served(loss, kind)
    values: dict[str, Any] = {
        "loss": loss,
        "loss_args": config.loss_args if loss == config.loss else {},
        "temperature": DEFAULT_TEMPERATURE if kind == "values" else config.temperature,
        "mean": "arithmetic" if kind == "values" else config.mean,
        "logit_standardization": config.logit_standardization and kind == "softmax",
        "class_weights": config.class_weights if kind == "softmax" else None,
    }
    taken = dict.fromkeys(WEIGHTS) if own.keys() & {*WEIGHTS} else {each: getattr(config, each) for each in WEIGHTS}
    values |= taken | own | {"weight": entry.weight, "output": entry.output or name}
    return dict(msgspec.to_builtins(values))
