"""What tells a run from others: how each student is trained, on which rows in which order; and what the students of one run,
and its processes, must have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import torch

from softlabels import __version__
from softlabels.errors import ConfigError
from softlabels.models import weights_digest
from softlabels.student.config import TrainingConfig, deciding
from softlabels.student.learner import Student
from softlabels.student.metrics import Batches

SHARED = ("epochs", "batch_size", "block", "validation", "checkpoint_every", "shard", "device", "threads")


def facts_of(students: Sequence[Student]) -> dict[str, Any]:
    """What ranks must have in common beside the identity of the run: the weights that they begin with, how these are held, and
    versions.
    """
    parameters = {student.name: weights_digest(student.model) for student in students}
    return {
        "parameters": parameters,
        "shard": students[0].config.shard,
        "softlabels": __version__,
        "torch": str(torch.__version__),
    }


def orders_of(train: Batches, validation: Batches | None) -> dict[str, str | None]:
    """The digests of the order of the rows."""
    return {"train": train.order_digest, "validation": validation.order_digest if validation else None}


def shared_config(students: Sequence[Student]) -> TrainingConfig:
    """The config of all students, as far as they share one pass. Raises ConfigError where they cannot."""
    first, names = students[0].config, [student.name for student in students]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"two students would share a folder: {max(names, key=names.count)}",
            remedy="give values that differ in their first digits",
        )
    for student in students[1:]:
        for name in SHARED:
            if getattr(student.config, name) != getattr(first, name):
                raise ConfigError(
                    f"students trained side by side differ in {name}: {getattr(first, name)} and "
                    f"{getattr(student.config, name)}",
                    remedy="train them in separate runs",
                )
    return first


def settings_of(students: Sequence[Student]) -> dict[str, Any]:
    """Every student's config as JSON holds it, by name; of a single student without a name its own."""
    found = {}
    for student in students:
        given = asdict(student.config)  # a subclass may have fields that are not about this run
        found[student.name] = deciding({field.name: given[field.name] for field in fields(TrainingConfig)})
    return found.get("", found) if len(found) == 1 else found
