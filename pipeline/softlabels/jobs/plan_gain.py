"""From the students of a pilot's groups to their gain: by which measure, against chance, and what to do where none learnt more.

G groups, B blocks of held-out rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softlabels.jobs.splits import Split, all_batches
from softlabels.report.estimates import HOLDS, HOLDS_NLL, best, gain, rarer
from softlabels.report.measures import Measure, Results, shown
from softlabels.report.plan import Gain
from softlabels.student.sweep import HARD, StudentTraining

NLL = Measure(("nll",), "NLL")  # by which students of tokens are compared
IDLE = 0.9  # of what chance has: where a student is no better than that on its own training rows, it learnt nothing of them


@dataclass(frozen=True)
class Group:
    """The students of one group.

    Attributes:
        blocks: results on each block of held-out rows. own: on its own training rows.
        seconds: that training and judging took.
    """

    blocks: Sequence[Results]
    own: Results
    seconds: float


@dataclass(frozen=True)
class Compared:
    """By what the students of a pilot are compared.

    Attributes:
        of: the name of the target. measure: of its scores.
        chance: what the best answer has that is the same for all held-out rows: the most frequent class, the shares of the
            tokens, or the mean. None where that is not known.
    """

    of: str
    measure: Measure
    chance: float | None

    def value(self, student: Mapping[str, Any]) -> float:
        """Of a student's results: lower is better, of all measures alike."""
        [scores] = student["scores"]
        [value] = self.measure.found([scores])
        value = math.inf if value is None else float(value)
        value = value / scores["labelled"] if self.measure.path == ("errors",) else value
        return -value if self.measure.is_higher_better else value

    def is_idle(self, group: Group) -> bool:
        """Whether neither kind of student learnt anything of its own training rows."""
        return self.chance is not None and all(
            self.value(each) > IDLE * self.chance for each in group.own["students"][:2]
        )


def compared(first: Results, held_out: Split) -> Compared:
    """What results of a target, judged on held-out rows, are compared by."""
    of, tokens = first["of"], held_out.store.spec.of_tokens
    measure = NLL if tokens else shown(first).compared_by([each["scores"][0] for each in first["students"]])
    return Compared(of, measure, _chance(held_out, of, measure))


def gain_of(
    found: Sequence[Group], by: Compared, training: StudentTraining, rows: int, steps: int, advice: str
) -> Gain:
    """What the groups say together. `advice` is said where no student learnt more than chance."""
    first = found[0].blocks[0]
    tables = {
        student["label"]: [[by.value(block["students"][number]) for block in each.blocks] for each in found]
        for number, student in enumerate(first["students"])
    }
    hard, distilled = tables.pop(HARD.label), [*tables.values()]
    sign = -1.0 if by.measure.is_higher_better else 1.0
    given = training.temperature if isinstance(training.temperature, tuple) else (training.temperature,)
    temperatures = [t if isinstance(t, str) else f"{t:g}" for t in given]
    means = [sign * float(np.mean(each)) for each in distilled]
    title = "error rate" if by.measure.path == ("errors",) else by.measure.title
    learnt = by.chance is None or any(
        gain(np.full_like(each, by.chance).tolist(), each).is_above for each in (hard, distilled[0])
    )
    gained, rows_held_out = gain(hard, distilled[0]), sum(each["rows"] for each in found[0].blocks)
    alike = gained.is_point
    gained = rarer(gained, rows_held_out) if alike else gained
    return Gain(
        measure=f"{by.of}: {title}" if by.of else title,
        groups=len(found),
        rows=rows,
        held_out=rows_held_out,
        epochs=training.epochs,
        batch_size=training.batch_size,
        steps=steps,
        hard=sign * float(np.mean(hard)),
        distilled=means[0],
        interval=gained,
        alike=alike,
        holds=(HOLDS_NLL if by.measure.path == NLL.path else HOLDS)[len(found)],
        chance=by.chance,
        learnt=learnt,
        idle=by.is_idle(found[0]),
        advice="" if learnt and (gained.is_above or gained.is_below) else advice,
        temperatures=dict(zip(temperatures, means, strict=True)),
        temperature=temperatures[best(distilled, 0)] if learnt else temperatures[0],
    )


def _chance(held_out: Split, of: str, measure: Measure) -> float | None:
    if measure.path not in (("errors",), ("nll",), ("mse",)):
        return None
    labels = []
    for batch in all_batches(held_out, 256).epoch(0):
        own = batch.only(of).labels
        labels.append((own if batch.mask is None else own[batch.mask]).numpy())
    every = np.concatenate(labels)
    if measure.path == ("mse",):
        return float(np.mean(np.nanvar(every.astype(np.float64).reshape(-1, every.shape[-1]), axis=0)))
    shares = np.bincount(every[every >= 0]) / max(1, (every >= 0).sum())
    if measure.path == ("errors",):
        return float(1 - shares.max())
    return float(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])))
