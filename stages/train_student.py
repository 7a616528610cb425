"""Train students from stored labels, no teacher in sight: distilled, and the same student with hard labels as well.

One student of each kind is trained for every seed; the best epoch is chosen on validation rows, and when all are
trained the test split is looked at once. The run folder holds a folder a student, config.yaml (a recipe that repeats the
run), results.json and results.md. The same command goes on where it was stopped, and shows a finished run again.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import ClassMismatch, ConfigError
from pipeline.labels.ensemble import check_mean
from pipeline.models import ModelConfig, build_model
from pipeline.models.device import resolve_device
from pipeline.report.comparison import comparison_text
from pipeline.store.digest import blake3_hex
from pipeline.stream import Loader
from pipeline.stream.join import Missing
from pipeline.student.config import TrainingConfig
from pipeline.student.metrics import Scores, evaluate_student, evaluate_teacher
from pipeline.student.seeding import seed_everything
from pipeline.student.trainer import Trainer
from pipeline.transfer import TransferSetConfig
from stages.recipe import parse, plain
from stages.run import command, program, should_stop
from stages.run_folder import RECIPE, RunFolder
from stages.splits import Split, all_batches, held_out_batches, open_splits, training_batches


@dataclass(frozen=True)
class StudentTraining(TrainingConfig):
    """How students are trained, and how many.

    Attributes:
        seeds: one student of each kind for every seed.
        seed: not used here: see seeds.
        baseline: train the same student with hard labels only as well, on the same rows in the same order.
    """

    seeds: tuple[int, ...] = (0,)
    baseline: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed:
            raise ConfigError(f"training.seed is {self.seed}; students have seeds", remedy=f"give --seeds={self.seed}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(
                f"seeds are {list(self.seeds)}", remedy="give distinct whole numbers >= 0, as --seeds=0,1,2"
            )

    def of(self, kind: str, seed: int) -> TrainingConfig:
        """How the student of one kind (distilled, hard) and seed is trained."""
        values = {item.name: getattr(self, item.name) for item in fields(TrainingConfig)}
        hard = {"alpha": None, "hard_weight": 1.0, "soft_weight": 0.0} if kind == "hard" else {}
        return TrainingConfig(**values | hard | {"seed": seed})


@dataclass(frozen=True)
class TrainStudent:
    """Arguments of train-student."""

    student: ModelConfig  # class of the student, a torch.nn.Module that gives one logit a class
    training: StudentTraining = field(default_factory=StudentTraining)
    name: str = "student"
    transfer_set: TransferSetConfig | None = None
    teacher: dict[str, Any] | None = None  # not used, nothing is imported for it; kept in config.yaml
    teacher_training: dict[str, Any] | None = None  # as teacher
    labels: dict[str, Any] | None = None  # as teacher
    store: str = "stores/digits"  # the store: a folder of splits (train, validation, test), or one of them
    missing: Missing = "error"  # rows that the store does not label: error, or skip to leave them out with a count
    out: str | None = None  # the run folder; by default runs/NAME-xxxxxxxx, another one for other settings


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print."""
    args = parse(argv, TrainStudent, stage="train-student", doc=__doc__, flat=("training",), positional=("store",))
    splits = open_splits(args.store, args.transfer_set, missing=args.missing)
    check_classes(args.student, splits)
    for split in splits.values():
        check_mean(args.training.mean, split.store.reduce)
    kinds = _kinds(args.training, splits)
    for kind in kinds:  # what is wrong with the settings shows before a folder is theirs
        _trainer(args, splits, args.training.of(kind, args.training.seeds[0]), Path(), kind)
    folder = RunFolder.open(args.out, name=args.name, identity=_identity(args, splits))
    folder.keep_recipe(_recipe(args))
    if folder.results is None:
        plan = [(kind, seed) for seed in args.training.seeds for kind in kinds]
        students: dict[str, list[nn.Module]] = {kind: [] for kind in kinds}
        for number, (kind, seed) in enumerate(plan, 1):
            print(f"[{number}/{len(plan)}] student, {kind}, seed {seed}", flush=True)
            students[kind].append(_train(args, splits, args.training.of(kind, seed), folder, kind))
        folder.finish(_judge(args.training, splits, students), store=args.store)
    print(f"\n{comparison_text(folder.results or {})}\n")
    again = f"{program()} train-student --config={folder.path / RECIPE} --store={args.store}"
    print(f"store {args.store}, run {folder.path}; try next: {again} --temperature={2 * args.training.temperature:g}")
    return 0


