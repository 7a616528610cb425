"""Train students from stored labels, no teacher in sight: distilled, and the same student with hard labels as well.

One student of each kind is trained for every seed, and for every value where temperature, alpha or loss are lists; all of
them side by side over one pass of the rows. The best epoch is chosen on validation rows, and when all are trained the test
split is looked at once. The run folder holds a folder a student, config.yaml (a recipe that repeats the run), results.json
and results.md. The same command goes on where it was stopped, and shows a finished run again.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import ConfigError
from softlabels.labels import NO_LABEL
from softlabels.models import ModelConfig, build_model, weights_digest
from softlabels.models.build import untrained
from softlabels.report.comparison import Results, best_seed, best_student, comparison_text
from softlabels.store.digest import blake3_hex
from softlabels.stream import EmbeddedRows, Loader
from softlabels.student.class_weights import resolved
from softlabels.student.config import deciding, require_temperatures
from softlabels.student.learner import Student
from softlabels.student.losses import require_loss
from softlabels.student.memory import keep_freed_memory
from softlabels.student.metrics import Scores
from softlabels.student.seeding import seed_everything
from softlabels.student.split import labelled_rows
from softlabels.student.trainer import Trainer
from softlabels.student.trial import require_trainable
from softlabels.transfer.config import identifying
from softlabels_stages.arguments import TrainStudent
from softlabels_stages.judge import Judged, digests, judge
from softlabels_stages.possible import require_possible
from softlabels_stages.progress import TimeLeft
from softlabels_stages.recipe import parse, plain
from softlabels_stages.rows import say_how_splits_relate
from softlabels_stages.run import command, should_stop, suggested
from softlabels_stages.run_folder import RunFolder
from softlabels_stages.run_report import write_report
from softlabels_stages.splits import (
    Split,
    all_batches,
    check_classes,
    open_splits,
    say_what_labels_are,
    training_batches,
    with_members,
)
from softlabels_stages.sweep import HARD, StudentTraining, Variant
from softlabels_stages.trust import RECIPE
from softlabels_stages.words import counted


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print."""
    args = parse(argv, TrainStudent, stage="train-student", doc=__doc__, flat=("training",), positional=("store",))
    splits = open_splits(args.store, args.transfer_set, missing=args.missing)
    check_classes(args.student, splits)
    splits = with_members(splits, args.training)
    variants = _variants(args.training, splits)
    identity = _identity(args, splits)
    path = RunFolder.place(args.out, name=args.name, identity=identity)
    trainer, students = _trainer(args, splits, variants, path)
    folder = RunFolder.open(args.out, name=args.name, identity=identity)  # after what may be wrong with the settings
    if folder.results is None:
        say_what_labels_are(splits)
        train = splits["train"].store
        hard = (
            {} if train.positions is not None else {name: np.asarray(each.rows.labels) for name, each in splits.items()}
        )
        say_how_splits_relate(
            {name: each.rows.keys for name, each in splits.items()}, hard, train.spec.label_space.names
        )
    folder.keep_recipe(_recipe(args))
    if folder.results is None:
        validation = _train(trainer, students, args.training.epochs)
        results = judge(args.training, splits, _judged(args.training, variants, students, validation))
        write_report(
            folder.path,
            [student.name for student in students],
            results | {"store": args.store},
            _recipe(args),
            stores={name: split.store.manifest for name, split in splits.items()},
            parameters=sum(parameter.numel() for parameter in students[0].model.parameters()),
            prepare=splits["train"].prepare,
            inputs=splits["train"].input_shape,
        )
        folder.finish(results, store=args.store)
    print(f"\n{comparison_text(folder.results or {})}\n")
    print(f"store {args.store}, run {folder.path}; try next: {_next(args, folder)}")
    return 0


