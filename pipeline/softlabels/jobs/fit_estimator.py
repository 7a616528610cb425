"""An estimator of scikit-learn fitted on the hard labels of prepared rows, as a member of a teacher. Models that are trained by
gradients are `softlabels.student.trainer`'s.

R rows, D numbers of a vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.models.estimator import Estimator, fit
from softlabels.models.estimator_file import require_kind, write_estimator
from softlabels.transfer import TransferRows


def fit_estimator(
    model: Estimator,
    rows: TransferRows,
    used: NDArray[np.bool_],
    weights: Path,
    *,
    seed: int,
    threads: int | None = None,
) -> int:
    """Fit it on those of the rows `used` (R,) that have a hard label, write it to `weights`, and return how many there were.

    `threads`: of OpenMP and BLAS, by default as many as there are cores, which wait for each other where others compute too.

    Raises:
        ConfigError: rows of positions or tokens, labels of several targets or of another kind, or none. WeightsError: `weights`
            is the name of no such file. DiskFull, StorageError: of the disk.
    """
    from threadpoolctl import threadpool_limits  # it comes with scikit-learn

    require_kind(weights)
    labels, known = _labels(model, rows)
    chosen = np.flatnonzero(used & known)
    if not len(chosen):
        raise ConfigError(
            f"no training row of {rows.name} has a hard label", remedy="name their column (transfer_set.label)"
        )
    classes = len(rows.class_names or ()) or 1 + int(labels.max(initial=0))
    if model.target == "softmax" and rows.class_names is None and classes > known.sum():
        raise ConfigError(
            f"the hard labels of {rows.name} go up to {classes - 1:,}: {classes:,} classes, for {known.sum():,} training rows",
            remedy="classes are counted from 0, or named in transfer_set.classes; for a number to predict set "
            "transfer_set.label_as: values, labels.kind: values, and name a regressor",
        )
    with threadpool_limits(threads):
        fit(model, np.asarray(rows.inputs[chosen]), labels[chosen], classes=classes, seed=seed)
    write_estimator(model.fitted, weights)
    return len(chosen)


def _labels(model: Estimator, rows: TransferRows) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Classes (R,) or values (R, D), and which rows (R,) have them. Raises `ConfigError`."""
    who = type(model.fitted).__name__
    if rows.positions is not None or rows.sequence is not None:
        what = "positions" if rows.sequence is None else "tokens"
        raise ConfigError(
            f"{who} gives one output per row, and the rows of {rows.name} have {what}", remedy="name a torch model"
        )
    if {*rows.hard} != {""}:
        raise ConfigError(
            f"{who} has one output, and the hard labels of {rows.name} are of {', '.join(rows.hard)}",
            remedy="name a torch model that gives a mapping of outputs",
        )
    labels = np.asarray(rows.labels)
    if (labels.dtype.kind == "f") != (model.target == "values") or (labels.ndim > 1 and model.target == "softmax"):
        kind = "values" if labels.dtype.kind == "f" else "classes" if labels.ndim == 1 else "flags"
        raise ConfigError(
            f"{model.head}, and the hard labels of {rows.name} are {kind}",
            remedy="name a classifier for classes and a regressor for values (transfer_set.label_as)",
        )
    return labels, np.asarray(labels >= 0 if model.target == "softmax" else ~np.isnan(labels).any(axis=-1))
