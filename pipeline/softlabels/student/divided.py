"""What several processes divide: the rows of each batch, or the students of a sweep; and what cannot be divided.

Where they divide the rows, gradients are added up at every step. Where they divide the students, each trains some of them on
whole batches, as one process would, and no gradient travels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.modules.batchnorm import _BatchNorm

from softlabels.errors import ConfigError
from softlabels.student.heads import heads_of
from softlabels.student.learner import Student
from softlabels.student.losses import LOSSES
from softlabels.student.sweep import Divide


def are_students_divided(divide: Divide, students: int, world: int) -> bool:
    """Whether `world` processes divide the students, and not the rows; `auto`: where there are as many students or more.

    Raises:
        ConfigError: fewer students than processes are to be divided.
    """
    if world == 1 or divide == "batches":
        return False
    if divide == "students" and students < world:
        raise ConfigError(
            f"training.divide=students, and there are {students} students for {world} processes",
            remedy=f"start {students} processes or fewer, or give training.divide=batches",
        )
    return students >= world


def require_divisible(students: Sequence[Student], *, rows: int, batch_size: int, world: int) -> None:
    """Raise ConfigError where batches of an epoch of so many rows cannot be divided over `world` processes."""
    smallest = min({min(rows, batch_size), rows % batch_size or batch_size})
    if smallest < world:
        which = (
            f"batch_size is {batch_size}"
            if batch_size < world
            else f"an epoch of {rows:,} rows ends in a batch of {smallest}"
        )
        size = next((n for n in range(max(world, batch_size), rows + 1) if rows % n == 0 or rows % n >= world), None)
        remedy = "start fewer processes" + ("" if size is None else f", or give another batch_size, such as {size}")
        raise ConfigError(f"{which}, and each of {world} processes needs a row of every batch", remedy=remedy)
    for student in students:
        for head in heads_of(student.config).values():
            loss = head.config.loss
            if head.config.is_soft and LOSSES[loss].whole_batch:
                raise ConfigError(
                    f"the loss {loss} correlates over the whole batch, which {world} processes would cut",
                    remedy="use a loss that is a sum over rows, such as forward_kl, start one process, or, of a sweep, give "
                    "training.divide=students",
                )


def of_batch_norm(students: Sequence[Student], batch_size: int, world: int) -> str:
    """What to say where batches are divided and a student takes statistics of them; else ""."""
    names = sorted({type(m).__name__ for each in students for m in each.model.modules() if isinstance(m, _BatchNorm)})
    if not names:
        return ""
    return (
        f"{', '.join(names)} takes the statistics of each process's own rows, about {batch_size // world} of a batch's "
        f"{batch_size}; those of process 0 are kept: weights are not those of one process"
    )
