"""Train the recipe's teachers from hard labels, where their weights are not there yet.

Each member of `teacher.members` is trained as `teacher_training` says, with its number added to the seed, on the training
split of the transfer set; the weights go to the member's `weights`. Where hard labels are of several targets, a member gives a
mapping of outputs by name. With `teacher.folds` there is one more a fold, trained alike (with the same seed) but without the
rows of the fold, so that each row is labelled by a model that never saw it. Estimators of scikit-learn are fitted, on all
rows, since no epoch is chosen: of `teacher_training` they take seed, threads and hard_label_fraction. A member whose file
exists, or whose class loads a whole checkpoint of its own, is left as it is. Language models learn the next tokens of their
rows. The tokenizer that the transfer set names is trained first, as the section `tokenizer` says, unless it is there. A
teacher that is trained already does not need this stage. At the end it prints the next command.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import ClassMismatch, ConfigError, some
from softlabels.jobs.fit_estimator import fit_estimator
from softlabels.jobs.splits import load_rows
from softlabels.jobs.watch import TimeLeft, Watch, counted
from softlabels.labels.hard import are_labelled, kind_of
from softlabels.models import build_model, save_weights
from softlabels.models.build import answer_of, untrained
from softlabels.models.classes import require_head, require_vocabulary
from softlabels.models.estimator import Estimator, build_member
from softlabels.objects import build, call_with, import_object, plain
from softlabels.recipes.tokenizer import ensure_tokenizer, named_tokenizer
from softlabels.store.digest import blake3_hex
from softlabels.store.new_spec import prepared_by
from softlabels.stream import Loader
from softlabels.stream.folds import fold_of, require_folds
from softlabels.student import class_weights
from softlabels.student.config import TrainingConfig
from softlabels.student.heads import USUAL, Head, heads_of, naming_target, resolved, with_class_weights
from softlabels.student.learner import Student
from softlabels.student.loss_spec import require_served
from softlabels.student.memory import keep_freed_memory
from softlabels.student.metrics import Scores
from softlabels.student.outputs import by_target
from softlabels.student.split import labelled_rows, validation_rows
from softlabels.student.tracker import Tracker
from softlabels.student.trainer import Trainer
from softlabels.student.trial import require_trainable
from softlabels.teacher.config import SERVED, MemberConfig, TeacherConfig
from softlabels.teacher.seen import record_seen, repeats_line
from softlabels.transfer import TransferRows
from softlabels.transfer.pretrained import is_hub_id
from softlabels.transfer.source import open_split
from softlabels_stages.run import of_recipe, say, should_stop, stage, suggested, warn
from softlabels_stages.teacher_arguments import TeacherTraining, TrainTeacher


@stage("train-teacher", resumable=True, takes_words=True)
def main(args: TrainTeacher, words: Sequence[str]) -> int:
    """Train the members that have no weights, and say what comes next."""
    _train_missing(args)
    same = of_recipe(words, "teacher", "transfer_set")
    print(f"next: {suggested('teacher-logits', *same)} (is it worth it? {suggested('plan', *same)})", flush=True)
    return 0


def _train_missing(args: TrainTeacher) -> None:
    """Train the members that have no weights."""
    _require_own_tokenizer(args)
    if ensure_tokenizer(args.tokenizer, args.transfer_set):
        print(f"tokenizer: trained on the training rows, {named_tokenizer(args.transfer_set)}", flush=True)
    for name in _asked_of_hub(args):
        say(
            f"{name} is no folder here: asking the Hugging Face hub; without a network, name a local folder with its files"
        )
    every = [*_lessons(args.teacher)]
    missing = [lesson for lesson in every if not _is_trained(lesson.member)]
    for lesson in every:
        if lesson not in missing:
            print(f"{lesson.who}: {lesson.member.weights or lesson.member.class_path} exists and is kept")
    if not missing:
        return
    for split in args.transfer_set.splits if args.transfer_set.source is not None else ():
        open_split(args.transfer_set, split)  # one that lacks something is told before minutes of training
    rows, training = load_rows(args.transfer_set, "train", Watch(say, warn)), _training(args, missing)
    has_label = _labelled(rows)
    if without := int((~has_label).sum()):
        print(f"{without:,} of {len(has_label):,} training rows have no hard label and are left out", flush=True)
    if args.teacher.folds is not None:
        require_folds(rows.keys[has_label], args.teacher.folds)
        if line := repeats_line(rows, args.teacher.folds, has_label):
            warn(line)
    tracker = None if args.tracker is None else call_with(args.tracker)
    for lesson in missing:
        print(f"{lesson.who}: training {lesson.member.class_path}", flush=True)
        config = dataclasses.replace(training, seed=training.seed + lesson.number)
        seen = has_label & lesson.sees(rows.keys)
        if lesson.fold is not None:
            record_seen(Path(str(lesson.member.weights)), rows.keys[seen])
        _train(lesson.member, rows, seen, config, tracker)


def _require_own_tokenizer(args: TrainTeacher) -> None:
    """Raise ConfigError where the tokenizer of a pretrained model would be trained: its ids would be others."""
    name = named_tokenizer(args.transfer_set)
    if (
        args.tokenizer is not None
        and name is not None
        and name in [m.init_args.get("model") for m in args.teacher.members]
    ):
        raise ConfigError(
            f"the recipe has a section tokenizer, which trains one, and the teacher {name} comes with its own",
            remedy="drop the section tokenizer",
        )


def _asked_of_hub(args: TrainTeacher) -> list[str]:
    """Hub ids that the recipe names: of models, of the tokenizer, of an image processor."""
    models = [each.init_args.get("model") for each in args.teacher.members if each.class_path != SERVED]
    names = dict.fromkeys(
        [*models, named_tokenizer(args.transfer_set), args.transfer_set.prepare.init_args.get("processor")]
    )
    return [name for name in names if isinstance(name, str) and is_hub_id(name)]


@dataclasses.dataclass(frozen=True)
class _Lesson:
    """A member to be trained, `number` of the recipe: on all rows, or on those of all folds but one."""

    number: int
    member: MemberConfig
    fold: int | None = None
    folds: int = 0

    @property
    def who(self) -> str:
        return f"teacher {self.number}" + ("" if self.fold is None else f", without fold {self.fold} of {self.folds}")

    def sees(self, keys: np.ndarray) -> np.ndarray:
        """Which of the rows with these keys (R, 16): (R,)."""
        if self.fold is None:
            return np.ones(len(keys), bool)
        return np.asarray(fold_of(keys, self.folds) != self.fold)


def _lessons(teacher: TeacherConfig) -> Iterator[_Lesson]:
    """All that the members have to learn."""
    folds = teacher.folds or 0
    for number, member in enumerate(teacher.members):
        yield _Lesson(number, member)
        for fold in range(folds):
            yield _Lesson(number, member.of_fold(fold, folds), fold, folds)


def _labelled(rows: TransferRows) -> np.ndarray:
    """Which rows (R,) have a hard label: of some target, at some position. Raises ConfigError where none has."""
    if rows.sequence is not None:  # whose labels are their own next tokens
        return np.ones(len(rows.keys), bool)
    each = (are_labelled(found, kind_of(found, rows.positions)) for found in rows.hard.values())
    found: np.ndarray = np.any([one.reshape(len(rows.keys), -1).any(axis=1) for one in each], axis=0)
    if not found.any():
        raise ConfigError(
            f"no training row of {rows.name} has a hard label, so there is nothing to learn from",
            remedy="name the column in transfer_set.label, or give the members trained weights",
        )
    return found


def _is_trained(member: MemberConfig) -> bool:
    """Whether the member's weights are there: in their file, or, where it names none, in a checkpoint that its class loads; or
    behind a server.
    """
    if member.class_path == SERVED:
        return True
    if member.weights is not None:
        return Path(member.weights).exists()
    return untrained(build_member(member.model)) == ()


def _training(args: TrainTeacher, missing: Sequence[_Lesson]) -> TeacherTraining:
    """How to train from hard labels. Raises ConfigError where the recipe does not say so, or not where to."""
    for lesson in missing:
        if lesson.member.weights is None:
            raise ConfigError(
                f"teacher.members[{lesson.number}] names no weights", remedy="give a path ending in .safetensors"
            )
    if args.teacher_training is None:
        files = ", ".join(str(lesson.member.weights) for lesson in missing)
        raise ConfigError(
            f"weights of the teacher are missing ({files}), and the recipe has no section teacher_training",
            remedy="put the files there, or add that section to train them",
        )
    return dataclasses.replace(args.teacher_training, alpha=None, hard_weight=1.0, soft_weight=0.0)


def _train(
    member: MemberConfig,
    rows: TransferRows,
    seen: np.ndarray,
    config: TeacherTraining,
    tracker: Callable[[], Tracker] | None,
) -> None:
    """Train a member from the rows that it may see (R,), all of which have labels."""
    weights = Path(str(member.weights))
    is_held_out, is_used = np.zeros((2, len(seen)), bool)
    is_held_out[seen] = validation_rows(rows.keys[seen], config.validation, config.seed)
    is_used[seen] = ~is_held_out[seen]

    def batches(selected: np.ndarray, *, shuffle: bool) -> Loader:
        order: dict[str, Any] = {"seed": config.seed, "block": config.block, "shuffle": shuffle}
        return Loader(rows, None, batch_size=config.batch_size, selection=np.flatnonzero(selected), **order)

    model = dataclasses.replace(member.model, weights=None)
    untaught = build_member(model)
    if isinstance(untaught, Estimator):
        used = seen & labelled_rows(rows.keys, config.hard_label_fraction, config.seed)
        count = fit_estimator(untaught, rows, used, weights, seed=config.seed, threads=config.threads)
        print(f"teacher {member.class_path}: {weights}, fitted on {counted(count, 'row')}", flush=True)
        return
    require_trainable(
        untaught,
        torch.from_numpy(np.array(rows.inputs[:2])),
        who=member.class_path,
        section="teacher.members",
        rows=int(is_used.sum()),
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
    )
    if rows.sequence is not None:
        require_vocabulary(untaught, rows.sequence, who=member.class_path)
    taught = _taught(config, rows)
    if (head := heads_of(taught).get("")) is not None and rows.sequence is None:
        require_head(untaught, head.target, who=member.class_path)
    taught = _with_class_weights(taught, rows, is_used, _try(untaught, member, rows, heads_of(taught)))
    student = Student.begin("", taught, lambda: build_model(model))
    validation = batches(is_held_out, shuffle=False) if is_held_out.any() else None
    identity = {
        "model": plain(member.model),
        "inputs": prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs).sample,
        "labels": _label_digests(rows),
        "augment": plain(config.augment),
    }
    train, augment = batches(is_used, shuffle=True), _augment(config, rows)
    before = (train.by_chunks(), None if validation is None else validation.by_chunks())
    folder = weights.with_suffix(".run")
    trainer = Trainer([student], train, validation, folder, identity, augment, before=before, tracker=tracker)
    keep_freed_memory()
    [result] = trainer.run(should_stop, TimeLeft(config.epochs, say))
    save_weights(student.model, weights)
    print(f"teacher {member.class_path}: {weights}{_said(result.scores, rows)}", flush=True)


def _taught(config: TeacherTraining, rows: TransferRows) -> TrainingConfig:
    """The config with the loss of each kind of hard labels. Raises ConfigError for another, and where there are none."""
    kinds = {name: kind_of(each, rows.positions) for name, each in rows.hard.items()}
    if {*kinds} == {""} and config.loss == USUAL["softmax"] and not config.targets:
        return dataclasses.replace(config, loss=USUAL[kinds[""]])
    found = resolved(config, kinds)
    for name, head in heads_of(found).items():
        with naming_target(name):
            require_served(head.config.loss, kinds[name], rows.hard[name].shape[-1])
    return found


def _try(model: nn.Module, member: MemberConfig, rows: TransferRows, heads: Mapping[str, Head]) -> dict[str, int]:
    """C, or the number of values, of each target. Raises ConfigError where the model cannot take the prepared rows,
    ClassMismatch where it does not give outputs for each target.
    """
    batch = torch.from_numpy(np.array(rows.inputs[:2]))
    answer = answer_of(model, batch, who=member.class_path, section="teacher.members")
    answers, sizes = by_target(answer, {name: head.output for name, head in heads.items()}), {}
    positions = rows.positions if rows.sequence is None else rows.sequence.positions
    lead = [len(batch)] if positions is None else [len(batch), positions]
    for name, head in heads.items():
        found, last = answers[name], "classes"
        if head.target != "softmax":  # whose labels say how many there are
            last = str(rows.hard[name].shape[-1])
        shape = [*found.shape] if isinstance(found, Tensor) else []
        if shape[:-1] != lead or (head.target != "softmax" and str(shape[-1]) != last):
            said = f"outputs of shape {shape}" if isinstance(found, Tensor) else type(found).__name__
            what = "logits" if head.target != "values" else "values"
            raise ClassMismatch(
                f"{member.class_path} gives {said} for inputs of shape {[*batch.shape]}{f' and target {name}' if name else ''}",
                remedy=f"a teacher's forward returns {what} of shape [{', '.join(map(str, [*lead, last]))}]",
            )
        if head.target == "softmax" and name == "" and rows.sequence is None:
            _require_classes(shape[-1], rows, who=member.class_path)
        sizes[name] = shape[-1]
    return sizes


def _require_classes(outputs: int, rows: TransferRows, *, who: str) -> None:
    """Raise ClassMismatch where a model gives another number of logits than the rows have named classes."""
    if rows.class_names is not None and outputs != len(rows.class_names):
        raise ClassMismatch(
            f"{who} gives {outputs} logits, and {rows.name} has {len(rows.class_names)} classes: {some(rows.class_names, 10)}",
            remedy=f"write classes: {len(rows.class_names)} in its init_args, or correct transfer_set.classes",
        )


def _with_class_weights(
    config: TrainingConfig, rows: TransferRows, used: np.ndarray, sizes: Mapping[str, int]
) -> TrainingConfig:
    """The config with a number a class in the place of balanced weights, by the labels of the rows that are `used` (R,)."""
    found = {}
    for name, head in heads_of(config).items():
        if head.config.class_weights is not None and rows.sequence is not None:
            raise ConfigError(
                "class_weights are for rows of one class each, not of tokens", remedy="drop class_weights"
            )
        labels = np.empty(0, np.int64) if head.config.class_weights != "balanced" else np.asarray(rows.hard[name])[used]
        with naming_target(name):
            found[name] = class_weights.resolved(head.config.class_weights, labels, sizes[name], head.target)
    return with_class_weights(config, found)


def _label_digests(rows: TransferRows) -> str | dict[str, str]:
    """Of the hard labels of each target."""
    found = {name: blake3_hex(np.ascontiguousarray(each)) for name, each in rows.hard.items()}
    return found[""] if {*found} == {""} else found


def _said(scores: Scores, rows: TransferRows) -> str:
    """How good the model is on the validation rows."""
    if "targets" in scores:
        return "".join(f"\n  {name}{_said(each, rows)}" for name, each in scores["targets"].items())
    what = "rows" if rows.positions is None else "positions"
    if rows.sequence is not None and scores:
        return f", {scores['nll']:.3f} nats a token on the validation rows (perplexity {math.exp(scores['nll']):.1f})"
    if "accuracy" in scores:
        return f", {scores['accuracy']:.1%} of the validation {what} right"
    if "f1" in scores:
        return f", micro F1 {scores['f1']['micro']:.3f} on the validation {what}"
    return f", MSE {scores['mse']:.4g} on the validation {what}" if "mse" in scores else ""


def _augment(config: TeacherTraining, rows: TransferRows) -> Callable[[Tensor], Tensor] | None:
    """The recipe's augmentation, bound to its arguments and tried on two rows. Raises ConfigError."""
    spec = config.augment
    if spec is None:
        return None
    build(spec, torch.from_numpy(np.array(rows.inputs[:2])))
    return functools.partial(import_object(spec.class_path), **spec.init_args)


if __name__ == "__main__":
    sys.exit(main())