def check_classes(student: ModelConfig, splits: Mapping[str, Split]) -> None:
    """Raise ClassMismatch unless the student gives one logit for each of the stores' classes, for a real batch, and
    ConfigError where it cannot take that batch at all.
    """
    model = build_model(student).eval()
    for split in splits.values():
        batch = next(iter(all_batches(split, 2).epoch(0)))
        given = f"inputs of {batch.inputs.dtype} and shape {list(batch.inputs.shape)}"
        try:
            with torch.inference_mode():
                outputs = model(batch.inputs)
        except RuntimeError as error:  # what torch raises where shapes or dtypes do not fit
            what = f"{student.class_path} cannot take {given}: {error}"
            raise ConfigError(what, remedy="change student.init_args, or transfer_set.prepare") from error
        shape = list(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        if shape != [len(batch), split.store.classes]:
            raise ClassMismatch(
                f"{student.class_path} gives outputs of shape {shape} for {len(batch)} rows, and {split.store.path} has "
                f"{split.store.classes} classes",
                remedy="change student.init_args so that it gives one logit a class, or use another store",
            )


def _kinds(training: StudentTraining, splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Which students to train; without a hard label there is no baseline, and a line says so."""
    labelled = "train" not in splits or bool((np.asarray(splits["train"].rows.labels) >= 0).any())
    if training.baseline and not (labelled and training.hard_label_fraction > 0):
        print("no training row has a hard label: no baseline is trained", flush=True)
        return ("distilled",)
    return ("hard", "distilled") if training.baseline else ("distilled",)


def _trainer(
    args: TrainStudent, splits: Mapping[str, Split], config: TrainingConfig, path: Path, kind: str
) -> tuple[nn.Module, Trainer]:
    seed_everything(config.seed)
    model = build_model(args.student)
    train, validation = training_batches(splits, config)
    identity = {"student": plain(args.student), "stores": _digests(splits), "labels": _label_digests(splits)}
    return model, Trainer(model, config, train, validation, path / f"{kind}-seed{config.seed}", identity)


def _train(
    args: TrainStudent, splits: Mapping[str, Split], config: TrainingConfig, folder: RunFolder, kind: str
) -> nn.Module:
    """One student, trained to the end or taken as it was trained before."""
    model, trainer = _trainer(args, splits, config, folder.path, kind)
    result = trainer.run(should_stop)
    found = "" if result.best_validation is None else f", validation loss {result.best_validation:.4f}"
    print(f"      {result.steps} steps, best epoch {result.best_epoch} of {config.epochs}{found}", flush=True)
    return model


def _judge(
    training: StudentTraining, splits: Mapping[str, Split], students: Mapping[str, Sequence[nn.Module]]
) -> dict[str, Any]:
    """Scores of everyone on the held-out split: the one time that it is looked at."""
    temperatures, device = sorted({1.0, training.temperature}), resolve_device(training.device)
    batches: list[Loader] = []
    teacher: list[tuple[Scores, list[Scores]]] = []
    scores: dict[str, list[Scores]] = {kind: [] for kind in students}
    for number, seed in enumerate(training.seeds):
        split, loader = held_out_batches(splits, training.of("distilled", seed))
        if not batches or loader.order_digest != batches[0].order_digest:  # a cut validation split differs by seed
            batches.append(loader)
            teacher.append(evaluate_teacher(loader, temperatures=temperatures, mean=training.mean, device=device))
        for kind, models in students.items():
            scores[kind].append(
                evaluate_student(models[number], loader, temperatures=temperatures, mean=training.mean, device=device)
            )
    store = splits["train"].store
    names = member_names(store.spec.teacher.members, store.members)
    return {
        "split": split,
        "rows": len(batches[0].rows),
        "temperatures": temperatures,
        "seeds": list(training.seeds),
        "swept": [],
        "teacher": {
            "ensemble": [ensemble for ensemble, _ in teacher],
            "members": {name: [members[m] for _, members in teacher] for m, name in enumerate(names)},
        },
        "students": [
            {"label": kind, "kind": kind, "settings": _settings(training, kind), "scores": scores[kind]}
            for kind in scores
        ],
    }


def _settings(training: StudentTraining, kind: str) -> dict[str, Any]:
    """What tells one distilled student from another."""
    if kind == "hard":
        return {}
    return {"temperature": training.temperature, "alpha": training.weights[1], "loss": training.loss}


def member_names(members: Sequence[Any], stored: int) -> list[str]:
    """A short name for each stored member: its number and its class, or its mean where the store keeps only that."""
    if stored != len(members):
        return ["mean of members"]
    return [f"{number}: {member.model.rpartition('.')[2]}" for number, member in enumerate(members)]


def _digests(splits: Mapping[str, Split]) -> dict[str, str]:
    return {name: split.store.digest for name, split in splits.items()}


def _label_digests(splits: Mapping[str, Split]) -> dict[str, str]:
    """The hard labels are the rows' own: a content key says nothing of them."""
    return {name: blake3_hex(np.asarray(split.rows.labels)) for name, split in splits.items()}


def _identity(args: TrainStudent, splits: Mapping[str, Split]) -> dict[str, Any]:
    """What makes this run another one than those with other settings or labels."""
    sections = {"student": args.student, "training": args.training, "transfer_set": args.transfer_set}
    return {
        **{name: plain(section) for name, section in sections.items()},
        "stores": _digests(splits),
        "labels": _label_digests(splits),
        "missing": args.missing,
    }


def _recipe(args: TrainStudent) -> dict[str, Any]:
    """The sections of the recipe as this run used them."""
    options = ("store", "out", "missing")
    values = {item.name: plain(getattr(args, item.name)) for item in dataclasses.fields(args)}
    return {name: value for name, value in values.items() if name not in options and value is not None}


if __name__ == "__main__":
    sys.exit(main())
