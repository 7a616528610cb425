"""`judge`: scores of a student, or of the stored teacher, on one split of a store; and those of everyone on the held-out split,
as results.json keeps them: the one time that it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from softlabels.errors import ConfigError
from softlabels.jobs.sources import Labels, Source
from softlabels.jobs.splits import (
    Rows,
    Split,
    all_batches,
    as_asked,
    held_out_batches,
    open_splits,
    say_what_labels_are,
    warn_of_findings,
    with_members,
)
from softlabels.jobs.student_fit import fitted
from softlabels.jobs.students import student_heads
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.models import ModelConfig, build_model
from softlabels.models.device import resolve_device
from softlabels.store import Store
from softlabels.store.key_index import Missing
from softlabels.stream import EmbeddedRows, Loader
from softlabels.stream.stored_rows import StoredRows
from softlabels.student.config import DEFAULT_TEMPERATURE
from softlabels.student.evaluate import Asked, evaluate_student, evaluate_teacher
from softlabels.student.heads import Head, head_settings
from softlabels.student.metrics import Scores
from softlabels.student.sweep import StudentTraining, Variant
from softlabels.transfer import TransferSetConfig


@dataclass(frozen=True)
class Judged:
    """The trained students of one kind and setting.

    Attributes:
        variant: which kind and setting.
        models: one a seed.
        validation: the scores of each on the validation rows, where there were any.
        note: what tables say after its name.
    """

    variant: Variant
    models: Sequence[nn.Module]
    validation: Sequence[Scores] = ()
    note: str = ""

    @property
    def label(self) -> str:
        """As tables name them."""
        return f"{self.variant.label}{self.note}"


def judge(
    store: Labels,
    student: ModelConfig | None = None,
    *,
    split: str = "test",
    training: StudentTraining | None = None,
    temperature: float | None = None,
    transfer_set: TransferSetConfig | None = None,
    missing: Missing = "error",
    watch: Watch = LOGGED,
) -> dict[str, Scores]:
    """Scores of a student with its weights, or of the stored teacher and its members, on one split of a store.

    Args:
        store: a folder of splits, or one of them; or a list of these, or a `Source`: see `train`.
        student: the student to judge; None for the stored teacher, which needs no transfer set.
        split: the split's name.
        training: the teacher's members that count, their mean, and the device; by default as `StudentTraining` says.
        temperature: T of the second KL (the first is at 1), by default 4; if labels are not known there, the closest T at which
            they are. Labels of kind values have neither.
        transfer_set, missing: see `train`.
        watch: gets the messages.

    Returns:
        Scores (`softlabels.student.metrics`) by name: "student"; or "teacher"; for several members each of them, and then
        "ensemble".

    Raises:
        ConfigError, ClassMismatch, LogitsError: a store, transfer set or student that does not fit. DamagedStore: from the
            disk.

    Example:
        >>> judge("stores/noise")["ensemble"]["errors"]  # a student: ModelConfig(..., weights="mlp.safetensors")
        4
    """
    settings = StudentTraining() if training is None else training
    device = resolve_device(settings.device)
    if student is None:
        found = as_asked(Source.of(store).open(only=split, missing=missing), settings, watch)[split]
        warn_of_findings(split, found, watch)
        [stored] = with_members({split: Split(found, _own_rows(found, watch))}, settings).values()
        _require_meaning(stored, temperature)
        asked = {name: _asked(settings, stored, name, temperature) for name in stored.kinds}
        ensemble, members = evaluate_teacher(all_batches(stored, settings.batch_size), asked, device=device)
        if len(members) < 2:
            return {"teacher": ensemble}
        named = zip(member_names(found, settings.members), members, strict=True)
        return {**{f"teacher {name}": scores for name, scores in named}, "ensemble": ensemble}
    splits = open_splits(store, transfer_set, only=split, missing=missing, training=settings, watch=watch)
    settings, splits = fitted(student, splits, settings)
    say_what_labels_are(splits, replace(watch, say=watch.warn))
    _require_meaning(splits[split], temperature)
    heads = student_heads(settings, settings.variants[0], splits[split])
    asked = {name: _asked(settings, splits[split], name, temperature, head) for name, head in heads.items()}
    model = build_model(student).to(device)
    return {"student": evaluate_student(model, all_batches(splits[split], settings.batch_size), asked, device=device)}


def _own_rows(store: Store, watch: Watch) -> Rows:
    """The rows of a store; the next tokens of token rows are known only where it holds its inputs."""
    if store.spec.of_tokens and "input" in store.columns:
        return EmbeddedRows(store)
    if store.spec.of_tokens:
        watch.warn(
            f"{store.path} holds no tokens (inputs: reference): without the next one no errors, NLL, ECE and Brier"
        )
    return StoredRows(store)


def judge_beside_teacher(models: Mapping[str, nn.Module], split: Split, training: StudentTraining) -> dict[str, Scores]:
    """Scores on a split of its stored teacher, "teacher", and of models on the CPU that answer as the recipe's student does."""
    heads, device = student_heads(training, training.variants[0], split), torch.device("cpu")
    asked = {name: _asked(training, split, name, None, head) for name, head in heads.items()}
    batches = all_batches(split, training.batch_size)
    teacher, _ = evaluate_teacher(batches, asked, device=device)
    return {"teacher": teacher} | {
        name: evaluate_student(model, batches, asked, device=device) for name, model in models.items()
    }


