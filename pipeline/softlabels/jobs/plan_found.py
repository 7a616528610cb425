"""From a pilot to a plan: what its stores, its clocks and its students say of the whole pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.jobs.judge import judge_beside_teacher
from softlabels.jobs.labelled import Labelled
from softlabels.jobs.plan_pass import PilotPass
from softlabels.jobs.plan_sizes import chosen, examined, sizes, ways
from softlabels.jobs.plan_students import MORE, pilot_students
from softlabels.jobs.splits import Split, with_members
from softlabels.jobs.watch import Watch
from softlabels.models import ModelConfig
from softlabels.objects import plain
from softlabels.report.estimates import Interval
from softlabels.report.plan import Data, Gain, Plan, Teacher
from softlabels.report.verdict import settle, unknown, verdict
from softlabels.student.split import shuffled_rows
from softlabels.student.sweep import StudentTraining
from softlabels.system.files import Folder
from softlabels.system.local import LocalFolder
from softlabels.teacher.assign import assigned
from softlabels.teacher.ensemble import TRAIN
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows

HELD_OUT = ("test", "validation")


@dataclasses.dataclass(frozen=True)
class Pilot:
    """A pilot whose pass is done.

    Attributes:
        job: the whole pass. taken: the pilot's rows of each split. done: its pass.
        seed: that chose the rows. folder: for what is still to be written, which the caller removes.
    """

    job: Labelled[Any]
    taken: Mapping[str, TransferRows]
    done: PilotPass
    seed: int
    folder: Path

    @property
    def first(self) -> str:
        """The split that students would learn from."""
        return training_split(self.taken)

    @property
    def more_rows(self) -> int:
        """Rows of that split for a larger pilot: `MORE` times as many, at most all that differ; 0 where it had these."""
        drawn, differ = len(self.taken[self.first].keys), len(shuffled_rows(self.job.rows[self.first].keys, self.seed))
        return min(differ, MORE * drawn) if drawn < differ else 0

    def splits(self, training: StudentTraining) -> dict[str, Split]:
        """Its stores with their rows, and the members that students learn from."""
        kinds = {name: each.target for name, each in self.job.encodings.items()}
        rows = {split: assigned(each, kinds, self.job.labels.names) for split, each in self.taken.items()}
        return with_members({split: Split(self.done.stores[split], each) for split, each in rows.items()}, training)


def training_split(rows: Mapping[str, TransferRows]) -> str:
    """The split that students would learn from: train, or the first."""
    return TRAIN if TRAIN in rows else next(iter(rows))


def planned(
    pilot: Pilot,
    data: Data,
    root: Folder,
    student: ModelConfig | None,
    training: StudentTraining,
    seconds: float,
    watch: Watch,
) -> Plan:
    """What a pilot says of the whole pass into `root`, its students' training included, which takes `seconds` at most."""
    job, first, done = pilot.job, pilot.first, pilot.done
    tried = ways(job, pilot.taken[first])
    sampled = examined(pilot.taken[first], job, tried)
    found = sizes(job, tried, sampled, done, pilot.folder / "other")
    splits = pilot.splits(training)
    held_out = next((each for each in HELD_OUT if each in splits and each != first), "")
    gain = _gain(pilot, splits, held_out, student, training, seconds, watch)
    encoding, why = chosen(found, _temperatures(gain, training))
    total = sum(data.rows.values())
    made = Plan(
        name=pilot.taken[first].name,
        data=data,
        pilot={split: len(each.keys) for split, each in pilot.taken.items()},
        seed=pilot.seed,
        seconds=done.seconds(total),
        cpu_seconds=done.cpu_seconds(total),
        second_machine=_halved(done.seconds(total), done.wall[0]),
        sizes=tuple(found),
        encoding=encoding,
        encoding_why=why,
        room=_room(root),
        place=str(root),
        teacher=_teacher(pilot, splits, held_out, training),
        flatness=None if sampled is None else plain(sampled.flatness),
        gain=gain,
    )
    served = isinstance(job.teacher, Served)
    made = dataclasses.replace(made, settle=settle(made), unknown=unknown(made, served=served))
    return dataclasses.replace(made, verdict=verdict(made))


def _gain(
    pilot: Pilot,
    splits: Mapping[str, Split],
    held_out: str,
    student: ModelConfig | None,
    training: StudentTraining,
    seconds: float,
    watch: Watch,
) -> Gain | str:
    if student is None:
        return "the recipe names no student"
    train, judged = (splits[pilot.first], splits[held_out]) if held_out else _cut(splits[pilot.first])
    watch.say("students of the pilot: hard against distilled, in groups that share no row")
    return pilot_students(
        student,
        training,
        train,
        judged,
        of=len(pilot.job.rows[pilot.first].keys),
        more_rows=pilot.more_rows,
        seed=pilot.seed,
        seconds=seconds,
        folder=pilot.folder / "students",
        watch=watch,
    )


def _temperatures(gain: Gain | str, training: StudentTraining) -> list[float]:
    """At which labels are used: the recipe's own, and the one to take."""
    given = training.temperature if isinstance(training.temperature, tuple) else (training.temperature,)
    taken = [gain.temperature] if isinstance(gain, Gain) else []
    return [float(t) for t in (*given, *taken) if not isinstance(t, str) or t.replace(".", "", 1).isdigit()]


def _halved(seconds: Interval, fixed: float) -> Interval:
    """With two machines, of which each does what is fixed."""
    return Interval(*(fixed + max(0.0, each - fixed) / 2 for each in (seconds.low, seconds.estimate, seconds.high)))


def _teacher(pilot: Pilot, splits: Mapping[str, Split], held_out: str, training: StudentTraining) -> Teacher:
    teacher, first = pilot.job.teacher, pilot.first

    def scores(split: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = judge_beside_teacher({}, splits[split], training)["teacher"]
        return found

    return Teacher(
        name=teacher.spec.name,
        split=held_out,
        held_out=scores(held_out) if held_out else None,
        train=scores(first),
        folds=bool(teacher.folds(pilot.taken[first])),
    )


def _cut(train: Split) -> tuple[Split, Split]:
    """Two thirds of its rows, and a third of them to judge students on, where there is no other split."""
    at = np.arange(len(train.rows.keys))
    rows = train.rows
    assert isinstance(rows, TransferRows)
    parts = [dataclasses.replace(train, rows=rows.take(at[chosen])) for chosen in (at % 3 > 0, at % 3 == 0)]
    return parts[0], parts[1]


def _room(root: Folder) -> int | None:
    """Bytes that are free where a store would go."""
    while isinstance(root, LocalFolder) and not root.exists():
        root = root.above()
    return root.room()
