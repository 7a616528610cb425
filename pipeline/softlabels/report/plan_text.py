"""A plan in words: sentences and tables, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from softlabels.errors import one_line
from softlabels.labels.fidelity import nats
from softlabels.report.plan import Gain, Plan
from softlabels.report.table import Table, as_text
from softlabels.report.verdict import amount, duration_of, unlearnt

_SCORES = (
    ("accuracy", "right"),
    ("nll", "NLL"),
    ("ece", "ECE"),
    ("brier", "Brier"),
    ("map", "mAP"),
    ("rmse", "RMSE"),
    ("r2", "R2"),
)
_SHOWN = ("1", "2", "4")  # temperatures of the tables


@dataclass(frozen=True)
class Part:
    """What is said of one question: sentences and tables, in their order."""

    title: str
    said: tuple[str | Table, ...]


def first_line(plan: Plan) -> str:
    """Who was asked about what."""
    rows = ", ".join(f"{split} {count:,}" for split, count in plan.data.rows.items())
    asked = ", ".join(f"{split} {count:,}" for split, count in plan.pilot.items())
    return one_line(f"{plan.name}: {rows} rows; the pilot asked {plan.teacher.name} about {asked}", None)


def parts(plan: Plan) -> list[Part]:
    """Everything but the verdict."""
    return [
        Part("Rows", tuple(_data(plan))),
        Part("Teacher against hard labels", tuple(_teacher(plan))),
        Part("What its distributions say beyond a class", tuple(_flatness(plan))),
        Part("The store, by how labels are kept", tuple(_sizes(plan))),
        Part("The pass on this machine", tuple(_pass(plan))),
        Part("Students", tuple(_gain(plan))),
        Part("Not known", plan.unknown),
    ]


def lines(plan: Plan) -> Iterator[str]:
    """Line by line, for a terminal; the verdict last."""
    yield first_line(plan)
    for part in parts(plan):
        yield from ("", part.title)
        for said in part.said:
            every = as_text(said).splitlines() if isinstance(said, Table) else [one_line(said, None)]
            yield from (f"  {line}" for line in every)
    yield from ("", one_line(f"Verdict: {plan.verdict}", None))


def _data(plan: Plan) -> Iterator[str]:
    data = plan.data
    for split, count in data.unlabelled.items():
        yield f"{count:,} of {data.rows[split]:,} {split} rows have no hard label"
    yield from data.leaks
    if data.largest is not None and data.smallest is not None:
        yield (
            f"{data.classes} classes among the labelled training rows; the most frequent has {data.largest:.1%} of them, the "
            f"least frequent {data.smallest:.1%}"
        )
    if not data.leaks:
        yield "no row is in two splits, or twice in one (by content key)"


def _teacher(plan: Plan) -> Iterator[str]:
    said = [(plan.teacher.split, plan.teacher.held_out, "held out"), ("train", plan.teacher.train, "training rows")]
    for split, scores, what in said:
        if scores is not None:
            yield f"{what}{f' ({split})' if what == 'held out' else ''}: {_scores(scores)}"
    if plan.teacher.held_out is None:
        yield "no split is held out, so its scores on new rows are not known"


def _scores(scores: Mapping[str, Any]) -> str:
    every = scores.get("targets", {"": scores})
    name = next((each for each, own in every.items() if "accuracy" in own), next(iter(every)))
    one = every[name]
    found = [
        f"{title} {one[name]:.1%}" if name == "accuracy" else f"{title} {one[name]:.3f}"
        for name, title in _SCORES
        if name in one
    ]
    of = f" of {one['labelled']:,} with a label" if one.get("labelled") else ""
    return f"{name}{': ' * bool(name)}{', '.join(found) or 'no hard labels to compare with'}{of}"


def _flatness(plan: Plan) -> Iterator[str | Table]:
    found = plan.flatness
    if found is None:
        yield "not measured: the outputs are not distributions with known logits"
        return
    cells = [
        (
            f"T = {t}",
            f"{found['entropy'][t]:.3f}",
            f"{found['top'][t]:.4f}",
            *(f"{tail[t]:.1e}" for tail in found["tail"].values()),
        )
        for t in found["entropy"]
    ]
    titles = ("", f"entropy (of {found['most']:.2f})", "largest", *(f"beyond {k}" for k in found["tail"]))
    yield (Table(titles, tuple(cells)))
    yield f"above 0.99 at T = 1: {found['sure']:.1%} of the distributions"


def _sizes(plan: Plan) -> Iterator[str | Table]:
    layouts = list(dict.fromkeys(each.layout for each in plan.sizes))
    names = dict.fromkeys(each.name for each in plan.sizes)
    cells = []
    for name in names:
        own = [each for each in plan.sizes if each.name == name]
        kl = own[0].kl or {}
        known = [nats(kl[t]) if t in kl else "" for t in _SHOWN]
        marked = f"{name}{' (recipe)' if own[0].is_own else ''}{' *' if name == plan.encoding else ''}"
        cells.append((marked, *(amount(each.bytes) for each in own), *known))
    yield (Table(("", *layouts, *(f"mean KL, T = {t}" for t in _SHOWN)), tuple(cells)))
    yield f"* take {plan.encoding}: {plan.encoding_why}"
    yield f"free at {one_line(plan.place, None)}: {'unknown' if plan.room is None else amount(plan.room)}"


def _pass(plan: Plan) -> Iterator[str]:
    time, cpu, two = plan.seconds, plan.cpu_seconds, plan.second_machine
    yield f"about {duration_of(time.estimate)}, between {duration_of(time.low)} and {duration_of(time.high)}"
    yield f"processor: {duration_of(cpu.low)} to {duration_of(cpu.high)}"
    yield f"with one more machine like it about {duration_of(two.estimate)} (docs/scaling.md)"


def _gain(plan: Plan) -> Iterator[str]:
    gain = plan.gain
    if not isinstance(gain, Gain):
        yield f"not known: {gain}"
        return
    yield (
        f"{gain.groups} groups of {gain.rows:,} training rows, {gain.steps:,} steps each ({gain.epochs:,} epochs in batches of "
        f"{gain.batch_size}); all judged on the same {gain.held_out:,} held-out rows"
    )
    if not gain.learnt:
        yield f"not known: {unlearnt(gain)}"
        return
    low, high = gain.interval.low, gain.interval.high
    both = f"hard {gain.hard:.4g}, distilled {gain.distilled:.4g}"
    yield f"{gain.measure}: {both}; gain {gain.interval.estimate:.4g}, {low:.4g} to {high:.4g}"
    how = (
        f"3 in {gain.held_out:,} rows either way, since the gain was the same everywhere"
        if gain.alike
        else "the mean over the groups ± two standard errors"
    )
    least = "at least " * gain.measure.endswith("NLL")
    yield (
        f"the interval is {how}, for students of so few rows; it holds the mean of very many such pilots "
        f"{least}{100 * gain.holds:.0f} times in 100; for students of all rows it says only whether there is something to "
        "learn"
    )
    own, *_ = gain.temperatures
    shown = ", ".join(f"{t}: {value:.4g}" for t, value in gain.temperatures.items())
    yield f"by temperature: {shown}"
    if gain.temperature == own:
        yield f"keep temperature {own}: no other is better by more than two standard errors"
    else:
        yield f"take temperature {gain.temperature}: it is better than {own} by more than two standard errors"
