"""`train`: students of a sweep from stored labels, no teacher in sight. R rows, C classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from softlabels.jobs.judge import Judged, digests, judge_run
from softlabels.jobs.possible import require_possible
from softlabels.jobs.run_folder import RunFolder
from softlabels.jobs.run_report import draw, in_order
from softlabels.jobs.sources import SEVERAL, Labels, Source, of_several
from softlabels.jobs.splits import (
    Split,
    all_batches,
    held_out_batches,
    open_splits,
    say_how_splits_relate,
    say_what_labels_are,
    training_batches,
    training_split,
)
from softlabels.jobs.student_fit import fitted
from softlabels.jobs.students import labelled_targets, require_losses, student_config, student_heads
from softlabels.jobs.watch import LOGGED, TimeLeft, Watch, counted
from softlabels.models import ModelConfig, build_model, weights_digest
from softlabels.models.build import untrained
from softlabels.names import as_before
from softlabels.objects import plain
from softlabels.report.measures import Results
from softlabels.report.model_card import model_card
from softlabels.store import Store
from softlabels.store.digest import blake3_hex
from softlabels.store.joined import Joined
from softlabels.store.key_index import Missing
from softlabels.stream import EmbeddedRows, Loader
from softlabels.student.config import deciding
from softlabels.student.divided import are_students_divided, of_batch_norm, require_divisible
from softlabels.student.learner import Student
from softlabels.student.memory import keep_freed_memory
from softlabels.student.metrics import Scores
from softlabels.student.ranks import ALONE, Ranks
from softlabels.student.seeding import seed_everything
from softlabels.student.split import labelled_rows
from softlabels.student.sweep import HARD, StudentTraining, Variant
from softlabels.student.trainer import Trainer
from softlabels.student.trial import require_trainable
from softlabels.transfer import TransferSetConfig

CARD = "README.md"
_SECTIONS = ("name", "transfer_set", "pinned", "student", "training")  # of a recipe


class Run(NamedTuple):
    """A finished run: its folder, and what its results.json holds (docs/runs.md): the scores of teacher and students."""

    path: Path
    results: Results


def train(
    student: ModelConfig,
    store: Labels,
    training: StudentTraining | None = None,
    *,
    transfer_set: TransferSetConfig | None = None,
    missing: Missing = "error",
    name: str = "student",
    out: str | Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    begun: Callable[[RunFolder], object] = lambda folder: None,
    watch: Watch = LOGGED,
    ranks: Ranks = ALONE,
) -> Run:
    """Train students from the stores of a transfer set's splits, distilled and with hard labels only, and judge them once.

    The same call resumes a stopped run, and reads the results of a finished one.

    Args:
        student: the class of the students. It gives one logit per class (or number per value): (B, C), for rows of positions
            (B, P, C); for several targets a mapping of these by name.
        store: a folder of splits with a split train, or that split; or a list of these, from different teachers over the same
            rows, read as one ensemble as `merge` would write it; or a `Source`, with options and pins.
        training: which students, and how they are trained; by default as `StudentTraining` says.
        transfer_set: the source of the students' inputs; not needed for a store that embeds its inputs.
        missing: rows that the store, or one of several, does not label: "error", or "skip" to leave them out with a warning.
        name: of the run. out: its folder; by default runs/NAME-xxxxxxxx, different for different settings.
        recipe: the content of its config.yaml, which repeats the run; by default these arguments.
        begun: called with the folder after all checks, before anything is trained.
        watch: gets the messages, and is asked whether to stop.
        ranks: the processes that make this call together (`softlabels.student.distributed.ranks_here`). Rank 0 writes, gets the
            messages, judges and returns the results; the others return empty ones.

    Raises:
        ConfigError, ClassMismatch, LogitsError, UnlabelledRows: settings, student and stores that do not fit together.
            SpecMismatch, NotSigned: splits that are not the pinned ones.
        RunExists: `out` holds another run. Interrupted: `watch` asked to stop. DiskFull, StorageError, DamagedStore.

    Example:
        >>> mlp = ModelConfig("softlabels.models.MLP", {"inputs": 6, "hidden": [16], "classes": 5})
        >>> run = train(mlp, "stores/noise", StudentTraining(temperature=(1.0, 4.0), epochs=2, threads=1))
        >>> [student["label"] for student in run.results["students"]]
        ['hard', 'distilled, T=1', 'distilled, T=4']
    """
    training = StudentTraining() if training is None else training
    watch = watch if ranks.rank == 0 else dataclasses.replace(watch, say=_nothing, warn=_nothing)
    source = Source.of(store)
    splits = open_splits(source, transfer_set, missing=missing, training=training, watch=watch)
    sweep = _begin(
        student, training, splits, transfer_set, {"missing": missing} | of_several(source), name, out, watch, ranks
    )
    folder = sweep.folder
    is_finished = ranks.broadcast(folder is not None and folder.results is not None)
    if folder is None:
        return sweep.train_along(is_finished, watch)
    shared = {} if is_finished else _say_of_rows(sweep.splits, sweep.batches, watch)
    recipe = recipe or _recipe(name, transfer_set, source.pinned, student, training)
    folder.keep_recipe(recipe)
    begun(folder)
    return Run(folder.path, folder.results or sweep.finish(shared, recipe, source, watch))


def _recipe(*given: Any) -> dict[str, Any]:
    return {key: plain(each) for key, each in zip(_SECTIONS, given, strict=True) if each is not None}


class _Sweep(NamedTuple):
    """The students of a run; all that may be wrong with them was asked."""

    training: StudentTraining
    splits: dict[str, Split]
    variants: Sequence[Variant]
    students: Sequence[Student]
    batches: Loader
    trainer: Trainer
    path: Path
    folder: RunFolder | None  # None of a rank that writes nothing

    def train_along(self, is_finished: bool, watch: Watch) -> Run:
        """What a rank does that writes nothing."""
        if not is_finished:
            self.trainer.run(watch.should_stop)
        return Run(self.path, {})

    def finish(self, shared: Mapping[str, int], recipe: Mapping[str, Any], source: Source, watch: Watch) -> Results:
        """Train, judge, and write what the run's folder says of it."""
        assert self.folder is not None
        students, splits = self.students, self.splits
        scores = _train(self.trainer, students, self.training.epochs, watch)
        judged, count = [], len(self.training.seeds)  # the seeds of a variant stand together
        for number, variant in enumerate(self.variants):
            at = slice(number * count, (number + 1) * count)
            models = [student.model for student in students[at]]
            judged.append(Judged(variant, models, scores[at]))
        trained = self.batches.by_chunks() if self.trainer.is_of_before else self.batches
        results = judge_run(self.training, splits, judged, shared) | {"order": trained.order}
        results |= of_several(source, splits["train"].missing)
        names, run = in_order(each.name for each in students), self.folder.folder
        card = model_card(
            results | {"store": source.said},
            recipe,
            stores={split: each.store.manifest for split, each in splits.items()},
            parameters=sum(parameter.numel() for parameter in students[0].model.parameters()),
            prepare=splits["train"].prepare,
            folders=names,
            pictures=draw(run, names, results, watch),
            inputs=splits["train"].input_shape,
        )
        run.put(CARD, card.encode())
        return self.folder.finish(results, store=source.said)


