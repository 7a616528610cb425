"""A sweep as a picture: errors (or what else students are compared by) on the validation rows, by which a setting may be
chosen, beside them those on the test split, and how near students are to their teacher, over temperature (or alpha, or loss),
with the spread over seeds.

Made from the mapping of `results.json` (see `comparison`) and from nothing else. Learning curves are `curves`'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from softlabels.report.comparison import Student, compared_by, distilled_students, hard_student, judged
from softlabels.report.figure import HARD, far_apart, figure_in, legend_below, line_style, log_y, plain_text
from softlabels.report.measures import Measure, Results, Scores, shown
from softlabels.report.spread import Spread, spread

AXES = {"temperature": "temperature T", "alpha": "alpha (weight of the soft labels)", "loss": "loss"}
_SHORT = {"temperature": "T=", "alpha": "alpha=", "loss": ""}
_WIDTHS, _HEIGHT = {1: 5.4, 2: 9.0, 3: 13.0}, 3.5
_MANY_TICKS = 9
_TEACHER = {"color": "#555555", "linestyle": (0, (1, 1))}


@dataclass(frozen=True)
class Panel:
    """What one part of the picture shows: a measure of a student's runs in `of`, `scores` or `validation`."""

    title: str
    unit: str
    measure: Measure
    of: str = "scores"

    def found(self, student: Student) -> Spread | None:
        """Of one student; None where a run's value is not there, or infinite."""
        runs = student.get(self.of, ())
        numbers = [float(value) for value in self.measure.found(runs) if value is not None and math.isfinite(value)]
        return spread(numbers) if numbers and len(numbers) == len(runs) else None


def sweep_png(results: Results, path: Path) -> None:
    """Draw a sweep to the file `path`.

    The swept temperature is the x axis (logarithmic); without one alpha is, then the loss. Other swept settings are lines
    of their own. Values that are not all numbers (schedules, losses) stand side by side in the order of the sweep.
    Points are means, bars and bands sample standard deviations over seeds; the hard student and the teacher are
    horizontal lines. Without hard labels there is no panel of errors.

    Raises:
        MissingExtra: matplotlib is not installed.
        DiskFull, StorageError: the file cannot be written.
    """
    axis, groups = lines_of(results)
    panels = panels_of(results)
    with figure_in(path, width=_WIDTHS[len(panels)], height=_HEIGHT) as figure:
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        places = _Places(axis, distilled_students(results))
        lines: dict[str, Any] = {}
        references: dict[str, Any] = {}
        for axes, panel in zip(all_axes, panels, strict=True):
            references |= _draw_references(axes, results, panel)
            for number, (name, students) in enumerate(groups.items()):
                lines[name or "distilled"] = _draw_line(axes, places, students, panel, number, len(groups))
            places.label(axes)
            axes.set_title(plain_text(panel.title), loc="left")
            axes.set_ylabel(panel.unit)
            _scale_y(axes, results, panel)
        figure.suptitle(plain_text(_title(results)), fontsize=9)
        legend_below(figure, lines | references)


class _Places:
    """Where each setting stands on the x axis: at its number, or at its place in the order of the sweep."""

    def __init__(self, axis: str, students: Sequence[Student]) -> None:
        self.axis = axis
        values = list(dict.fromkeys(student["settings"].get(axis) for student in students))
        self.numeric = all(isinstance(value, int | float) for value in values)
        self.logarithmic = self.numeric and axis == "temperature"
        numbers = sorted(values) if self.numeric else range(len(values))
        self.places = dict(zip(numbers if self.numeric else values, map(float, numbers), strict=True))
        scaled = [math.log(place) if self.logarithmic else place for place in self.places.values()]
        gaps = [after - before for before, after in pairwise(scaled)]
        self._aside = 0.25 * min(gaps, default=1.0)  # how far all lines together may stand aside

    def of(self, student: Student, number: int, count: int) -> float:
        """x of a student of line `number`, a little aside, so that bars of several lines do not cover each other."""
        place = self.places[student["settings"].get(self.axis)]
        aside = self._aside / count * (number - (count - 1) / 2)
        return place * math.exp(aside) if self.logarithmic else place + aside

    def label(self, axes: Any) -> None:
        """Ticks at the values that were tried, and the axis's name."""
        ticks, texts = list(self.places.values()), [plain_text(shown_setting(value)) for value in self.places]
        if self.logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
        crowded = len(texts) > _MANY_TICKS or sum(map(len, texts)) > 40
        axes.set_xticks(ticks, texts, rotation=40 if crowded else 0, ha="right" if crowded else "center")
        if not self.numeric:
            axes.set_xlim(-0.5, len(ticks) - 0.5)
        axes.set_xlabel(AXES.get(self.axis, self.axis) + (" (log scale)" if self.logarithmic else ""))


