"""`plan`: go or no-go before a teacher runs, from a pilot of about 1% of the rows. Nothing is kept but the prepared rows, which
every command about this transfer set uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softlabels.errors import ConfigError
from softlabels.jobs.label import Rows, asked_of, rows_of
from softlabels.jobs.labelled import ByEnsemble, Labelled
from softlabels.jobs.plan_data import data_of
from softlabels.jobs.plan_found import Pilot, planned, training_split
from softlabels.jobs.plan_pass import pilot_pass
from softlabels.jobs.served import by_server
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.models import ModelConfig, build_model
from softlabels.models.build import answer_of
from softlabels.report.plan import Plan
from softlabels.student.split import shuffled_rows
from softlabels.student.sweep import StudentTraining
from softlabels.system.places import Target, folder_of
from softlabels.system.scratch import scratch
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows

SHARE, LEAST = 0.01, 800  # of a split's rows that the pilot takes, and how many at least, where there are so many
SECONDS = 300.0
SCRATCH = "softlabels-plan-"  # how the folder of a pilot begins


def plan(
    transfer_set: Rows,
    teacher: Ensemble | Served,
    labels: LabelsConfig,
    store: Target,
    *,
    student: ModelConfig | None = None,
    training: StudentTraining | None = None,
    rows: int | None = None,
    seconds: float = SECONDS,
    seed: int = 0,
    watch: Watch = LOGGED,
) -> Plan:
    """What a pass of this teacher over this transfer set would take and give, from a pilot: see docs/plan.md.

    Args:
        transfer_set, teacher, labels, store: as of `label`; nothing is written to the store.
        student, training: whose gain is measured; None for none.
        rows: of each split that the pilot takes; by default 1% of them, 800 at least.
        seconds: most that the pilot's pass should take, and most that its students should; the first cuts `rows`.
        seed: which rows, chosen by their content keys, and which first weights.
        watch: gets the messages, and is asked whether to stop.

    Raises:
        as `label`, for what it would refuse; and as `train`, for a student that does not fit. Interrupted: nothing is kept.

    Example:
        >>> from softlabels.jobs.plan import plan
        >>> plan(states, teacher, LabelsConfig(), "stores/planned", rows=20).verdict.partition(":")[0]  # no student, no gain
        'go'
    """
    if rows is not None and rows < 1:
        raise ConfigError(f"rows is {rows}", remedy="give a number of rows, or leave it out")
    if not seconds > 0:
        raise ConfigError(f"seconds is {seconds:g}", remedy="give a number above 0")
    root, every = folder_of(store), rows_of(transfer_set, None, watch)
    training = StudentTraining() if training is None else training
    with scratch(SCRATCH) as folder:
        with ExitStack() as stack:
            job = _job(teacher, every, labels, watch, stack)
        kinds = {each: encoding.target for each, encoding in job.encodings.items()}
        data = data_of(job.rows, kinds, watch)
        _try_student(student, every[training_split(every)])
        taken = _taken(every, teacher, labels, rows, seconds, seed, folder / "trial", watch)
        said = ", ".join(f"{split} {len(each.keys):,}" for split, each in taken.items())
        watch.say(f"pilot: {said} rows, chosen by content key (seed {seed})")
        found = pilot_pass(taken, teacher, labels, folder / "pass", watch)
        pilot = Pilot(job, taken, found, seed, folder)
        return planned(pilot, data, root, student, training, seconds, watch)


def _job(
    teacher: Ensemble | Served, rows: Mapping[str, TransferRows], labels: LabelsConfig, watch: Watch, stack: ExitStack
) -> Labelled[Any]:
    """The whole pass, once all that `label` asks first was asked."""
    if isinstance(teacher, Served):
        stack.enter_context(teacher.at_work(watch.should_stop))
        return by_server(teacher, rows, labels, {}, watch)
    return ByEnsemble(folders={}, watch=watch, **asked_of(teacher, rows, labels))


def _try_student(student: ModelConfig | None, rows: TransferRows) -> None:
    """Ask an untrained student about two rows, before the pilot takes minutes. Raises ConfigError where it cannot take them."""
    if student is not None and rows.sequence is None:
        inputs = torch.from_numpy(np.array(rows.inputs[:2]))
        answer_of(build_model(student), inputs, who=student.class_path, section="student")


def _taken(
    every: Mapping[str, TransferRows],
    teacher: Ensemble | Served,
    labels: LabelsConfig,
    rows: int | None,
    seconds: float,
    seed: int,
    folder: Path,
    watch: Watch,
) -> dict[str, TransferRows]:
    """The pilot's rows of each split: as many as asked for, by default `SHARE`, cut to what fits into the time by a first pass
    over a few.
    """
    orders = {split: shuffled_rows(each.keys, seed) for split, each in every.items()}
    wanted = {
        split: min(len(order), rows or max(LEAST, 2 * teacher.rows_at_once, round(SHARE * len(order))))
        for split, order in orders.items()
    }
    first = training_split(every)
    trial = min(wanted[first], max(teacher.rows_at_once, -(-_needed(labels) // (_positions(every[first]) or 1))))
    took = pilot_pass({first: every[first].take(orders[first][:trial])}, teacher, labels, folder, watch).wall
    each = sum(batch.seconds for batch in took[1]) / trial
    fits = int(seconds / max(each, 1e-9) / len(every))
    if cut := [split for split, count in wanted.items() if count > max(trial, fits)]:
        watch.say(f"pilot: fewer rows of {', '.join(cut)}, so that the pass takes about {seconds:.0f} s")
    return {split: every[split].take(order[: min(wanted[split], max(trial, fits))]) for split, order in orders.items()}


def _needed(labels: LabelsConfig) -> int:
    """Distributions that a trial takes at least: as many as a basis has vectors."""
    return max(256, labels.rank + 2)


def _positions(rows: TransferRows) -> int | None:
    return rows.positions if rows.sequence is None else rows.sequence.positions
