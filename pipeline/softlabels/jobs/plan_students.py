"""What small students gain in a pilot: hard against distilled, over groups of training rows that have no row in common.

Each group has rows and a seed of its own, and every group's students are judged on the same blocks of held-out rows. So a table
of groups by blocks holds all that varies from pilot to pilot: `softlabels.report.estimates.gain` says what follows from it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import Interrupted
from softlabels.jobs.judge import Judged, judge_run
from softlabels.jobs.plan_gain import Compared, Group, compared, gain_of
from softlabels.jobs.possible import require_possible
from softlabels.jobs.splits import Split, training_batches
from softlabels.jobs.student_fit import fitted
from softlabels.jobs.students import hard_labels, labelled_targets, require_losses
from softlabels.jobs.train import begun_students, variants_of
from softlabels.jobs.watch import Watch
from softlabels.labels.hard import are_labelled
from softlabels.models import ModelConfig
from softlabels.report.plan import Gain
from softlabels.report.views import views
from softlabels.student.sweep import StudentTraining
from softlabels.student.trainer import Trainer

# Groups of training rows, and blocks of held-out rows; fewer where rows or time are short, FEWEST at least.
GROUPS, BLOCKS, FEWEST = 8, 16, 4
MORE = 4  # times the steps, or the rows, that are tried or named next
LEAST = 8  # rows of a group, and of a block
STEPS = (200, 1000)  # of a student: at least, and at most where the recipe's epochs make more
MARGIN = 1.25  # of the seconds that are named for more, since the next group may take longer
TRIED = (1.0, 2.0, 4.0, 8.0)  # temperatures beside the recipe's own


def pilot_training(training: StudentTraining, train: Split, rows: int, least: int) -> StudentTraining:
    """How students of `rows` training rows are trained: as the recipe says, at its own temperature and some others, without
    validation rows; in batches of a quarter of the rows at most, for as many epochs as make between `least` and 1,000 steps.
    """
    own = _first(training.temperature)
    encodings = [each.store.encoding for each in train.each.values()]
    tried = [t for t in TRIED if t != own and all(e.nearest(t) == t for e in encodings)]
    has_temperature = any(kind != "values" for kind in train.kinds.values())
    size = min(training.batch_size, max(1, rows // 4))
    steps = -(-rows // size)
    epochs = min(max(training.epochs, -(-least // steps)), max(1, max(least, STEPS[1]) // steps))
    return dataclasses.replace(
        training,
        temperature=(own, *tried) if has_temperature else own,
        alpha=None if training.alpha is None else _first(training.alpha),
        loss=_first(training.loss),
        baseline=True,
        row_fraction=1.0,
        validation=0.0,
        keep="last",
        batch_size=size,
        micro_batch=None if training.micro_batch is None else min(size, training.micro_batch),
        epochs=epochs,
        checkpoint_every=epochs,
        shard=False,
        divide="auto",
    )


def pilot_students(
    student: ModelConfig,
    training: StudentTraining,
    train: Split,
    held_out: Split,
    *,
    of: int,
    more_rows: int,
    seed: int,
    seconds: float,
    folder: Path,
    watch: Watch,
) -> Gain | str:
    """The gain of distilled over hard students, or why nothing can be said of it.

    Args:
        train, held_out: the pilot's rows, in an order that content keys decide; each group has its share of the first.
        of: training rows of the whole transfer set, which say how many steps the recipe's own students take.
        more_rows: that a larger pilot would have; 0 where there is none.
        seed: of the first group; the next have the next.
        seconds: no group is begun that would end later.
        folder: for what training writes, which the caller removes.

    Raises as `train` does.
    """
    if not labelled_targets(train) or not labelled_targets(held_out):
        return "no row of the pilot has a hard label, and a gain is measured against students of hard labels"
    held_out = _labelled(held_out)
    groups, blocks = min(GROUPS, len(train.rows.keys) // LEAST), _blocks(held_out)
    if min(groups, blocks) < FEWEST:
        return (
            f"the pilot has too few rows for {FEWEST} groups of {LEAST} training rows, and {FEWEST} blocks of {LEAST} held-out "
            f"rows with a hard label{', of flags one that is 1' * ('sigmoid' in held_out.kinds.values())}"
        )
    rows = len(train.rows.keys) // groups
    if 0 < training.hard_label_fraction * rows < 1 or training.hard_label_fraction == 0:
        return f"hard_label_fraction={training.hard_label_fraction:g} leaves a group of {rows} rows no hard label"
    pilot = _Students(student, training, train, held_out, groups, blocks, seed, folder, watch)
    whole = training.epochs * -(-of // training.batch_size)
    least, first = STEPS[0], pilot.group(0, STEPS[0])
    by = compared(first.blocks[0], held_out)
    while by.is_idle(first) and (more := min(whole, MORE * pilot.steps(least))) > pilot.steps(least):
        if first.seconds * more / pilot.steps(least) * FEWEST > seconds:
            break
        least, first = more, pilot.group(0, more)
    found = [first]
    while len(found) < groups and _mean(found) * max(FEWEST, len(found) + 1) <= seconds:
        found.append(pilot.group(len(found), least))
    if len(found) < FEWEST:
        need = MARGIN * FEWEST * max(each.seconds for each in found)
        return f"a group of students takes {first.seconds:.0f} s, and {FEWEST} are needed: give --seconds={math.ceil(need):d}"
    advice = _advice(by, found, pilot.steps(least), whole, more_rows)
    return gain_of(found, by, pilot.settings(least), rows, pilot.steps(least), advice)


def _advice(by: Compared, found: Sequence[Group], steps: int, whole: int, more_rows: int) -> str:
    """An option that would tell more: steps where students did not learn their own training rows, up to the `whole` recipe's;
    else rows. "" where there are no more.
    """
    if by.is_idle(found[0]):
        need = MARGIN * FEWEST * found[0].seconds * min(whole / steps, MORE)
        return f"--seconds={math.ceil(need)}" if steps < whole else ""
    return f"--rows={more_rows}" if more_rows else ""


@dataclasses.dataclass(frozen=True)
class _Students:
    """Groups of students that are to be trained and judged."""

    student: ModelConfig
    training: StudentTraining
    train: Split
    held_out: Split
    groups: int
    blocks: int
    seed: int
    folder: Path
    watch: Watch

    def settings(self, least: int) -> StudentTraining:
        """Of a group that trains for `least` steps or more."""
        return pilot_training(self.training, self.train, len(self.train.rows.keys) // self.groups, least)

    def steps(self, least: int) -> int:
        """So many they are."""
        settings = self.settings(least)
        return settings.epochs * -(-(len(self.train.rows.keys) // self.groups) // settings.batch_size)

    def group(self, number: int, least: int) -> Group:
        """Train and judge one."""
        began, quiet = time.monotonic(), dataclasses.replace(self.watch, say=_nothing)
        training = dataclasses.replace(self.settings(least), seeds=(self.seed + number,))
        splits = {"train": _part(self.train, number, self.groups), "test": self.held_out}
        training, splits = fitted(self.student, splits, training)
        variants = variants_of(training, splits["train"], quiet)
        batches, _ = training_batches(splits, training)
        students = begun_students(self.student, training, splits["train"], variants, batches)
        for each in students:
            require_losses(each, splits, batches, None)
        require_possible(students, splits["train"], batches.rows)
        try:
            Trainer(students, batches, None, self.folder / f"{number}-{least}", {}).run(self.watch.should_stop)
        except Interrupted as error:
            raise Interrupted(
                "the pilot was stopped, and nothing of it is kept", remedy="run the same command again"
            ) from error
        judged = [Judged(variant, [each.model]) for variant, each in zip(variants, students, strict=True)]

        def results(test: Split) -> Mapping[str, Any]:
            every = views(judge_run(training, splits | {"test": test}, judged, {}))
            name = next((each for each, one in every.items() if one.get("target", "softmax") == "softmax"), "")
            name = name if name in every else next(iter(every))
            return {**every[name], "of": name}

        found = [results(_part(splits["test"], block, self.blocks)) for block in range(self.blocks)]
        return Group(found, results(splits["train"]), time.monotonic() - began)


def _labelled(split: Split) -> Split:
    """The rows that have a hard label of every target that has some."""
    if split.store.spec.of_tokens:
        return split
    known = np.ones(len(split.rows.keys), np.bool_)
    for name in labelled_targets(split):
        own = are_labelled(hard_labels(split.each[name]), split.kinds[name])
        known &= own.reshape(len(known), -1).any(axis=1)
    return dataclasses.replace(split, rows=split.rows.take(np.flatnonzero(known)))  # type: ignore[union-attr]  # as below


def _blocks(held_out: Split) -> int:
    """Into how many blocks held-out rows are cut: as many as have `LEAST` rows each, and of flags one at least that is 1, since
    no score is known without one.
    """
    most = min(BLOCKS, len(held_out.rows.keys) // LEAST)
    first, kind = next(iter(held_out.kinds.items()))
    if "softmax" in held_out.kinds.values() or kind != "sigmoid":
        return most
    flags = hard_labels(held_out.each[first])
    true = (flags == 1).reshape(len(flags), -1).any(axis=1)
    return next((n for n in range(most, 0, -1) if all(true[block::n].any() for block in range(n))), 0)


def _part(split: Split, group: int, groups: int) -> Split:
    at = np.arange(group, len(split.rows.keys), groups)
    return dataclasses.replace(split, rows=split.rows.take(at))  # type: ignore[union-attr]  # rows of a transfer set


def _mean(found: Sequence[Group]) -> float:
    """Seconds of a group."""
    return sum(each.seconds for each in found) / len(found)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _nothing(line: str) -> None:
    """What is said of each group is not said of the pilot."""
