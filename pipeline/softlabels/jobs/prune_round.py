"""One round of pruning, of all students of a run side by side: what is deleted, and how the rest is retrained.

`rounds/N` of the run's folder is a training run with, beside it, round.json and a file masks.safetensors a student: what the
round deleted. They are written before it trains. Whoever goes on takes them from there, and so never chooses twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from softlabels.errors import DamagedRun
from softlabels.jobs.prune_again import Before
from softlabels.jobs.run_files import read_object
from softlabels.jobs.splits import Split, all_batches
from softlabels.jobs.students import require_losses, student_config
from softlabels.jobs.watch import TimeLeft, Watch
from softlabels.models import ModelConfig, build_model
from softlabels.models.device import resolve_device
from softlabels.stream import Loader
from softlabels.student.config import TrainingConfig
from softlabels.student.deletion import best_units, count_of, least_weights, magnitudes, widths
from softlabels.student.learner import Learner, Student
from softlabels.student.masks import FILE, Masks, read_masks
from softlabels.student.metrics import Scores
from softlabels.student.pruning import Pruning
from softlabels.student.saliency import Saliency, saliency
from softlabels.student.seeding import deterministic
from softlabels.student.split import chosen_rows, labelled_rows
from softlabels.student.sweep import HARD, StudentTraining, Variant
from softlabels.student.trainer import WEIGHTS, Trainer
from softlabels.student.units import Chain, sizes_of, units_masks
from softlabels.student.validation import validate
from softlabels.system.local import LocalFolder

FACTS = "round.json"


@dataclass(frozen=True)
class Origin:
    """A trained student of the run that is pruned."""

    variant: Variant
    seed: int
    weights: Path

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.variant.folder(self.seed)


@dataclass(frozen=True)
class Settled:
    """What a round came to, by the names of the students: models, their validation scores, masks; and what round.json says."""

    models: Mapping[str, nn.Module]
    scores: Mapping[str, Scores]
    masks: Mapping[str, Masks]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Setup:
    """What all rounds share.

    Attributes:
        student: the class of the students. splits: of the store. batches, validation: to retrain on, and to judge epochs on.
        identity: JSON values that tell this run from others.
        chains: the hidden units that may go; none where single weights do.
        folder: the run's.
        before: what was pruned already of the students that it begins with; None where they are whole.
    """

    student: ModelConfig
    splits: Mapping[str, Split]
    training: StudentTraining
    how: Pruning
    origins: Sequence[Origin]
    batches: Loader
    validation: Loader | None
    identity: Mapping[str, object]
    chains: Sequence[Chain]
    folder: LocalFolder
    before: Before | None = None

    @property
    def device(self) -> torch.device:
        """Where students are trained."""
        return resolve_device(self.training.device)

    def home(self, number: int) -> LocalFolder:
        """The folder of a round."""
        return self.folder.within("rounds").within(str(number))

    def config(self, origin: Origin) -> TrainingConfig:
        """How a student is retrained."""
        variant = origin.variant
        if self.how.retrain == "hard":
            variant = HARD
        elif self.how.retrain == "stored" and variant.kind == HARD.kind:
            variant = self.training.variants[0]
        train, labelled = self.splits["train"], self._labelled(origin)
        return student_config(self.training, variant, origin.seed, train, self.batches, labelled)

    def begin(self, origin: Origin, weights: Path, masks: Masks | None = None) -> Student:
        """A student with these weights, or what the masks leave of them."""
        made = dataclasses.replace(self.student, weights=str(weights))
        config, labelled = self.config(origin), self._labelled(origin)
        student = Student.begin(origin.name, config, lambda: build_model(made), labelled=labelled, masks=masks)
        require_losses(student, self.splits, self.batches, self.validation)
        return student

    def _labelled(self, origin: Origin) -> Any:
        fraction = self.training.hard_label_fraction
        return None if fraction == 1 else labelled_rows(self.splits["train"].rows.keys, fraction, origin.seed)

    def sample(self) -> Loader:
        """The training rows over which saliencies are taken."""
        train, rows = self.splits["train"], self.batches.rows
        share = min(1.0, self.how.saliency_rows / len(rows))
        chosen = rows[chosen_rows(train.rows.keys[rows], share, self.training.seed)]
        return all_batches(train, self.training.batch_size, chosen)

    def loss(self, student: Student, batches: Loader) -> tuple[float, Scores]:
        """Loss and scores of a student over batches."""
        learner = Learner(student, device=self.device, total_steps=1, augment=None)
        return validate([learner], batches, self.device, step=0)[0]


def train_round(setup: Setup, number: int, before: Mapping[str, Path], watch: Watch) -> Settled:
    """Delete, and retrain what is left; `before`: the weights that the students begin with."""
    home = setup.home(number)
    with deterministic(setup.device, setup.training.threads):
        if not home.exists(FACTS):
            _delete(setup, number, before)
    facts, masks = _deleted(setup, home)
    left, total = facts["students"][setup.origins[0].name]["left"]
    watch.say(f"round {number} of {setup.how.rounds}: {left:,} of {total:,} parameters are left ({left / total:.1%})")
    students = [setup.begin(each, before[each.name], masks[each.name]) for each in setup.origins]
    identity = {**setup.identity, "round": number}
    trainer = Trainer(students, setup.batches, setup.validation, home, identity)
    results = trainer.run(watch.should_stop, TimeLeft(setup.training.epochs, watch.say))
    scores = {student.name: result.scores for student, result in zip(students, results, strict=True)}
    return Settled({student.name: student.model for student in students}, scores, masks, facts)


def weights_of(setup: Setup, number: int) -> dict[str, Path]:
    """The weights that round `number` ended with; 0: those of the run that is pruned."""
    if number == 0:
        return {each.name: each.weights for each in setup.origins}
    return {each.name: setup.home(number).within(each.name).at(WEIGHTS) for each in setup.origins}


def left_units(chains: Sequence[Chain], masks: Masks) -> list[Tensor]:
    """Which units (U,) bool of each chain masks leave."""
    return [masks.left[f"{chain.layer}.weight"].flatten(1).any(1) for chain in chains]


def parameters_left(setup: Setup, model: nn.Module, masks: Masks) -> dict[str, list[int]]:
    """Of each tensor that lost some how many parameters are left, and how many there were; "" is all of the model."""
    total, sizes = (
        count_of(model),
        sizes_of(model, setup.chains, [int(u.sum()) for u in left_units(setup.chains, masks)]),
    )
    found = {name: [int(mask.sum()), mask.numel()] for name, mask in masks.left.items()}
    gone = masks.count()
    for name, size in sizes.items():  # biases, and the scales of norms, of units that are gone
        for own, tensor in model.get_submodule(name).named_parameters():
            if tensor.ndim == 1:
                found[f"{name}.{own}"] = [size[-1], len(tensor)]
                gone += len(tensor) - size[-1]
    return {"": [total - gone, total], **{name: each for name, each in found.items() if each[0] < each[1]}}


def _delete(setup: Setup, number: int, before: Mapping[str, Path]) -> None:
    """Choose what goes, and write it down."""
    sample, home, before_it = setup.sample(), setup.home(number), setup.before or Before({}, 1.0)
    share = setup.how.share(number, before_it.left)
    students = {each.name: setup.begin(each, before[each.name]) for each in setup.origins}
    found = {name: _scores(setup, student, sample) for name, student in students.items()}
    was = _deleted(setup, setup.home(number - 1))[1] if number > 1 else before_it.masks
    masks = _masks(setup, students, found, share, was)
    facts = {}
    for origin in setup.origins:
        name = origin.name
        own, student = masks[name], students[name]
        whole = setup.loss(student, sample)[0]
        cut = setup.loss(setup.begin(origin, before[name], own), sample)[0]
        left = parameters_left(setup, student.model, own)[""]
        expected = {"expected": _expected(setup, found[name], own)} if setup.how.rule == "saliency" else {}
        facts[name] = {"left": left, "loss": whole, **expected, "measured": cut - whole}
        home.within(name).make()
        home.within(name).put(FILE, safetensors.torch.save(own.state()))
    home.put(FACTS, json.dumps({"share": share, "students": facts}, indent=1).encode())


def _scores(setup: Setup, student: Student, sample: Loader) -> Saliency:
    """The scores by the rule: saliencies, or magnitudes in their place."""
    if setup.how.rule == "saliency":
        return saliency(student, sample, setup.chains, device=setup.device)
    return Saliency(magnitudes(student.model), [chain.norms_of(student.model) for chain in setup.chains])


def _masks(
    setup: Setup,
    students: Mapping[str, Student],
    found: Mapping[str, Saliency],
    share: float,
    before: Mapping[str, Masks],
) -> dict[str, Masks]:
    """What is left of each student, of what the masks `before` have left."""
    model = next(iter(students.values())).model
    was = {name: before.get(name, Masks.whole(student.model)) for name, student in students.items()}
    if not setup.chains:
        count = count_of(model) - round(share * count_of(model))
        return {name: least_weights(found[name].weights, was[name], count) for name in students}
    width = widths(model, setup.chains, [each.units for each in found.values()], share)
    return {
        name: units_masks(
            student.model,
            setup.chains,
            best_units(found[name].units, width, left_units(setup.chains, was[name])),
        )
        for name, student in students.items()
    }


def _expected(setup: Setup, found: Saliency, masks: Masks) -> float:
    """By how much the loss should rise: the sum of the saliencies of what goes."""
    if setup.chains:
        pairs = zip(found.units, left_units(setup.chains, masks), strict=True)
        return sum(float(each[~left.to(each.device)].sum()) for each, left in pairs)
    return sum(
        float(found.weights[name][~mask.to(found.weights[name].device)].sum()) for name, mask in masks.left.items()
    )


def _deleted(setup: Setup, home: LocalFolder) -> tuple[dict[str, Any], dict[str, Masks]]:
    """What a round wrote down, and its masks. Raises DamagedRun where that is not what a round writes."""
    remedy = f"delete {setup.folder} and prune again"
    facts, masks, model = read_object(home, FACTS, remedy), {}, build_model(setup.student)
    try:
        for origin in setup.origins:
            left, total = facts["students"][origin.name]["left"]
            masks[origin.name] = read_masks(home.within(origin.name), model)
            if not 0 < left <= total:
                raise ValueError(f"{left} of {total} parameters are left")
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedRun(f"{home.at()} lacks what a round of pruning is made of: {error}", remedy=remedy) from None
    return facts, masks