def _begin(
    student: ModelConfig,
    training: StudentTraining,
    splits: dict[str, Split],
    transfer_set: TransferSetConfig | None,
    which: Mapping[str, Any],
    name: str,
    out: str | Path | None,
    watch: Watch,
    ranks: Ranks,
) -> _Sweep:
    given, (training, splits) = training, fitted(student, splits, training)
    held_out_batches(splits, training)  # now, and not when all students are trained
    variants = variants_of(training, training_split(splits), watch)
    by_students = are_students_divided(
        training.divide, len(variants) * len(training.seeds), ranks.world, shard=training.shard
    )
    if ranks.world > 1:
        share = "some of the students" if by_students else "its part of every batch"
        watch.say(f"{ranks.world} processes, each with {share}")
    train, validation = training_batches(splits, training, ALONE.part if by_students else ranks.part)
    labels = {split: label_digests(each) for split, each in splits.items()}  # in no content key
    facts = {"student": plain(student), "stores": digests(splits), "labels": labels}
    identity = facts | {
        "training": deciding(plain(given)),
        "transfer_set": transfer_set and as_before("transfer_set", plain(transfer_set)),
        **which,
        **_prepared(transfer_set, splits),
        **_begun_from(student),
    }
    path = RunFolder.place(out, name=name, identity=identity)
    students = begun_students(student, training, splits["train"], variants, train)
    for each in students:
        require_losses(each, splits, train, validation)
    require_possible(students, splits["train"], train.rows)
    if validation is not None:
        require_possible(students, splits.get("validation", splits["train"]), validation.rows)
    if ranks.world > 1 and not by_students:
        require_divisible(students, rows=len(train.rows), batch_size=training.batch_size, world=ranks.world)
        if line := of_batch_norm(students, training.batch_size, ranks.world):
            watch.warn(line)
    chosen = {"members": training.members, "weights": training.weights}
    facts |= {setting: list(value) for setting, value in chosen.items() if value is not None}
    facts |= {setting: value for setting, value in which.items() if setting == SEVERAL}
    before = (train.by_chunks(), None if validation is None else validation.by_chunks())
    how: dict[str, Any] = {"ranks": ranks, "by_students": by_students, "tracker": watch.tracker}
    trainer = Trainer(students, train, validation, path, facts, before=before, **how)
    folder = None
    if ranks.rank == 0:  # after what may be wrong with the settings
        folder = RunFolder.open(out, name=name, identity=identity, order=train.order)
    return _Sweep(training, splits, variants, students, train, trainer, path, folder)


def _nothing(line: str) -> None:
    """Of all but one process no line is shown."""