def _asked(
    training: StudentTraining, split: Split, name: str, temperature: float | None, head: Head | None = None
) -> Asked:
    """What is asked of a target: by the mean and the temperature that are its own, where a student meets it by a `head`."""
    kind = split.kinds[name]
    if temperature is None:
        temperature = split.store.only(name).encoding.nearest(DEFAULT_TEMPERATURE)
        if head is not None and head.name:
            temperature = head.config.loss_at(1.0).temperature
    if head is None:
        return Asked([temperature], training.mean, kind)
    return Asked([temperature], head.config.mean, kind, head.output)


def judge_run(
    training: StudentTraining, splits: Mapping[str, Split], students: Sequence[Judged], shared: Mapping[str, int]
) -> dict[str, Any]:
    """The results of a run; `softlabels.report.comparison` says what they hold. `shared`: see `say_how_splits_relate`."""
    device = torch.device("cpu") if training.shard else resolve_device(training.device)  # which may not hold a student
    train = splits["train"]
    heads = {each.variant.label: student_heads(training, each.variant, train) for each in students}
    distilled = [heads[each.variant.label] for each in students if each.variant.kind == "distilled"]
    first = student_heads(training, training.variants[0], train)
    taught = {name: head for name, head in first.items() if any(name in own for own in heads.values())}
    asked = {name: _asked_of_run(head, [own[name] for own in distilled], train) for name, head in taught.items()}
    split, batches = held_out_batches(splits, training)
    store = train.store
    ensemble, members = evaluate_teacher(batches, asked, device=device)
    names = member_names(store, training.members)
    results = {
        "split": split,
        "rows": len(batches.rows),
        "temperatures": sorted({t for each in asked.values() for t in each.temperatures}),
        "seeds": list(training.seeds),
        "swept": list(training.swept),
        "members": None if training.members is None else list(training.members),
        "teacher": {
            "ensemble": [ensemble],
            "members": {name: [found] for name, found in zip(names, members, strict=bool(members))},
        },
        "students": [_student_results(training, each, train, batches, asked, device) for each in students],
        "class_names": None,
        "shared_rows": dict(shared),
        "split_rows": {name: len(each.rows.keys) for name, each in splits.items()},
        "digests": digests(splits),
    }
    if store.positions is not None and not store.spec.of_tokens:
        results["counted"] = "positions"
    about = {name: _about(store.only(name), each) for name, each in asked.items()}
    if {*about} != {""}:
        return results | {"targets": about}
    return results | {name: value for name, value in about[""].items() if name != "temperatures"}


def _student_results(
    training: StudentTraining,
    student: Judged,
    train: Split,
    batches: Loader,
    asked: Mapping[str, Asked],
    device: torch.device,
) -> dict[str, Any]:
    """What the results say of the students of a variant, judged on the targets that they were taught."""
    own = student_heads(training, student.variant, train)
    mine = {name: each for name, each in asked.items() if name in own}
    found = {
        "label": student.label,
        "kind": student.variant.kind,
        "settings": training.settings(student.variant),
        "validation": [scores for scores in student.validation if scores],
        "scores": [evaluate_student(model.to(device), batches, mine, device=device) for model in student.models],
    }
    if {*own} != {""} and student.variant.kind == "distilled":
        found["targets"] = {name: head_settings(head) for name, head in own.items()}
    return found


def _asked_of_run(first: Head, heads: Sequence[Head], train: Split) -> Asked:
    """What is asked of a target that distilled students meet by these heads: KLs at 1, or next to it, and where each learnt."""
    temperatures = sorted(
        {train.store.only(first.name).encoding.near_1, *(head.config.loss_at(1.0).temperature for head in heads)}
    )
    return Asked(temperatures, first.config.mean, first.target, first.output)


def _about(store: Store, asked: Asked) -> dict[str, Any]:
    """What results say of a target."""
    names = None if store.class_names is None else list(store.class_names)
    kind = {} if asked.target == "softmax" else {"target": asked.target}
    cautions = {"cautions": store.cautions} if store.cautions else {}
    return {"class_names": names, "temperatures": list(asked.temperatures), **kind, **cautions}


def _require_meaning(split: Split, temperature: float | None) -> None:
    """Raise ConfigError where a temperature is given and the split's targets have none."""
    if temperature is not None and {*split.kinds.values()} == {"values"}:
        raise ConfigError(f"{split.store.path} holds values, which have no temperature", remedy="drop the temperature")


def digests(splits: Mapping[str, Split]) -> dict[str, str | list[str]]:
    """The digest of each split's store; those of all where several are read as one."""
    return {name: digest_of(split.store) for name, split in splits.items()}


def digest_of(store: Store) -> str | list[str]:
    """Of one split."""
    found = store.manifest.digests
    return found[0] if len(found) == 1 else [*found]


def member_names(store: Store, chosen: Sequence[int] | None) -> list[str]:
    """A short name for each member that is taken: its number and its class, or its mean where the store keeps only that."""
    members = store.spec.teacher.members
    if any(each.encoding.is_reduced for each in store.spec.targets):
        return ["mean of members"]
    numbers = range(len(members)) if chosen is None else chosen
    return [f"{number}: {members[number].model.rpartition('.')[2]}" for number in numbers]
