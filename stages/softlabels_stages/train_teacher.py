"""Train the recipe's teachers from hard labels, where their weights are not there yet.

Each member of `teacher.members` is trained as `teacher_training` says, with its number added to the seed, on the training
split of the transfer set; the weights go to the member's `weights`. A member whose file exists, or whose class loads a whole
checkpoint of its own, is left as it is. Language models learn the next tokens of their rows. Before them the tokenizer that
the transfer set names is trained, as the section `tokenizer` says, where it is not there. Who has a trained teacher needs this
stage only once, or never.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import ClassMismatch, ConfigError
from softlabels.jobs.splits import load_rows
from softlabels.jobs.watch import TimeLeft, Watch
from softlabels.models import build_model, save_weights
from softlabels.models.build import answer_of, untrained
from softlabels.models.classes import require_vocabulary
from softlabels.objects import build, import_object, plain
from softlabels.recipes.tokenizer import ensure_tokenizer, named_tokenizer
from softlabels.store.digest import blake3_hex
from softlabels.store.new_spec import prepared_by
from softlabels.stream import Loader
from softlabels.student.class_weights import resolved
from softlabels.student.learner import Student
from softlabels.student.memory import keep_freed_memory
from softlabels.student.metrics import Scores
from softlabels.student.split import validation_rows
from softlabels.student.trainer import Trainer
from softlabels.student.trial import require_trainable
from softlabels.teacher.config import MemberConfig
from softlabels.transfer import TransferRows
from softlabels_stages.run import say, should_stop, stage, warn
from softlabels_stages.teacher_arguments import TeacherTraining, TrainTeacher


@stage("train-teacher", resumable=True)
def main(args: TrainTeacher) -> int:
    """Train the members that have no weights."""
    if ensure_tokenizer(args.tokenizer, args.transfer_set):
        print(f"tokenizer: trained on the training rows, {named_tokenizer(args.transfer_set)}", flush=True)
    missing = [number for number, member in enumerate(args.teacher.members) if not _is_trained(member)]
    for number, member in enumerate(args.teacher.members):
        if number not in missing:
            print(f"teacher {number}: {member.weights or member.class_path} is there, left as it is")
    if not missing:
        return 0
    rows, training = load_rows(args.transfer_set, "train", Watch(say, warn)), _training(args, missing)
    for number in missing:
        print(f"teacher {number}: training {args.teacher.members[number].class_path}", flush=True)
        _train(args.teacher.members[number], rows, dataclasses.replace(training, seed=training.seed + number))
    return 0


def _is_trained(member: MemberConfig) -> bool:
    """Whether the member's weights are there: in their file, or, where it names none, in a checkpoint that its class loads."""
    if member.weights is not None:
        return Path(member.weights).exists()
    return untrained(build_model(member.model)) == ()


def _training(args: TrainTeacher, missing: Sequence[int]) -> TeacherTraining:
    """How to train from hard labels. Raises ConfigError where the recipe does not say so, or not where to."""
    for number in missing:
        if args.teacher.members[number].weights is None:
            raise ConfigError(
                f"teacher.members[{number}] names no weights", remedy="give a path ending in .safetensors"
            )
    if args.teacher_training is None:
        files = ", ".join(str(args.teacher.members[number].weights) for number in missing)
        raise ConfigError(
            f"weights of the teacher are missing ({files}), and the recipe has no section teacher_training",
            remedy="put the files there, or add that section to train them",
        )
    return dataclasses.replace(args.teacher_training, alpha=None, hard_weight=1.0, soft_weight=0.0)


def _train(member: MemberConfig, rows: TransferRows, config: TeacherTraining) -> None:
    weights = Path(str(member.weights))
    is_held_out = validation_rows(rows.keys, config.validation, config.seed)

    def batches(selected: np.ndarray, *, shuffle: bool) -> Loader:
        items = np.flatnonzero(selected)
        return Loader(
            rows,
            None,
            batch_size=config.batch_size,
            seed=config.seed,
            block=config.block,
            selection=items,
            shuffle=shuffle,
        )

    model = dataclasses.replace(member.model, weights=None)
    untaught = build_model(model)
    require_trainable(
        untaught,
        torch.from_numpy(np.array(rows.inputs[:2])),
        who=member.class_path,
        section="teacher.members",
        rows=int((~is_held_out).sum()),
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
    )
    if rows.sequence is not None:
        require_vocabulary(untaught, rows.sequence, who=member.class_path)
    classes = _try(untaught, member, rows)
    if config.class_weights is not None and rows.sequence is not None:
        raise ConfigError("class_weights are for rows of one class each, not of tokens", remedy="drop class_weights")
    weights_by_class = resolved(config.class_weights, np.asarray(rows.labels)[~is_held_out], classes)
    config = dataclasses.replace(config, class_weights=weights_by_class)
    student = Student.begin("", config, lambda: build_model(model))
    validation = batches(is_held_out, shuffle=False) if is_held_out.any() else None
    identity = {
        "model": plain(member.model),
        "inputs": prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs).sample,
        "labels": blake3_hex(np.asarray(rows.labels)),
        "augment": plain(config.augment),
    }
    train, augment = batches(~is_held_out, shuffle=True), _augment(config, rows)
    before = (train.by_chunks(), None if validation is None else validation.by_chunks())
    folder = weights.with_suffix(".run")
    trainer = Trainer([student], train, validation, folder, identity, augment, before=before)
    keep_freed_memory()
    [result] = trainer.run(should_stop, TimeLeft(config.epochs, say))
    save_weights(student.model, weights)
    print(f"teacher {member.class_path}: {weights}{_said(result.scores, rows)}", flush=True)


def _try(model: nn.Module, member: MemberConfig, rows: TransferRows) -> int:
    """C. Raise ConfigError where the model cannot take the prepared rows, ClassMismatch where it does not give them logits."""
    batch = torch.from_numpy(np.array(rows.inputs[:2]))
    found = answer_of(model, batch, who=member.class_path, section="teacher.members")
    lead = [len(batch)] if rows.sequence is None else [len(batch), rows.sequence.positions]
    if not isinstance(found, Tensor) or [*found.shape[:-1]] != lead:
        said = f"outputs of shape {[*found.shape]}" if isinstance(found, Tensor) else type(found).__name__
        raise ClassMismatch(
            f"{member.class_path} gives {said} for inputs of shape {[*batch.shape]}",
            remedy=f"a teacher's forward returns logits of shape {[*lead, 'classes']}",
        )
    return found.shape[-1]


def _said(scores: Scores, rows: TransferRows) -> str:
    """How good the model is on the validation rows."""
    if not scores:
        return ""
    if rows.sequence is None:
        return f", {scores['accuracy']:.1%} of the validation rows right"
    return f", {scores['nll']:.3f} nats a token on the validation rows (perplexity {math.exp(scores['nll']):.1f})"


def _augment(config: TeacherTraining, rows: TransferRows) -> Callable[[Tensor], Tensor] | None:
    """The recipe's augmentation, bound to its arguments and tried on two rows. Raises ConfigError."""
    spec = config.augment
    if spec is None:
        return None
    build(spec, torch.from_numpy(np.array(rows.inputs[:2])))
    return functools.partial(import_object(spec.class_path), **spec.init_args)


if __name__ == "__main__":
    sys.exit(main())
