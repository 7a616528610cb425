"""The section of a page on runs: what each learnt, how it compares with teacher and hard labels, and where they differ.

Its numbers are `shown_run`'s, and `static/runs.js` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softlabels.pages.held_out import HeldOut
from softlabels.pages.markup import Html, element, facts, joined, numbers_of, paragraph, plot, table
from softlabels.pages.section import Section
from softlabels.pages.shown_run import ShownRun, calibration_of, classes_of, curves_of, main_numbers, sweep_of
from softlabels.report.by_class import class_name, class_table, has_classes
from softlabels.report.comparison import (
    best_student,
    comparison_table,
    distilled_students,
    judged_on,
    statements,
    teacher_name,
)
from softlabels.report.measures import Results
from softlabels.report.table import cell

_APART = 12  # classes in the table of where two students differ


def runs_sections(runs: Sequence[ShownRun], rows: Mapping[tuple[str, str], str] | None = None) -> list[Section]:
    """The section on these runs; none of no run. `rows`: the names of the sections that show rows, by split and target."""
    if not runs:
        return []
    data: dict[str, Any] = {"runs": []}
    parts = [_overview(runs)] if len(runs) > 1 else []
    for number, run in enumerate(runs):
        html, own = _run(run, f"run-{number}", rows or {}, heading=len(runs) > 1)
        parts.append(element("div", html, class_="run", data_run=run.name, id=f"run-{number}"))
        data["runs"].append(own)
    return [Section("runs", "Runs" if len(runs) > 1 else f"Run {runs[0].name}", joined(parts), data, "runs")]


def _overview(runs: Sequence[ShownRun]) -> Html:
    """What is compared in each run, side by side; of several targets by the first."""
    lines: list[list[str]] = []
    for run in runs:
        view = next(iter(run.views.values()))
        by, models = main_numbers(view)
        for name, scores in models.items():
            own = f"{len(scores)} seed{'s' * (len(scores) > 1)}" if name != teacher_name(view) else ""
            lines.append([run.name, name, f"{by.title} on {view['split']}", cell(scores, by), own])
    said = (
        "The runs side by side: the main score of each, mean and standard deviation over its seeds. Runs that were judged on "
        "different rows cannot be compared. Choose a run below to see all of it."
    )
    return joined([paragraph(said), table(["run", "model", "measure", "value", ""], lines, numbers=3)])


def _run(
    run: ShownRun, name: str, rows: Mapping[tuple[str, str], str], *, heading: bool
) -> tuple[Html, dict[str, Any]]:
    """One run, and its data."""
    level = "h4" if heading or {*run.views} != {""} else "h3"
    curves, step = curves_of(run)
    data: dict[str, Any] = {"name": run.name, "curves": curves, "targets": []}
    parts: list[Html | None] = [element("h3", run.name) if heading else None, _facts(run)]
    if run.other_store:
        parts.append(paragraph(run.other_store))
    for number, (target, view) in enumerate(run.views.items()):
        place = f"{name}-{number}"
        html, own = _target(run, target, view, place, rows.get((run.split, target)), level)
        parts += [element("h3", f"Target {target}") if target else None, html]
        data["targets"].append(own)
    parts += [_curves(name, curves, step, level), _sizes(run, level)]
    return joined(parts), data


def _facts(run: ShownRun) -> Html:
    results = run.results
    stores = results["store"] if isinstance(results["store"], list) else [results["store"]]
    swept = ", ".join(results.get("swept", ())) or "nothing"
    pairs = [
        ("store", ", ".join(map(str, stores))),
        ("judged on", judged_on(next(iter(run.views.values())))),
        ("swept", swept),
    ]
    return facts(pairs)


def _target(
    run: ShownRun, target: str, view: Results, place: str, rows: str | None, level: str
) -> tuple[Html, dict[str, Any]]:
    """What is said of one target, and its data."""
    sweep, classes, said = sweep_of(view), classes_of(view), run.held_out_of(target)
    data = {"place": place, "sweep": sweep, "classes": classes, "calibration": said and calibration_of(said)}
    parts = [_comparison(view, level), _sweep(place, sweep, view, level)]
    if said is not None:
        parts += [_calibration(place, said, level), _apart(said, view, rows, level)]
    elif run.untold and view.get("target") != "values":
        parts.append(paragraph(f"Calibration and rows are not shown for this run: {run.untold}"))
    if classes is not None:
        parts.append(_classes(place, classes, view, level))
    return joined(parts), data


def _comparison(view: Results, level: str) -> Html:
    found = comparison_table(view)
    of = "mean ± standard deviation over the seeds" if len(view["seeds"]) > 1 else "one seed"
    said = (
        f"Teacher and students on the held-out split ({of}). A difference of students is taken seed by seed; one below two "
        "of its standard errors may be chance."
    )
    lines = element("ul", joined(element("li", line) for line in statements(view)))
    return joined([element(level, "Comparison"), paragraph(said), table(found.titles, found.lines), lines])


def _curves(name: str, curves: Sequence[Any], step: int, level: str) -> Html | None:
    if not curves:
        return None
    kept = (
        "" if step == 1 else f" The plots have one epoch in {step:,}, and the last, lowest and highest of each curve."
    )
    said = (
        "Learning curves: bold is the mean over the seeds, thin is a seed. A validation loss that rises while the training "
        f"loss falls says that training was long enough. Losses of different settings cannot be compared. The other scores are "
        f"of the validation rows; the learning rate is the optimizer's.{kept}"
    )
    places = (
        plot(f"{name}-curve-{number}", f"{each['title']} over the epochs, a line a student: {_ends(each)}")
        for number, each in enumerate(curves)
    )
    return joined([element(level, "Learning curves"), paragraph(said), element("div", joined(places), class_="plots")])


def _ends(panel: Any) -> str:
    """Where the curves of a panel end, in words."""
    last: dict[str, list[float]] = {}
    for line in panel["lines"]:
        last.setdefault(line["student"], []).append(line["values"][-1])
    ends = [f"{name} ends at {math.fsum(values) / len(values):.4g}" for name, values in last.items()]
    return ", ".join(ends[:6]) + (f" and {len(ends) - 6} more" if len(ends) > 6 else "")


def _sweep(place: str, sweep: Sequence[Any], view: Results, level: str) -> Html | None:
    if not sweep:
        return None
    count = len(distilled_students(view))
    bars = "Bars are standard deviations over the seeds. " if len(view["seeds"]) > 1 else ""
    said = (
        f"The sweep: {count} settings, each a point. {bars}Choose a setting by the validation rows if they are shown: the "
        "best of several looks better than it is on the rows that chose it. If bars overlap widely, the choice matters little."
    )
    places, lines = [], []
    for number, panel in enumerate(sweep):
        points = panel["points"]
        best = min(points, key=lambda point: point["mean"], default=None)
        least = f", lowest {best['mean']:g} at {best['x']}" if best else ""
        places.append(plot(f"{place}-sweep-{number}", f"{panel['title']} over {panel['axis']}{least}"))
        lines += [
            [
                panel["title"],
                point["line"],
                f"{point['x']}",
                f"{point['mean']:g}",
                f"{point['high'] - point['mean']:.3g}",
            ]
            for point in points
        ]
    details = numbers_of(
        "Numbers of the sweep",
        table(["panel", "line", sweep[0]["axis"], "mean", "standard deviation"], lines, numbers=3),
    )
    return joined([element(level, "Sweep"), paragraph(said), element("div", joined(places), class_="plots"), details])


def _calibration(place: str, said: HeldOut, level: str) -> Html:
    grid, names = [*said.grid], [*said.kinds]
    start = min(range(len(grid)), key=lambda number: abs(math.log(grid[number])))
    errors = {name: said.calibration_errors(name) for name in names}
    of = "" if said.rows == said.of else f", a sample of {said.rows:,} of {said.of:,} rows evenly by content key"
    follows = (
        f"It follows the slider in {len(grid)} steps of T."
        if len(grid) > 1
        else f"It is at T = {grid[0]:g} and does not follow the slider."
    )
    text = (
        "Calibration: the share of right answers at each confidence. On the diagonal a model is right as often as it "
        "says; below, it is overconfident, above, underconfident. The students are the best seed of each kind by validation. "
        f"{said.labelled:,} labelled of {said.positions:,} on the split {said.split}{of}. {follows}"
    )
    shown = ", ".join(f"{name} {errors[name][start]:.3f}" for name in names)
    picked = sorted({start, *range(0, len(grid), max(1, len(grid) // 8))})
    lines = [[f"{grid[at]:g}", *(f"{errors[name][at]:.4f}" for name in names)] for at in picked]
    now = f"At T = {grid[start]:g} the expected calibration error (ECE, 15 bins) is: {shown}."
    return joined(
        [
            element(level, "Calibration"),
            paragraph(text),
            element(
                "div", plot(f"{place}-calibration", f"Share of right answers over confidence. {now}"), class_="narrow"
            ),
            paragraph(now, data_calibration=place),
            numbers_of("Calibration error over T", table(["T", *names], lines)),
        ]
    )


def _apart(said: HeldOut, view: Results, rows: str | None, level: str) -> Html | None:
    """Where the hard and the distilled student are right on different rows."""
    if said.right is None or not said.labelled:
        return None
    [[neither, gained], [lost, both]] = said.right.sum(axis=0).tolist()
    total = neither + gained + lost + both
    head = ["", "distilled right", "distilled wrong"]
    shares = {count: f"{count:,} ({count / total:.1%})" for count in (neither, gained, lost, both)}
    cells = [["hard right", shares[both], shares[lost]], ["hard wrong", shares[gained], shares[neither]]]
    error = math.sqrt(max(0.0, gained + lost - (gained - lost) ** 2 / total))
    text = (
        f"Of {total:,} labelled answers the distilled student has {gained:,} right that the hard student has wrong, and "
        f"{lost:,} wrong that the hard student has right: {gained - lost:+,}, standard error {error:.1f} "
        "(over rows, one seed of each)."
    )
    names, apart = view.get("class_names"), said.right[:, 1, 0] + said.right[:, 0, 1]
    order = [number for number in apart.argsort(kind="stable")[::-1][:_APART].tolist() if apart[number]]
    lines = [
        [class_name(number, names), *(f"{said.right[number][at]:,}" for at in ((0, 1), (1, 0), (0, 0)))]
        for number in order
    ]
    titles = ["class", "only distilled right", "only hard right", "neither right"]
    link = element("a", "Sort and filter the rows by where students differ to see which they are.", href=f"#{rows}")
    see = paragraph(link) if rows else None
    classes = paragraph("The classes where they differ most:") if lines else None
    return joined(
        [
            element(level, "Where hard and distilled students differ"), paragraph(text), table(head, cells), classes,
            table(titles, lines) if lines else None, see,
        ]
    )  # fmt: skip


def _classes(place: str, classes: dict[str, Any], view: Results, level: str) -> Html:
    many = f" The plot has the {classes['shown']} of {classes['of']} classes with the most errors."
    text = (
        "Errors by class: the share of each class's labelled rows that a model gets wrong, mean over the seeds. Classes on "
        "which the students err far more than the teacher need more rows or a larger student; if the teacher errs as "
        f"much, look at the labels.{many if classes['shown'] < classes['of'] else ''}"
    )
    worst = max(classes["points"], key=lambda point: point["wrong"] if point["kind"] != "ensemble" else -1)
    label = f"Share of wrong answers by class; the most is {worst['wrong']:.1%} of {worst['class']} by {worst['model']}"
    best = best_student(view)
    found = class_table(best["scores"], view.get("class_names")) if has_classes(best["scores"]) else None
    own = found and numbers_of(f"Classes of {best['label']}", table(found.titles, found.lines))
    return joined([element(level, "Errors by class"), paragraph(text), plot(f"{place}-classes", label), own])


def _sizes(run: ShownRun, level: str) -> Html | None:
    if not run.sizes:
        return None
    timed = any(each.milliseconds for each in run.sizes)
    titles = ["", "parameters", "bytes", *(["ms a row, batch 1", "ms a row, batch 32"] * timed)]

    def lines() -> Iterator[list[str]]:
        for each in run.sizes:
            times = [f"{value:.4g}" for value in each.milliseconds] or [""] * (2 * timed)
            yield [each.name, "" if each.parameters is None else f"{each.parameters:,}", f"{each.bytes:,}", *times]

    if timed:
        command, said = (
            "softlabels export --latency",
            ("Size and latency, as ", " measured them on one thread of its machine."),
        )
    else:
        command = "softlabels export STUDENT --formats=onnx,int8 --latency"
        said = ("Size of the students. ", " measures how fast they are.")
    words = paragraph(said[0], element("code", command), said[1])
    return joined([element(level, "Size"), words, table(titles, lines())])
