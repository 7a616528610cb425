"""Stored labels beside what the live teacher says of the same rows, by kind: adds to a `deviation`.

n distributions, M stored members, C classes, K stored classes of a top-k encoding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.rounding import HALF
from softlabels.labels.blocks import reduced
from softlabels.labels.decoder import Columns
from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import Fidelity, FidelitySums
from softlabels.teacher.deviation import Deviation, ValuesDeviation

_TEMPERATURE = 4.0  # at which classes count by their probability: marks as low as -1e4 count nothing


def nothing_seen(
    encoding: Encoding, classes: int, *, precision: str, lines: Iterable[Fidelity | FidelitySums]
) -> Deviation | ValuesDeviation:
    """Of a target of a store, with what the store states of its fidelity."""
    if encoding.target == "softmax":
        return Deviation(precision, max((line.tail_mass_error for line in lines), default=0.0))
    rounding = float(np.finfo(encoding.columns(classes, 1)[0][1]).eps) / 2
    if encoding.target == "values":
        return ValuesDeviation(precision, rounding, classes)
    return Deviation(precision, target=encoding.target, rounding=rounding)


def compare(
    encoding: Encoding,
    given: Tensor,
    weights: NDArray[np.float64],
    columns: Columns,
    labels: NDArray[np.int64],
    found: Deviation | ValuesDeviation,
) -> None:
    """Live logits (n, M, C) and stored columns (n, ...) of the same distributions, of classes `labels` (n,)."""
    z, eps = (reduced(given, weights) if encoding.is_reduced else given).double(), torch.finfo(given.dtype).eps
    if isinstance(found, ValuesDeviation):
        found.add(z, _tensor(encoding.outputs(columns), z), eps)
        return
    if found.target == "sigmoid":
        _one_by_one(z, _tensor(encoding.outputs(columns), z), eps, found)
        return
    peak = z.amax(dim=-1, keepdim=True)
    found.grid += float((eps * peak).square().sum())
    if encoding.keeps_all:
        _logits(z, z, _tensor(columns["logits"], z) + _tensor(columns["shift"], z)[..., None], found)
        return
    # The stored classes' logits, that no other class is above them, the label's logit, and the tail's mass.
    given_columns = {name: torch.from_numpy(values) for name, values in columns.items()}
    kept = encoding.members(given_columns, z.shape[-1]).to(z.device)
    ids = kept.ids()
    stored = _tensor(columns["top_logit"], z) + peak
    _logits(z, z.gather(-1, ids), stored, found)
    _largest(z, z.topk(ids.shape[-1], dim=-1).values, stored.sort(dim=-1, descending=True).values, found)
    label = _tensor(columns["label_logit"], z)[..., None] + peak
    own = torch.from_numpy(labels).to(z.device)[:, None, None].expand_as(label)
    known = (own >= 0) & ~label.isnan()  # NaN: its maker knew no label
    _largest(z, z.gather(-1, own.clamp_min(0)).where(known, 0.0), label.where(known, 0.0), found)
    tail = z.scatter(-1, ids, -math.inf)
    for factor in (1.0, 2.0, 4.0) if kept.tail != "renormalised" else ():
        temperature = factor * encoding.lowest_temperature
        live = ((tail / temperature).logsumexp(-1) - (z / temperature).logsumexp(-1)).exp()
        apart = (live - kept.stored(temperature)[1].exp()).abs().max()
        found.largest_mass = max(found.largest_mass or 0.0, float(apart))


def _one_by_one(z: Tensor, stored: Tensor, eps: float, found: Deviation) -> None:
    """Live and stored logits (n, M, C) of a sigmoid; `eps` of the dtype that the teacher gives them in."""
    weight = 4 * torch.sigmoid(z / _TEMPERATURE) * torch.sigmoid(-z / _TEMPERATURE) / z.shape[-1]
    found.agreed += int(((z > 0) == (stored > 0)).all(dim=-1).sum())
    _largest(z, z, stored, found)
    found.distributions += z[..., 0].numel()
    for name, values in (("grid", (eps + found.rounding) * z), ("difference", z - stored), ("spread", z)):
        square = torch.where(weight > 0, weight * values.square(), 0.0).sum()
        setattr(found, name, getattr(found, name) + float(square))


def _logits(z: Tensor, live: Tensor, stored: Tensor, found: Deviation) -> None:
    """Live and stored logits (n, M, K) of all or some of the classes of z (n, M, C)."""
    _largest(z, live, stored, found)
    found.agreed += int((live.gather(-1, stored.argmax(dim=-1, keepdim=True))[..., 0] == z.amax(dim=-1)).sum())
    found.distributions += z[..., 0].numel()
    weight = (live / _TEMPERATURE).softmax(dim=-1)
    below = torch.where(weight > 0, stored - stored.amax(dim=-1, keepdim=True), 0.0)
    found.grid += float((weight * (HALF * below).square()).sum())
    found.difference += _variance(live - stored, weight)
    found.spread += _variance(live, weight)


def _variance(values: Tensor, weight: Tensor) -> float:
    """Sum over distributions of the variance of values (n, M, K) under weights (n, M, K)."""
    real = torch.where(weight > 0, values, 0.0)
    about = real - (weight * real).sum(dim=-1, keepdim=True)
    return float((weight * about.square()).sum())


def _largest(z: Tensor, live: Tensor, stored: Tensor, found: Deviation) -> None:
    """The largest single deviation, relative to the largest logit of its distribution."""
    if (live.isnan() | ((live.isinf() | stored.isinf()) & (live != stored))).any():
        found.largest_logit = math.inf
    scale = 1 + torch.where(torch.isfinite(z), z.abs(), 0.0).amax(dim=-1, keepdim=True)
    apart = torch.where(torch.isfinite(live), (live - stored).abs(), 0.0) / scale
    found.largest_logit = max(found.largest_logit, float(apart.max()))


def _tensor(values: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float64)).to(like.device)