def lines_of(results: Results) -> tuple[str, dict[str, list[Student]]]:
    """The setting along the x axis; and the students of each line, by what the line is called ("" of a single one)."""
    axis, *others = [name for name in AXES if name in results.get("swept", ())] or ["temperature"]
    groups: dict[str, list[Student]] = {}
    for student in distilled_students(results):
        values = (f"{_SHORT[name]}{shown_setting(student['settings'].get(name))}" for name in others)
        groups.setdefault(", ".join(values), []).append(student)
    return axis, groups


def shown_setting(value: object) -> str:
    """A setting as it is written."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def panels_of(results: Results) -> list[Panel]:
    """Errors (or what else students are compared by) on validation rows, where there were any, then those on the held-out
    split, marked as not to choose by, then how near students are to their teacher.
    """
    split, panels, near = results["split"], [], shown(results).to_teacher
    held_out = [scores for student in results["students"] for scores in student.get("validation", ())]
    by = compared_by(results, "validation" if held_out else "scores")
    what = by.title
    chosen_by = bool(held_out) and len(by.found(held_out)) == len(held_out)
    if chosen_by:
        panels.append(Panel(f"{what}, validation: choose by these", _unit(results, by, held_out), by, "validation"))
    scores = [each for student in results["students"] for each in student["scores"]]
    if len(by.found(scores)) == len(scores):
        marked = f"{what}, {split}: not to choose by" if chosen_by else f"{what}, {split}"
        panels.append(Panel(marked, _unit(results, by, scores), by))
    if near.path[0] == "kl":
        return [*panels, Panel("KL(teacher || student) at T=1", "nats", near)]
    return panels if by == near else [*panels, Panel(near.title, near.title, near)]


def _unit(results: Results, by: Measure, runs: Sequence[Scores]) -> str:
    """What the numbers of a measure are; of errors of how many they are."""
    if by.path != ("errors",):
        return by.title
    what, counts = judged(results)[1], sorted({scores["labelled"] for scores in runs if "labelled" in scores})
    return f"{what} of {counts[-1]:,} with a hard label" if counts else what


def _draw_references(axes: Any, results: Results, panel: Panel) -> dict[str, Any]:
    """Teacher and hard student as horizontal lines with bands; how far the teacher is from itself says nothing."""
    # judged on the held-out rows alone
    teacher = {} if panel.measure.is_about_teacher else {"scores": results["teacher"]["ensemble"]}
    handles = {}
    for name, model, style in (("teacher", teacher, _TEACHER), ("hard labels", hard_student(results) or {}, HARD)):
        found = panel.found(model)
        if found is None:
            continue
        handles[name] = axes.axhline(found.mean, linewidth=1.3, zorder=1.5, **style)
        if found.deviation:
            band = (found.mean - found.deviation, found.mean + found.deviation)
            axes.axhspan(*band, color=style["color"], alpha=0.10, linewidth=0, zorder=1)
    return handles


def _draw_line(axes: Any, places: _Places, students: Sequence[Student], panel: Panel, number: int, count: int) -> Any:
    points = [(places.of(student, number, count), found) for student in students if (found := panel.found(student))]
    points.sort(key=lambda point: point[0])
    style = line_style(number, count) | ({} if places.numeric else {"linestyle": "none"})
    return axes.errorbar(
        [x for x, _ in points],
        [found.mean for _, found in points],
        yerr=[found.deviation or 0.0 for _, found in points],
        capsize=2.5,
        elinewidth=1.0,
        markersize=4.5,
        zorder=3,
        **style,
    )


def _scale_y(axes: Any, results: Results, panel: Panel) -> None:
    """KL, or MSE to the teacher, on a logarithmic axis where the hard student's would press all others to the ground."""
    found = [one for student in results["students"] if (one := panel.found(student))]
    lowest = min((one.mean - (one.deviation or 0.0) for one in found), default=0.0)
    if panel.measure.is_about_teacher and lowest > 0 and far_apart([one.mean for one in found], 4):
        log_y(axes)
        axes.set_ylabel(f"{axes.get_ylabel()} (log scale)")


def _title(results: Results) -> str:
    seeds = len(results["seeds"])
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return f"held-out split {results['split']}, {results['rows']:,} rows; {over}"
