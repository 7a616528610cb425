"""A student and the stores that it is to learn from, before anything is trained: which of its outputs meets which target,
whether each gives what the target has, and whether what it says of a row is the row's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from softlabels.errors import ClassMismatch
from softlabels.jobs.splits import Split, all_batches
from softlabels.models import ModelConfig, build_model
from softlabels.models.alone import is_padded
from softlabels.models.build import answer_of
from softlabels.models.classes import require_head, require_vocabulary
from softlabels.stream.positions import stored_sequence
from softlabels.student.heads import USUAL, Head, heads_of, naming_target, resolved
from softlabels.student.outputs import by_target, require_student_logits
from softlabels.student.sweep import StudentTraining
from softlabels.student.target_config import target_configs
from softlabels.student.trial import require_own_rows, trial_rows
from softlabels.transfer import TransferRows
from softlabels.transfer.sequences import SequenceInfo

_LOOKED_AT = 64  # rows among which short and long ones are chosen


def fitted(
    student: ModelConfig, splits: Mapping[str, Split], training: StudentTraining
) -> tuple[StudentTraining, dict[str, Split]]:
    """The splits with the targets that the student is taught, and the training with those that it is not left out by name: a
    student that gives one tensor meets the one that `training.targets` names. Of one target without a name that is no softmax
    the loss is the usual one of its kind, unless another than the usual one of distributions is named.

    Raises:
        ClassMismatch: unless each of the student's outputs has one number for each of its target's classes, or values, for a
            real batch (of rows of tokens at least one a token, by the same vocabulary), or where it lacks one.
        ConfigError: it cannot take that batch at all, or says something else of a row alone; `training.targets` do not fit.
        LogitsError: it gives probabilities.
    """
    model = build_model(student)
    first = next(iter(splits.values()))
    require_vocabulary(model, _sequence(first), who=student.class_path)
    answer = answer_of(
        model, next(iter(all_batches(first, 2).epoch(0))).inputs, who=student.class_path, section="student"
    )
    if isinstance(answer, Tensor):
        training = _one_named(first, training)
    if {*first.kinds} == {""} and training.loss == USUAL["softmax"]:
        training = dataclasses.replace(training, loss=USUAL[first.kinds[""]])
    heads = heads_of(resolved(training.of(training.variants[0], training.seeds[0]), first.kinds))
    taught = {name: replace(split, targets=tuple(heads)) for name, split in splits.items()}
    for split in taught.values():
        require_vocabulary(model, _sequence(split), who=student.class_path)
        if "" in split.kinds:
            require_head(model, split.kinds[""], who=student.class_path)
        _check_outputs(model, split, heads, student.class_path)
    return training, taught


def _one_named(split: Split, training: StudentTraining) -> StudentTraining:
    """The training with all targets left out but the one that it names, where it names one and others are not left out."""
    given = target_configs(training.targets)
    named = [name for name, entry in given.items() if entry.weight > 0]
    if len(named) != 1 or "" in split.kinds:
        return training
    others = {name: {"weight": 0.0} for name in split.kinds if name not in given}
    return dataclasses.replace(training, targets={**training.targets, **others})


def _check_outputs(model: nn.Module, split: Split, heads: Mapping[str, Head], who: str) -> None:
    batch = next(iter(all_batches(split, 2).epoch(0)))
    outputs = {name: head.output for name, head in heads.items()}
    answers = by_target(answer_of(model, batch.inputs, who=who, section="student"), outputs)
    for name, one in split.each.items():
        found, store = answers[name], one.store
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        wanted = [len(batch), store.classes] if batch.mask is None else [*batch.mask.shape, store.classes]
        if store.spec.of_tokens and isinstance(shape, list) and store.encoding.target == "softmax":
            wanted[-1] = max(store.classes, shape[-1])  # outputs beyond the vocabulary are padding
        if shape != wanted:
            what, one_each = (
                ("values", "number a value") if store.encoding.target == "values" else ("classes", "logit a class")
            )
            of = f" for target {name}" if name else ""
            remedy = f"change student.init_args so that it gives one {one_each}, or use another store"
            if isinstance(found, Mapping):
                remedy = "let its forward return one tensor: the store has one target, without a name"
            raise ClassMismatch(
                f"{who} gives outputs of shape {shape}{of} for {len(batch)} rows"
                f"{'' if batch.mask is None else f' of {batch.mask.shape[1]} positions'}, and {store.path} has "
                f"{store.classes} {what}",
                remedy=remedy,
            )
    _require_sound_outputs(model, split, heads, who)


def _require_sound_outputs(model: nn.Module, split: Split, heads: Mapping[str, Head], who: str) -> None:
    """Raise LogitsError where the student gives probabilities, ConfigError where what it says of a row depends on others."""
    batch, tokens = next(iter(all_batches(split, _LOOKED_AT).epoch(0))), split.store.spec.of_tokens
    padded = tokens or is_padded(split.prepare.class_path)
    at = trial_rows(batch.inputs, padded=padded, sequences=tokens)
    mask = None if batch.mask is None else batch.mask[at]
    for name, head in heads.items():
        ask = partial(_asked, model, head.output, who)
        with naming_target(name):
            outputs = require_own_rows(ask, batch.inputs[at], mask, who=who, padded=padded)
            if split.kinds[name] == "softmax":
                require_student_logits(outputs.flatten(0, -2), who=who, total=split.store.rows)


def _asked(model: nn.Module, output: str, who: str, inputs: Tensor) -> Tensor:
    answer = answer_of(model, inputs, who=who, section="student")
    found = answer if isinstance(answer, Tensor) else answer[output]  # type: ignore[index]  # it was asked before
    assert isinstance(found, torch.Tensor)
    return found


def _sequence(split: Split) -> SequenceInfo | None:
    """What the rows of tokens of a split are, over the store's classes; None of other rows."""
    stored = stored_sequence(split.store)
    if isinstance(split.rows, TransferRows) and split.rows.sequence is not None and stored is not None:
        return split.rows.sequence.below(stored.classes)
    return stored
