"""What small students gain in a pilot: hard against distilled, over groups of rows that have no row in common.

Each group has training rows, held-out rows and a seed of its own, so its gain is one draw of all that varies, and groups are
independent: the standard error of their mean is that of a repetition of the pilot. G groups.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import Interrupted
from softlabels.jobs.judge import Judged, judge_run
from softlabels.jobs.possible import require_possible
from softlabels.jobs.splits import Split, training_batches
from softlabels.jobs.student_fit import fitted
from softlabels.jobs.students import labelled_targets, require_losses
from softlabels.jobs.train import begun_students, variants_of
from softlabels.jobs.watch import Watch
from softlabels.models import ModelConfig
from softlabels.report.estimates import best, gain
from softlabels.report.measures import Measure, shown
from softlabels.report.plan import Gain
from softlabels.report.views import views
from softlabels.student.sweep import HARD, StudentTraining
from softlabels.student.trainer import Trainer

GROUPS, FEWEST = 8, 4  # of the pilot's rows; fewer where time is short, and below FEWEST nothing is said
LEAST = 8  # training rows of a group, and held-out ones
STEPS = (200, 1000)  # of a student
NLL = Measure(("nll",), "NLL")  # by which students of tokens are compared
TRIED = (1.0, 2.0, 4.0, 8.0)  # temperatures beside the recipe's own


def pilot_training(training: StudentTraining, train: Split, rows: int) -> StudentTraining:
    """How students of `rows` training rows are trained: as the recipe says, at its own temperature and some others, without
    validation rows; in batches of a quarter of the rows at most, for as many epochs as make between 200 and 1,000 steps.
    """
    own = _first(training.temperature)
    encodings = [each.store.encoding for each in train.each.values()]
    tried = [t for t in TRIED if t != own and all(e.nearest(t) == t for e in encodings)]
    has_temperature = any(kind != "values" for kind in train.kinds.values())
    size = min(training.batch_size, max(1, rows // 4))
    steps = -(-rows // size)
    epochs = min(max(training.epochs, -(-STEPS[0] // steps)), max(1, STEPS[1] // steps))
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
    seed: int,
    seconds: float,
    folder: Path,
    watch: Watch,
) -> Gain | str:
    """The gain of distilled over hard students, or why nothing can be said of it.

    Args:
        train, held_out: the pilot's rows, in an order that content keys decide; each group has its share of both.
        seed: of the first group; the next have the next.
        seconds: no group is begun that would end later.
        folder: for what training writes, which the caller removes.

    Raises as `train` does.
    """
    if not labelled_targets(train) or not labelled_targets(held_out):
        return "no row of the pilot has a hard label, and a gain is measured against students of hard labels"
    groups = min(GROUPS, len(train.rows.keys) // LEAST, len(held_out.rows.keys) // LEAST)
    if groups < FEWEST:
        return f"the pilot has too few rows for {FEWEST} groups of {LEAST} training and {LEAST} held-out rows"
    rows = len(train.rows.keys) // groups
    if 0 < training.hard_label_fraction * rows < 1 or training.hard_label_fraction == 0:
        return f"hard_label_fraction={training.hard_label_fraction:g} leaves a group of {rows} rows no hard label"
    settings = pilot_training(training, train, rows)
    began, found = time.monotonic(), list[Mapping[str, Any]]()
    for group in range(groups):
        spent = time.monotonic() - began
        if group and spent * (group + 1) / group > seconds:
            break
        splits = {"train": _part(train, group, groups), "test": _part(held_out, group, groups)}
        found.append(
            _results(student, dataclasses.replace(settings, seeds=(seed + group,)), splits, folder / str(group), watch)
        )
    if len(found) < FEWEST:
        return f"a group of students takes {(time.monotonic() - began) / len(found):.0f} s, and {FEWEST} are needed"
    return _gain(found, settings, rows)


def _results(
    student: ModelConfig, training: StudentTraining, splits: dict[str, Split], folder: Path, watch: Watch
) -> Mapping[str, Any]:
    training, splits = fitted(student, splits, training)
    variants = variants_of(training, splits["train"], dataclasses.replace(watch, say=_nothing))
    batches, _ = training_batches(splits, training)
    students = begun_students(student, training, splits["train"], variants, batches)
    for each in students:
        require_losses(each, splits, batches, None)
    require_possible(students, splits["train"], batches.rows)
    try:
        Trainer(students, batches, None, folder, {}).run(watch.should_stop)
    except Interrupted as error:
        raise Interrupted(
            "the pilot was stopped, and nothing of it is kept", remedy="run the same command again"
        ) from error
    judged = [Judged(variant, [each.model]) for variant, each in zip(variants, students, strict=True)]
    every = views(judge_run(training, splits, judged, {}))
    name = next((each for each, view in every.items() if view.get("target", "softmax") == "softmax"), next(iter(every)))
    return {**every[name], "of": name, "of_tokens": splits["train"].store.spec.of_tokens}


def _gain(found: Sequence[Mapping[str, Any]], training: StudentTraining, rows: int) -> Gain:
    """What the results of the groups say together."""
    first = found[0]
    measure = shown(first).compared_by([student["scores"][0] for student in first["students"]])
    measure = NLL if first["of_tokens"] else measure
    title = "error rate" if measure.path == ("errors",) else measure.title
    values = {
        student["label"]: [_value(each["students"][number]["scores"][0], measure) for each in found]
        for number, student in enumerate(first["students"])
    }
    hard, (own, *others) = values.pop(HARD.label), values.items()
    sign = -1.0 if measure.is_higher_better else 1.0
    distilled = [[sign * value for value in each] for _, each in (own, *others)]
    given = training.temperature if isinstance(training.temperature, tuple) else (training.temperature,)
    temperatures = [t if isinstance(t, str) else f"{t:g}" for t in given]
    means = [float(np.mean(each)) for each in (own[1], *(each for _, each in others))]
    return Gain(
        measure=f"{first['of']}: {title}" if first["of"] else title,
        groups=len(found),
        rows=rows,
        held_out=min(each["rows"] for each in found),
        epochs=training.epochs,
        batch_size=training.batch_size,
        hard=float(np.mean(hard)),
        distilled=float(np.mean(own[1])),
        interval=gain([sign * value for value in hard], distilled[0]),
        temperatures=dict(zip(temperatures, means, strict=True)),
        temperature=temperatures[best(distilled, 0)],
    )


def _value(scores: Mapping[str, Any], measure: Measure) -> float:
    [value] = measure.found([scores])
    return value / scores["labelled"] if measure.path == ("errors",) else float(value)


def _part(split: Split, group: int, groups: int) -> Split:
    at = np.arange(group, len(split.rows.keys), groups)
    return dataclasses.replace(split, rows=split.rows.take(at))  # type: ignore[union-attr]  # rows of a transfer set


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _nothing(line: str) -> None:
    """What is said of each group is not said of the pilot."""