def _next(args: TrainStudent, run: RunFolder) -> str:
    """A command for whoever has just trained: a sweep; after a sweep, its best student by validation for others."""
    if args.training.swept:
        return suggested("export", run.path / _best(args.training, run.results or {}))
    words = (f"--config={run.path / RECIPE}", f"--store={args.store}", "--temperature=1,2,4,8,20")
    return suggested("train-student", *words)


def _best(training: StudentTraining, results: Results) -> str:
    """The folder of the best distilled student by validation errors; the first of all where they were not counted."""
    best = best_student(results)
    variant = next(variant for variant in training.variants if variant.label == best["label"])
    return variant.folder(training.seeds[best_seed(results, best)])


def _variants(training: StudentTraining, splits: Mapping[str, Split]) -> tuple[Variant, ...]:
    """Which students to train; without a hard label there is no baseline, and a line says so."""
    labelled = (
        "train" not in splits
        or splits["train"].store.positions is not None
        or bool((np.asarray(splits["train"].rows.labels) >= 0).any())
    )
    if training.baseline and not (labelled and training.hard_label_fraction > 0):
        print("no training row has a hard label: no baseline is trained", flush=True)
        return training.variants
    return (HARD, *training.variants) if training.baseline else training.variants


def _trainer(
    args: TrainStudent, splits: Mapping[str, Split], variants: Sequence[Variant], path: Path
) -> tuple[Trainer, list[Student]]:
    """Every student of the run, and what trains them; the seeds of a variant stand together."""
    train, validation = training_batches(splits, args.training)
    require_trainable(
        build_model(args.student),
        next(iter(all_batches(splits["train"], 2).epoch(0))).inputs,
        who=args.student.class_path,
        section="student",
        rows=len(train.rows),
        batch_size=args.training.batch_size,
        micro_batch=args.training.micro_batch,
    )
    keys, fraction = splits["train"].rows.keys, args.training.hard_label_fraction
    labelled = {seed: None if fraction == 1 else labelled_rows(keys, fraction, seed) for seed in args.training.seeds}
    weights = {seed: _class_weights(args, splits["train"], train, labelled[seed]) for seed in args.training.seeds}
    students = [
        Student.begin(
            variant.folder(seed),
            dataclasses.replace(args.training.of(variant, seed), class_weights=weights[seed]),
            lambda: build_model(args.student),
            labelled=labelled[seed],
        )
        for variant in variants
        for seed in args.training.seeds
    ]
    for student in students:
        _require_loss(student, splits, train, validation)
    require_possible(students, splits["train"], train.rows)
    if validation is not None:
        require_possible(students, splits.get("validation", splits["train"]), validation.rows)
    identity = {"student": plain(args.student), "stores": digests(splits), "labels": _label_digests(splits)}
    chosen = {"members": args.training.members, "weights": args.training.weights}
    identity |= {name: list(value) for name, value in chosen.items() if value is not None}
    return Trainer(students, train, validation, path, identity), students


def _class_weights(
    args: TrainStudent, train: Split, batches: Loader, labelled: np.ndarray | None
) -> tuple[float, ...] | None:
    """What rows of each class count, by the labels of the training rows that a student may use. Raises ConfigError."""
    if args.training.class_weights is not None and train.store.positions is not None:
        raise ConfigError(
            f"{train.store.path} labels rows of tokens, and class_weights are for rows of one class each",
            remedy="drop class_weights",
        )
    used = np.asarray(train.rows.labels)[batches.rows]
    if labelled is not None:
        used = np.where(labelled[batches.rows], used, NO_LABEL)
    return resolved(args.training.class_weights, used, train.store.classes)


