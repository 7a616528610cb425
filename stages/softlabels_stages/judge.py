"""Scores of everyone on the held-out split, as results.json keeps them: the one time that it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from softlabels.checks.leaks import leaks
from softlabels.models.device import resolve_device
from softlabels.store import Store
from softlabels.student.metrics import Scores, evaluate_student, evaluate_teacher
from softlabels_stages.splits import Split, held_out_batches
from softlabels_stages.sweep import StudentTraining


@dataclass(frozen=True)
class Judged:
    """The trained students of one kind and setting.

    Attributes:
        label: as tables name them.
        kind: hard or distilled.
        settings: what the results say of them.
        temperature: T that they were trained at, at the end.
        models: one a seed.
        validation: the scores of each on the validation rows, where there were any.
    """

    label: str
    kind: str
    settings: dict[str, Any]
    temperature: float
    models: Sequence[nn.Module]
    validation: Sequence[Scores] = ()


def judge(training: StudentTraining, splits: Mapping[str, Split], students: Sequence[Judged]) -> dict[str, Any]:
    """The results of a run; `softlabels.report.comparison` says what they hold."""
    device, mean = resolve_device(training.device), training.mean
    temperatures = sorted({1.0, *(student.temperature for student in students if student.kind == "distilled")})
    split, batches = held_out_batches(splits, training)
    ensemble, members = evaluate_teacher(batches, temperatures=temperatures, mean=mean, device=device)
    store = splits["train"].store
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
                "kind": student.kind,
                "settings": student.settings,
                "validation": [scores for scores in student.validation if scores],
                "scores": [
                    evaluate_student(model.to(device), batches, temperatures=temperatures, mean=mean, device=device)
                    for model in student.models
                ],
            }
            for student in students
        ],
        "class_names": None if store.class_names is None else list(store.class_names),
        "shared_rows": leaks({name: each.rows.keys for name, each in splits.items()}),
        "split_rows": {name: len(each.rows.keys) for name, each in splits.items()},
        "digests": digests(splits),
    }


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
