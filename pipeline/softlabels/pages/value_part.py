"""The part of a page on a target of values: how each output is distributed, how far it is from the hard values, and how far the
members are apart. No temperature changes it.

n positions, M members, D outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import one_line
from softlabels.pages.markup import Html, element, joined, paragraph, plot, table
from softlabels.pages.sample import Sample, positions, sample
from softlabels.store import Store
from softlabels.store.columns import LABEL

MOST = 20_000  # positions
_OUTPUTS, _BINS = 12, 32
Floats = NDArray[np.float64]


def value_part(store: Store) -> tuple[Html, dict[str, Any]]:
    """Markup and numbers of a store of one target of values."""
    taken = sample(store, MOST if store.positions is None else max(64, MOST // store.positions))
    blocks = list(_blocks(store, taken))
    teacher, spread, hard = (np.concatenate([block[part] for block in blocks]) for part in range(3))
    names = [one_line(name, 60) for name in store.class_names or [f"output {d}" for d in range(store.classes)]]
    lines = [_line(names[d], teacher[:, d], spread[:, d], hard[:, d]) for d in range(store.classes)]
    shown = range(min(store.classes, _OUTPUTS))
    data = {"kind": "values", "outputs": [{"name": names[d], **_histogram(teacher[:, d], hard[:, d])} for d in shown]}
    where = taken.words if store.positions is None else f"{len(teacher):,} positions of {taken.words}"
    cut = f" The plots have the first {len(shown)} of {store.classes:,} outputs." if store.classes > len(shown) else ""
    said = (
        f"How the teacher's outputs, the members' weighted mean, are distributed over {where}, beside the hard values if "
        f"there are any. Peaks at an end point to clipped outputs; a range unlike the hard values' points to other units.{cut}"
    )
    apart = (
        "RMSE is the teacher's error against the hard values, in the output's units; compare it with their standard deviation, "
        "which is the error of a constant. Members apart: the root mean square distance of a member to the mean."
    )
    heads = ("", "mean", "deviation", "least", "largest", "RMSE to hard", "deviation of hard", "members apart")
    missing = int(np.isnan(hard).all(axis=1).sum())
    none = f"{missing:,} of {len(hard):,} have no hard value." if missing else "All have hard values."
    picture = plot("values", "Histogram of each output, of the teacher and of the hard values")
    parts = [element("h3", "Outputs"), paragraph(said), picture, paragraph(apart), table(heads, lines), paragraph(none)]
    return joined(parts), data


def _blocks(store: Store, taken: Sample) -> Iterator[tuple[Floats, Floats, Floats]]:
    """The teacher's values (n, D), the members' squared distance to them, and hard values, NaN for none."""
    weights = store.member_weights
    for rows, places, columns in positions(store, taken, MOST):
        every = np.asarray(columns[store.soft_columns[0]], np.float64)
        mean = np.einsum("m,nmd->nd", weights, every)
        spread = np.einsum("m,nmd->nd", weights, (every - mean[:, None]) ** 2)
        hard = np.full_like(mean, np.nan)
        if LABEL in store.columns:
            known, at = np.unique(rows, return_inverse=True)
            labels = store.gather(LABEL, known)[at]
            hard = np.asarray(labels if store.positions is None else labels[np.arange(len(rows)), places], np.float64)
        yield mean, spread, hard


def _line(name: str, teacher: Floats, spread: Floats, hard: Floats) -> tuple[str, ...]:
    known = ~np.isnan(hard)
    error = f"{np.sqrt(np.mean((teacher - hard)[known] ** 2)):.4g}" if known.any() else "–"
    deviation = f"{hard[known].std():.4g}" if known.any() else "–"
    numbers = (teacher.mean(), teacher.std(), teacher.min(), teacher.max())
    return (name, *(f"{each:.4g}" for each in numbers), error, deviation, f"{np.sqrt(spread.mean()):.3g}")


def _histogram(teacher: Floats, hard: Floats) -> dict[str, Any]:
    """Shares in bins of equal width."""
    known = hard[~np.isnan(hard)]
    every = np.concatenate([teacher, known])
    least, most = float(every.min()), float(every.max())
    near = 1e-9 * max(abs(least), abs(most))  # the same number, but for rounding
    span = (least, most) if most - least > near else (least - max(0.5, near), most + max(0.5, near))
    counts, edges = np.histogram(teacher, _BINS, span)
    beside = np.histogram(known, edges)[0] if len(known) else None
    return {
        "edges": edges.tolist(),
        "teacher": (counts / len(teacher)).tolist(),
        "hard": None if beside is None else (beside / len(known)).tolist(),
    }
