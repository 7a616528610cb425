"""Learning curves as a picture: losses, errors (or what else students are compared by) and learning rate over the epochs, from
the lines of each `metrics.jsonl`.

Students that differ by their seed alone (`distilled-seed0`, `distilled-seed1`) are one bold mean with a thin line each.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from softlabels.labels.targets import Target
from softlabels.report.figure import HARD, far_apart, figure_in, legend_below, line_style, log_y
from softlabels.report.measures import SHOWN, Measure

Line = Mapping[str, Any]
Curve = dict[int, float]  # epoch -> value
_TRAIN, _HELD_OUT = Measure(("train_loss",), "training loss"), Measure(("validation_loss",), "validation loss")
_RATE = Measure(("lr",), "learning rate")
_SEED, _HARD = re.compile(r"-seed\d+$"), "hard"
_WIDTH, _HEIGHT = 9.0, 2.7  # of a row of panels
_LOSSES = (_TRAIN, _HELD_OUT)


def log_lines(text: str) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line torn by a kill is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def curves_png(
    lines_by_name: Mapping[str, Sequence[Line]], path: Path, targets: Mapping[str, Target] | None = None
) -> None:
    """Draw the curves of each student to the file `path`.

    Args:
        lines_by_name: the lines of each student's log, by the name of its folder.
        path: where the PNG goes.
        targets: the kinds of the targets by name; by default one of distributions without a name.

    A panel without a value in any log is left out. Losses are each student's own: students with other weights, losses or
    temperatures have other scales. A dot on the validation loss marks the epoch whose weights were kept.

    Raises:
        MissingExtra: matplotlib is not installed.
        DiskFull, StorageError: the file cannot be written.
    """
    groups: dict[str, list[Sequence[Line]]] = {}  # the hard student, which has a style of its own, last
    for name, lines in sorted(lines_by_name.items(), key=lambda item: kind_of(item[0]) == _HARD):
        groups.setdefault(kind_of(name), []).append(lines)
    styles = [HARD if name == _HARD else line_style(number, len(groups)) for number, name in enumerate(groups)]
    logs = list(lines_by_name.values())
    kinds = targets or {"": "softmax"}
    unit = SHOWN[kinds[""]].unit if "" in kinds else "weighted"
    measured = measured_in(logs, kinds) or [_TRAIN]
    rows = -(-len(measured) // 2)
    wide = far_apart([value for lines in logs for key in _LOSSES for value in curve(lines, key).values()], 30)
    with figure_in(path, width=_WIDTH, height=_HEIGHT * rows + 0.3) as figure:
        panels = figure.subplots(rows, 2, squeeze=False, sharex=True).ravel()
        handles: dict[str, Any] = {}
        for axes, key in zip(panels, measured, strict=False):
            for (name, group), style in zip(groups.items(), styles, strict=True):
                curves = [curve(lines, key) for lines in group]
                drawn = _draw_group(axes, curves, style, len(groups))
                handles.setdefault(f"{name} ({len(group)} seeds)" if len(group) > 1 else name, drawn)
                if key is _HELD_OUT:
                    _mark_kept(axes, group, curves, style)
            _label(axes, key, wide, unit)
        for axes in panels[len(measured) :]:
            axes.remove()
        last = max((line["epoch"] for lines in logs for line in lines if "epoch" in line), default=1)
        _label_epochs(panels[: len(measured)], last)
        legend_below(figure, handles)


def measured_in(logs: Sequence[Sequence[Line]], kinds: Mapping[str, Target]) -> list[Measure]:
    """What some of the logs have a value of: losses, by what students of each target are compared, the learning rate."""
    keys = (*_LOSSES, *(_of_target(by, name) for name, kind in kinds.items() for by in SHOWN[kind].main), _RATE)
    return [key for key in keys if any(True for lines in logs for _ in _values(lines, key))]


def _of_target(measure: Measure, name: str) -> Measure:
    """A measure of one of several targets, as the lines of a log have it."""
    if not name:
        return measure
    return dataclasses.replace(measure, path=("targets", name, *measure.path), title=f"{name}: {measure.title}")


def kind_of(name: str) -> str:
    """What students that differ by their seed alone share of their names."""
    return _SEED.sub("", name)


def curve(lines: Sequence[Line], key: Measure) -> Curve:
    """Values by epoch; what was not measured, or is infinite, is left out."""
    return dict(_values(lines, key))


def _values(lines: Sequence[Line], key: Measure) -> Iterator[tuple[int, float]]:
    for line in lines:
        for value in key.found([line]) if "epoch" in line else ():
            if value is not None and math.isfinite(value):
                yield line["epoch"], float(value)


def _draw_group(axes: Any, curves: Sequence[Curve], style: Mapping[str, Any], count: int) -> Any:
    """Thin lines for several seeds and the mean of them, where all have a value, in bold; the mean's handle."""
    line = {"color": style["color"], "linestyle": style["linestyle"]}
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    if len(curves) > 1:
        for curve in curves:
            axes.plot(list(curve), list(curve.values()), color=style["color"], linewidth=0.5, alpha=0.45, zorder=2)
    means = [math.fsum(curve[epoch] for curve in curves) / len(curves) for epoch in shared]
    # One point makes no line.
    marked = {"marker": style.get("marker", "o"), "markersize": 5} if len(shared) == 1 else {}
    (handle,) = axes.plot(shared, means, linewidth=1.8 if count <= 12 else 1.2, zorder=3, **line, **marked)
    return handle


def _mark_kept(axes: Any, logs: Sequence[Sequence[Line]], curves: Sequence[Curve], style: Mapping[str, Any]) -> None:
    """A dot where each student's kept epoch is."""
    kept = [(lines[-1].get("kept_epoch"), curve) for lines, curve in zip(logs, curves, strict=True) if lines]
    epochs = [epoch for epoch, curve in kept if epoch in curve]
    values = [curve[epoch] for epoch, curve in kept if epoch in curve]
    axes.scatter(epochs, values, s=16, color=[style["color"]], edgecolor="white", linewidth=0.6, zorder=4)


def _label(axes: Any, key: Measure, wide: bool, unit: str) -> None:
    of = "; dots: epochs kept" if key is _HELD_OUT else "" if key in (_TRAIN, _RATE) else " on validation rows"
    axes.set_title(key.title + of, loc="left")
    scale = " (log scale)" if wide and key in _LOSSES else ""
    axes.set_ylabel((unit if key in _LOSSES else key.title) + scale)
    if scale:
        log_y(axes)


def _label_epochs(panels: Any, last: int) -> None:
    for axes in panels[-2:]:  # panels share their x axes; the last of each column is labelled
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0, last + max(1, 0.02 * last))