def _require_loss(student: Student, splits: Mapping[str, Split], train: Loader, validation: Loader | None) -> None:
    """Refuse a loss that these rows, or this store, cannot serve."""
    config, rows = student.config, splits["train"].rows
    for split in splits.values():
        require_temperatures(split.store.encoding, config)
    if not config.is_soft:
        return
    has_tokens = splits["train"].store.positions is not None  # whose labels are their own next tokens
    without_label = np.zeros(len(rows.keys), bool) if has_tokens else np.asarray(rows.labels) < 0
    if student.labelled is not None:
        without_label |= ~student.labelled
    # Where the validation rows stand, with every label they have.
    judged = splits.get("validation", splits["train"]).rows
    unjudged = 0
    if validation is not None and not has_tokens:
        unjudged = int((np.asarray(judged.labels)[validation.rows] < 0).sum())
    require_loss(
        config.loss_at(0.0),
        label_free_rows=int(without_label[train.rows].sum()) + unjudged,
        micro_batch=config.micro_batch,
        reduce=splits["train"].store.reduce,
        classes=splits["train"].store.classes,
        tail=splits["train"].store.encoding.tail,
        class_weights=config.class_weights is not None,
    )


def _train(trainer: Trainer, students: Sequence[Student], epochs: int) -> list[Scores]:
    """Train all students to the end, saying how long it will take, and print what was kept of each: validation scores."""
    print(
        f"{counted(len(students), 'student')} side by side: {', '.join(student.name for student in students)}",
        flush=True,
    )
    keep_freed_memory()
    results = trainer.run(should_stop, TimeLeft(epochs))
    for student, result in zip(students, results, strict=True):
        found = "" if result.kept_validation is None else f", validation loss {result.kept_validation:.4f}"
        print(f"  {student.name}: {result.steps} steps, epoch {result.kept_epoch} of {epochs} kept{found}", flush=True)
    return [result.scores for result in results]


def _judged(
    training: StudentTraining, variants: Sequence[Variant], students: Sequence[Student], validation: Sequence[Scores]
) -> list[Judged]:
    """The trained students, those of a variant together."""
    seeds = len(training.seeds)
    return [
        Judged(
            variant.label,
            variant.kind,
            training.settings(variant),
            training.of(variant, 0).loss_at(1.0).temperature,
            [student.model for student in students[number * seeds : (number + 1) * seeds]],
            validation[number * seeds : (number + 1) * seeds],
        )
        for number, variant in enumerate(variants)
    ]


def _label_digests(splits: Mapping[str, Split]) -> dict[str, str]:
    """The hard labels are the rows' own: a content key says nothing of them."""
    return {name: blake3_hex(np.asarray(split.rows.labels)) for name, split in splits.items()}


def _identity(args: TrainStudent, splits: Mapping[str, Split]) -> dict[str, Any]:
    """What makes this run another one than those with other settings or labels."""
    return {
        "student": plain(args.student),
        "training": deciding(plain(args.training)),
        "transfer_set": identifying(None if args.transfer_set is None else plain(args.transfer_set)),
        "stores": digests(splits),
        "labels": _label_digests(splits),
        "missing": args.missing,
        **_prepared(args, splits),
        **_begun_from(args.student),
    }


def _begun_from(student: ModelConfig) -> dict[str, str]:
    """The digest of the weights that students begin with, where a file or a checkpoint gives them: its path says nothing."""
    seed_everything(0)  # a new head on a checkpoint is drawn at random
    model = build_model(student)
    lacking = untrained(model)
    is_given = student.weights is not None or (lacking is not None and not {*lacking} >= {*model.state_dict()})
    return {"begun_from": weights_digest(model)} if is_given else {}


def _prepared(args: TrainStudent, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Digests of the files that the prepare function reads, if any: the recipe has their paths, which stay when they change."""
    split = next(iter(splits.values()))
    named = None if isinstance(split.rows, EmbeddedRows) or args.transfer_set is None else args.transfer_set.prepare
    return {} if named in (None, split.prepare) else {"prepare": plain(split.prepare)}


def _recipe(args: TrainStudent) -> dict[str, Any]:
    """The sections of the recipe as this run used them."""
    options = ("store", "out", "missing")
    values = {item.name: plain(getattr(args, item.name)) for item in dataclasses.fields(args)}
    return {name: value for name, value in values.items() if name not in options and value is not None}


if __name__ == "__main__":
    sys.exit(main())
