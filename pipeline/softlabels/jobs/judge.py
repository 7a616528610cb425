"""`judge`: scores of a student, or of the stored teacher, on one split of a store; and those of everyone on the held-out split,
as results.json keeps them: the one time that it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from softlabels.errors import ConfigError
from softlabels.jobs.splits import (
    Rows,
    Split,
    all_batches,
    held_out_batches,
    open_splits,
    say_what_labels_are,
    served,
    warn_of_findings,
    with_members,
)
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.models import ModelConfig, build_model
from softlabels.models.device import resolve_device
from softlabels.store import Store, open_store
from softlabels.stream import EmbeddedRows
from softlabels.stream.examples import StoredRows
from softlabels.stream.join import Missing
from softlabels.student.config import DEFAULT_TEMPERATURE
from softlabels.student.metrics import Scores, evaluate_student, evaluate_teacher
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
    store: str | Path,
    student: ModelConfig | None = None,
    *,
    split: str = "test",
    training: StudentTraining | None = None,
    temperature: float | None = None,
    transfer_set: TransferSetConfig | None = None,
    missing: Missing = "error",
    watch: Watch = LOGGED,
) -> dict[str, Scores]:
    """Scores on one split of a store: of a student with its weights, or of the stored teacher and its members.

    ::

        judge("stores/digits")["ensemble"]["errors"]
        judge("stores/digits", ModelConfig("softlabels.models.MLP", sizes, weights="mlp.safetensors"))["student"]["nll"]

    Args:
        store: a folder of splits, or one of them.
        student: whom to judge; None for the stored teacher, which needs no transfer set.
        split: the split's name.
        training: which members of the teacher count, by which mean, and on which device; by default as `StudentTraining` says.
        temperature: T of the second KL (the first is at 1), by default 4; labels of kind values have neither.
        transfer_set, missing: see `train`.
        watch: is told what is found.

    Returns:
        Scores (`softlabels.student.metrics`) by name: "student"; or "teacher", of several members each and then "ensemble".

    Raises:
        ConfigError, ClassMismatch, LogitsError: a store, transfer set or student that does not fit. DamagedStore: of the disk.
    """
    settings = StudentTraining() if training is None else training
    if student is None:
        found = served(open_store(store, split=split))
        options = _options(settings, found, temperature)
        own: Rows = StoredRows(found)  # the next tokens of token rows are known only where the store holds its inputs
        if found.positions is not None and "input" in found.columns:
            own = EmbeddedRows(found)
        elif found.positions is not None:
            watch.warn(
                f"{found.path} holds no tokens (inputs: reference): without the next one no errors, NLL, ECE and Brier"
            )
        warn_of_findings(split, found, watch)
        splits = with_members({split: Split(found, own)}, settings)
        ensemble, members = evaluate_teacher(all_batches(splits[split], settings.batch_size), **options)
        if len(members) < 2:
            return {"teacher": ensemble}
        named = zip(member_names(found, settings.members), members, strict=True)
        return {**{f"teacher {name}": scores for name, scores in named}, "ensemble": ensemble}
    splits = open_splits(
        store, transfer_set, only=split, missing=missing, training=settings, student=student, watch=watch
    )
    options = _options(settings, splits[split].store, temperature)
    say_what_labels_are(splits, replace(watch, say=watch.warn))
    model = build_model(student).to(options["device"])
    return {"student": evaluate_student(model, all_batches(splits[split], settings.batch_size), **options)}


def judge_run(
    training: StudentTraining, splits: Mapping[str, Split], students: Sequence[Judged], shared: Mapping[str, int]
) -> dict[str, Any]:
    """The results of a run; `softlabels.report.comparison` says what they hold. `shared`: see `say_how_splits_relate`."""
    device = resolve_device(training.device)
    distilled = [student.variant for student in students if student.variant.kind == "distilled"]
    temperatures = sorted({1.0, *(training.of(each, 0).loss_at(1.0).temperature for each in distilled)})
    split, batches = held_out_batches(splits, training)
    store = splits["train"].store
    options: dict[str, Any] = {
        "temperatures": temperatures, "mean": training.mean, "device": device, "target": store.encoding.target,
    }  # fmt: skip
    ensemble, members = evaluate_teacher(batches, **options)
    names = member_names(store, training.members)
    return {
        "split": split,
        "rows": len(batches.rows),
        "temperatures": temperatures,
        "seeds": list(training.seeds),
        "swept": list(training.swept),
        "members": None if training.members is None else list(training.members),
        "teacher": {"ensemble": [ensemble], "members": {name: [members[m]] for m, name in enumerate(names)}},
        "students": [
            {
                "label": student.label,
                "kind": student.variant.kind,
                "settings": training.settings(student.variant),
                "validation": [scores for scores in student.validation if scores],
                "scores": [evaluate_student(model.to(device), batches, **options) for model in student.models],
            }
            for student in students
        ],
        "class_names": None if store.class_names is None else list(store.class_names),
        "shared_rows": dict(shared),
        "split_rows": {name: len(each.rows.keys) for name, each in splits.items()},
        "digests": digests(splits),
        **({} if store.encoding.target == "softmax" else {"target": store.encoding.target}),
    }


def _options(settings: StudentTraining, store: Store, temperature: float | None) -> dict[str, Any]:
    """How labels of a store are judged. Raises ConfigError where they have no temperature and one is given."""
    target = store.encoding.target
    if temperature is not None and target == "values":
        raise ConfigError(
            f"{store.path} holds values, which have no temperature to judge at", remedy="drop the temperature"
        )
    temperatures = [DEFAULT_TEMPERATURE if temperature is None else temperature]
    device = resolve_device(settings.device)
    return {"temperatures": temperatures, "mean": settings.mean, "device": device, "target": target}


def digests(splits: Mapping[str, Split]) -> dict[str, str]:
    """The digest of each split's store."""
    return {name: split.store.digest for name, split in splits.items()}


def member_names(store: Store, chosen: Sequence[int] | None) -> list[str]:
    """A short name for each member that is taken: its number and its class, or its mean where the store keeps only that."""
    members = store.spec.teacher.members
    if store.members != len(members):
        return ["mean of members"]
    numbers = range(len(members)) if chosen is None else chosen
    return [f"{number}: {members[number].model.rpartition('.')[2]}" for number in numbers]