def _say_of_rows(splits: Mapping[str, Split], batches: Loader, watch: Watch) -> dict[str, int]:
    """Say what is known of rows and labels before anything is trained; which rows splits share."""
    say_what_labels_are(splits, watch)
    rows, own = {split: each.rows for split, each in splits.items()}, splits["train"].store
    names = own.class_names if own.targets == ("",) else None
    shared = say_how_splits_relate(rows, names, watch, tokens=own.spec.of_tokens)
    say_how_labels_are_read(batches, own, watch)
    return shared


def say_how_labels_are_read(batches: Loader, store: Store, watch: Watch) -> None:
    """Say so if the store has its rows in another order than the transfer set, which makes reading slow."""
    for one, each in store.scattered() if isinstance(store, Joined) else ():
        watch.say(
            f"the rows of {one.path} are in a very different order from those of the first store: every epoch reads about "
            f"{each:.1f} times its labels; to read them once, make one store of all (`softlabels merge`)"
        )
    times = batches.times_read()
    if times <= 1:
        return
    often = f"every epoch reads about {times:.1f} times its labels; to read them once,"
    if repeats := batches.repeats():
        watch.say(
            f"{repeats:,} of {len(batches.rows):,} rows to train on repeat the key of an earlier one and have its labels, "
            f"wherever these stand in {store.path}: {often} label each row once"
        )
    else:
        watch.say(
            f"the rows of {store.path} are in a different order from those of the transfer set: {often} label the transfer set "
            "as it is ordered now"
        )


def variants_of(training: StudentTraining, train: Split, watch: Watch) -> tuple[Variant, ...]:
    """Which students to train, and a line about those that are not: a baseline without a hard label, and beside a baseline
    students that learn from hard labels alone as it does.
    """
    if not training.baseline:
        return training.variants
    if not (labelled_targets(train) and training.hard_label_fraction > 0):
        watch.say("no training row has a hard label: no baseline is trained")
        return training.variants
    heads = {variant.label: student_heads(training, variant, train).values() for variant in training.variants}
    soft = [variant for variant in training.variants if any(head.config.is_soft for head in heads[variant.label])]
    if len(soft) < len(training.variants):
        watch.say("alpha=0 (soft_weight=0) learns from hard labels alone: that student is trained once, as hard")
    return (HARD, *soft)


def begun_students(
    model: ModelConfig, training: StudentTraining, train: Split, variants: Sequence[Variant], batches: Loader
) -> list[Student]:
    """Every student of the run; the seeds of a variant stand together."""
    require_trainable(
        build_model(model),
        next(iter(all_batches(train, 2).epoch(0))).inputs,
        who=model.class_path,
        section="student",
        rows=len(batches.rows),
        batch_size=training.batch_size,
        micro_batch=training.micro_batch,
    )
    fraction = training.hard_label_fraction
    labelled = {
        seed: None if fraction == 1 else labelled_rows(train.rows.keys, fraction, seed) for seed in training.seeds
    }
    return [
        Student.begin(
            variant.folder(seed),
            student_config(training, variant, seed, train, batches, labelled[seed]),
            lambda: build_model(model),
            labelled=labelled[seed],
        )
        for variant in variants
        for seed in training.seeds
    ]


def label_digests(split: Split) -> str | dict[str, str]:
    """Of the hard labels of each target that students are taught."""
    found = {name: blake3_hex(np.ascontiguousarray(each.rows.hard[""])) for name, each in split.each.items()}
    return found[""] if {*found} == {""} else found


def _train(trainer: Trainer, students: Sequence[Student], epochs: int, watch: Watch) -> list[Scores]:
    """Train all students to the end, saying how long it will take, and what was kept of each: validation scores."""
    names = ", ".join(student.name for student in students)
    watch.say(f"{counted(len(students), 'student')} side by side: {names}")
    keep_freed_memory()
    results = trainer.run(watch.should_stop, TimeLeft(epochs, watch.say))
    for student, result in zip(students, results, strict=True):
        found = "" if result.kept_validation is None else f", validation loss {result.kept_validation:.4f}"
        watch.say(f"  {student.name}: {result.steps} steps, epoch {result.kept_epoch} of {epochs} kept{found}")
    return [result.scores for result in results]


def _begun_from(student: ModelConfig) -> dict[str, str]:
    """The digest of the weights that students begin with, where a file or a checkpoint gives them: its path says nothing."""
    seed_everything(0)  # a new head on a checkpoint is drawn at random
    model = build_model(student)
    lacking = untrained(model)
    is_given = student.weights is not None or (lacking is not None and not {*lacking} >= {*model.state_dict()})
    return {"begun_from": weights_digest(model)} if is_given else {}


def _prepared(transfer_set: TransferSetConfig | None, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Digests of the files that the prepare function reads, if any: the recipe has their paths, which stay when they change."""
    split = next(iter(splits.values()))
    named = None if isinstance(split.rows, EmbeddedRows) or transfer_set is None else transfer_set.prepare
    return {} if named in (None, split.prepare) else {"prepare": plain(split.prepare)}
