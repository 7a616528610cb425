"""Outputs of a file as what a store keeps: logits as they are, probabilities as the logits that give them. R rows, P positions,
M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.floor import ends_line, floor_of, lifted, zeros_line
from softlabels.checks.probabilities import looks, require_logits
from softlabels.errors import ConfigError, LogitsError, UserError
from softlabels.jobs.reading import Kind
from softlabels.labels.targets import Target

SUM_TOLERANCE = 1e-3
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    """The `logits` (R, [P,] M, C), the `values` of the file that they were made of, what probabilities were lifted to
    (`floor`), and what there is to say of them.
    """

    logits: NDArray[np.floating]
    values: NDArray[np.generic]
    floor: float | None = None
    said: tuple[str, ...] = ()


def as_logits(
    values: NDArray[Any], target: Target, kind: Kind, floor: str | None, mask: Mask | None, *, named: bool, name: str
) -> Made:
    """Outputs (R, [P,] M, C) of a target as logits; where `mask` (R, P) is 0 they may be anything.

    Args:
        kind: what they are said to be; auto: by whether their array is `named` as probabilities.
        floor: the setting of that name. name: what the outputs are called, for messages.

    Raises:
        LogitsError: probabilities that are none, or logits that seem to be probabilities. UserError: settings that mean nothing
            to what is given.
    """
    if kind == "probabilities" or (kind == "auto" and named and target != "values"):
        if target == "values":
            raise ConfigError(f"--kind=probabilities, and {name} are values", remedy="leave it out")
        made = _of_softmax if target == "softmax" else _of_sigmoid
        return made(values, floor, _counted(values, mask), _place(mask))
    if floor is not None:
        what = "values" if target == "values" else "logits"
        raise UserError(f"--floor={floor}, and {name} are {what}", remedy="leave it out, or say --kind=probabilities")
    if kind == "auto":
        found = looks(values, target, mask)
        remedy = "say which they are: --kind=probabilities or --kind=logits"
        require_logits(found, target=target, total=len(values), who=name, remedy=remedy)
    return Made(values, values)


def _of_softmax(values: NDArray[Any], floor: str | None, counts: NDArray[np.bool_], place: Callable[..., str]) -> Made:
    wide, classes = values.astype(np.float64), values.shape[-1]
    bad = ~((wide >= 0).all(axis=-1) & (np.abs(wide.sum(axis=-1) - 1) <= SUM_TOLERANCE)) & counts
    if bad.any():
        at = tuple(np.argwhere(bad)[0].tolist())
        raise LogitsError(
            f"{place(*at)} is no distribution: its values lie between {wide[at].min():.3g} and {wide[at].max():.3g} and sum to "
            f"{wide[at].sum():.6g}",
            remedy="give probabilities >= 0 that sum to 1, or logits",
        )
    wide[~counts] = 1 / classes
    least = None if floor is None else floor_of(floor, classes)
    with np.errstate(divide="ignore"):  # of 0 it is -inf: a class that this member holds for impossible
        logits = np.log(wide if least is None else lifted(wide, least))
    line = zeros_line(wide) if least is None else f"every probability is at least {least:.3g} (--floor={floor})"
    return Made(logits, values, least, () if line is None else (line,))


def _of_sigmoid(values: NDArray[Any], floor: str | None, counts: NDArray[np.bool_], place: Callable[..., str]) -> Made:
    if floor is not None:
        raise UserError(
            f"--floor={floor}, and each class has a probability by itself (sigmoid)",
            remedy="leave it out; of a probability of 0 or 1 the logit is -inf or inf",
        )
    wide = values.astype(np.float64)
    bad = ~((wide >= 0) & (wide <= 1)) & counts[..., None]
    if bad.any():
        at = tuple(np.argwhere(bad)[0].tolist())
        raise LogitsError(
            f"{place(*at[:-1])} gives class {at[-1]} {wide[at]:.6g}, which is no probability",
            remedy="give probabilities from 0 to 1, or logits",
        )
    wide[~counts] = 0.5
    with np.errstate(divide="ignore"):  # of 0 it is -inf, of 1 inf: the class is impossible, or certain
        logits = np.log(wide) - np.log1p(-wide)
    line = ends_line(wide)
    return Made(logits, values, None, () if line is None else (line,))


def _counted(values: NDArray[Any], mask: Mask | None) -> NDArray[np.bool_]:
    """Which distributions (R, [P,] M) count."""
    every: NDArray[np.bool_] = np.ones(values.shape[:-1], np.bool_)
    return every if mask is None else every & (mask[..., None] == 1)


def _place(mask: Mask | None) -> Callable[..., str]:
    """What messages call a distribution, by its indices."""
    if mask is None:
        return "row {}, member {}".format
    return "row {}, position {}, member {}".format
