"""Go or no-go, from what a pilot found: what to settle first, what no pilot can say, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator

from softlabels.report.estimates import FACTOR
from softlabels.report.plan import Gain, Plan

SURE = 0.98  # share of top probabilities near 1 from which there is hardly anything to learn but the class
REMEMBERED = 0.02  # by which a teacher is more often right on training rows than on others
LONG = 600.0  # seconds of a pass, from which on it matters how well they are known
SHARED = 0.01  # share of the held-out rows that are training rows too
_ALIKE = {"error rate": "the most frequent class", "NLL": "the shares of the tokens", "MSE": "the mean"}  # by measure


def settle(plan: Plan) -> tuple[str, ...]:
    """What speaks against a pass as the recipe says it; nothing where it may go."""
    return tuple(_against(plan))


def unknown(plan: Plan, *, served: bool) -> tuple[str, ...]:
    """What this pilot cannot say, of a teacher that is `served`."""
    return tuple(_not_known(plan, served))


def verdict(plan: Plan) -> str:
    """One sentence."""
    if plan.settle:
        return f"settle first: {'; '.join(plan.settle)}."
    gain = plan.gain
    if isinstance(gain, Gain) and gain.learnt:
        gained = (
            f"; in the pilot a student's {gain.measure} went from {gain.hard:.3g} to {gain.distilled:.3g} "
            f"(gain {gain.interval.low:.2g} to {gain.interval.high:.2g})"
        )
    elif isinstance(gain, Gain) or (plan.teacher.held_out or {}).get("accuracy") is not None:
        gained = ", but what students gain is not known"
    else:
        gained = ", but the pilot does not say whether its labels are any better than hard ones"
    return f"go: {amount(own_bytes(plan))} in about {duration_of(plan.seconds.estimate)}{gained}."


def _error(plan: Plan) -> float:
    """Standard error of how much more often the teacher is right on training rows than on held-out ones."""
    both = (plan.teacher.train, plan.teacher.held_out or {})
    return math.sqrt(sum(each["accuracy"] * (1 - each["accuracy"]) / each["labelled"] for each in both))


def own_bytes(plan: Plan) -> int:
    """Of the way that the recipe names."""
    return next(each.bytes for each in plan.sizes if each.is_own)


def amount(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration_of(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.1f} days"


def _against(plan: Plan) -> Iterator[str]:
    if plan.room is not None and own_bytes(plan) > plan.room:
        yield f"the store takes {amount(own_bytes(plan))} and {plan.place} has {amount(plan.room)} free"
    right, largest = (plan.teacher.held_out or {}).get("accuracy"), plan.data.largest
    if right is not None and largest is not None and right <= largest:
        yield f"the teacher is right on {right:.1%} of held-out rows, and the most frequent class alone on {largest:.1%}"
    if plan.flatness is not None and plan.flatness["sure"] >= SURE:
        yield (
            f"the teacher's largest probability is above 0.99 on {plan.flatness['sure']:.1%} of the rows, so at T=1 its labels "
            "say little more than a class: take rows that it has not seen, folds, or a high temperature"
        )
    rows = plan.data.rows.get(plan.teacher.split)
    if rows and plan.shared > SHARED * rows:
        yield f"{plan.shared:,} of {rows:,} {plan.teacher.split} rows are training rows too"
    if isinstance(plan.gain, Gain):
        yield from _against_gain(plan, plan.gain)
    if LONG < plan.seconds.high > 1.01 * FACTOR**2 * plan.seconds.low:
        yield "the times of the pilot's batches vary too much to know the pass to a factor of 2: take more rows (--rows)"


def _against_gain(plan: Plan, gain: Gain) -> Iterator[str]:
    if not gain.learnt:
        if gain.advice:
            yield f"{unlearnt(gain)}: give {gain.advice}"
    elif gain.interval.is_below:
        yield "students of the pilot were worse with the teacher's labels than with hard labels alone"
    elif not gain.interval.is_above:
        remedy = (
            f"give {gain.advice}"
            if gain.advice
            else "no larger one can, so compare students of all rows (train-student)"
        )
        yield f"the pilot does not show that students gain (the interval holds 0): {remedy}"


def unlearnt(gain: Gain) -> str:
    """That no student of a pilot learnt more than chance, and what they lack."""
    alike = _ALIKE[gain.measure.rpartition(": ")[2]]
    lack = (
        f"they did not learn their own training rows either, in {gain.steps:,} steps"
        if gain.idle
        else f"they learnt their own {gain.rows:,} training rows and little or nothing of others"
    )
    return (
        f"students of the pilot were not better than {alike} by two standard errors ({gain.measure} "
        f"{gain.hard:.3g} with hard labels, {gain.distilled:.3g} distilled, {gain.chance:.3g} by {alike} alone), so nothing is "
        f"known of what they gain; {lack}"
    )


def _not_known(plan: Plan, served: bool) -> Iterator[str]:
    train, held_out = plan.teacher.train.get("accuracy"), (plan.teacher.held_out or {}).get("accuracy")
    if not plan.teacher.folds:
        apart = ""
        if train is not None and held_out is not None and math.isfinite(train):
            apart = f" (right on {train:.1%} of the pilot's training rows, {held_out:.1%} of held-out ones)"
            if train - held_out > max(REMEMBERED, 2 * _error(plan)):
                apart += ", which looks like memory"
        yield (
            f"whether the teacher was trained on these rows{apart}: without folds (teacher.folds) "
            "nothing is known about labels out of fold"
        )
    if isinstance(plan.gain, Gain) and not plan.gain.learnt:
        can = "" if plan.gain.advice else ", and no pilot of these rows and this training can tell"
        yield f"what students gain: {unlearnt(plan.gain)}{can}"
    elif isinstance(plan.gain, Gain):
        yield (
            f"what students gain on all rows: the pilot's students saw {plan.gain.rows:,} rows each, for {plan.gain.epochs:,} "
            "epochs, and the gain usually shrinks with more hard labels"
        )
    if served:
        yield "the rate of the server under another load"
    yield "the rate of this machine at another time, with other work"
