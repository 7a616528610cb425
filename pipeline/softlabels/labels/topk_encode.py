"""Logits to the columns of the top-k encoding, where the logits are: only the columns leave the device.

Blocks of positions pass one after the other through a bounded piece of memory. What the columns mean is in `topk`; how a
tail's shape becomes a few numbers, in `tail_basis`; what was lost is measured on the way (`topk_fidelity`).

N positions, M members, C classes, K stored classes, n tail nodes, r basis vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import InfiniteLogits, LabelError, LogitsError, LogitsOverflow, NanLogits, NoPossibleClass
from softlabels.labels import NO_LABEL
from softlabels.labels.class_ids import narrow
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.fidelity import FidelitySums, add_up, one_of
from softlabels.labels.tail_basis import TailFit, coefficient_columns
from softlabels.labels.tail_mass import CURVE_STEPS, nodes
from softlabels.labels.topk import check_encoding, topk_columns
from softlabels.labels.topk_fidelity import measure_topk
from softlabels.labels.topk_soft import TopkMembers

BLOCK_BYTES = 1 << 28
_BEYOND = 65520.0  # what float16 rounds to infinity
_ARRAYS = 12  # float32 arrays (block, C) that stand in memory at once, at most

Columns = dict[str, NDArray[np.generic]]


def encode_topk(
    logits: Tensor,
    encoding: TopkEncoding,
    *,
    basis: Tensor | None = None,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Columns, tuple[FidelitySums, ...]]:
    """Encode raw logits.

    Args:
        logits: (N, M, C) float16, bfloat16, float32 or float64 on any device; -inf marks a class of probability 0.
        encoding: what to keep.
        basis: (1 + r, C) float16 on the same device, the prior and basis of the store; None where its tail has none.
        labels: (N,) int64, of which class to keep the logit; -1 for none. None: of no class.
        mask: (N,) bool, which positions count; the others are encoded as if all logits were 0. None: all.
        block_bytes: working memory, roughly.

    Returns:
        The columns, each (N, M, ...) as `topk_columns` says, and what was lost at the first of the positions that count and
        at each that is `one_of` the classes further.

    Raises:
        NanLogits, InfiniteLogits, NoPossibleClass: NaN, +inf or only -inf. LogitsOverflow: a finite logit more than 65,504
            below the largest of its position. LogitsError: a tail of which float16 keeps no mass. Each names position and
            member.
        LabelError: a label that is no class.
        ConfigError: an encoding that makes no sense, see `check_encoding`.
    """
    if logits.ndim != 3 or not logits.is_floating_point():
        raise LogitsError(
            f"logits must be floats of shape (positions, members, classes), not {logits.dtype} of shape {tuple(logits.shape)}",
            remedy="give one float logit a class",
        )
    count, members, classes = logits.shape
    check_encoding(encoding, members, classes)
    labels = logits.new_full((count,), NO_LABEL, dtype=torch.int64) if labels is None else labels
    _check_labels(labels, classes)
    fit = TailFit(basis) if basis is not None and encoding.tail == "lowrank" else None
    sums, parts = [], [_nothing(encoding, classes, members)]
    step = max(1, block_bytes // (4 * _ARRAYS * members * classes))
    counted = 0
    for start in range(0, count, step):
        at = slice(start, start + step)
        real = torch.ones_like(labels[at], dtype=torch.bool) if mask is None else mask[at]
        below = _below_peak(logits[at], real, start)
        own = labels[at].masked_fill(~real, NO_LABEL).repeat_interleave(members)
        block, place = below.flatten(0, 1), _Place(start, members)
        columns, tail = _encode(block, own, encoding, fit, place)
        measured = real & ((counted + real.cumsum(0) - 1) % one_of(classes) == 0)
        counted += int(real.sum())
        measured = measured.repeat_interleave(members)
        kept = {name: values[:, None] for name, values in columns.items()}
        stored = TopkMembers.of(kept, encoding=encoding, classes=classes, basis=basis).to(block.device)
        sums.append(measure_topk(encoding, block[measured], tail[measured], stored[measured]))
        parts.append({name: values.reshape(-1, members, *values.shape[1:]) for name, values in columns.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, add_up(sums)


@dataclass(frozen=True)
class _Place:
    """Where a block's distributions stand: the number of its first position, and M."""

    start: int
    members: int

    def refuse(self, bad: Tensor, what: str, remedy: str, kind: type[LogitsError] = LogitsError) -> None:
        """Raise an error of this kind that names the first distribution of (n * M,) that is `bad`."""
        if bad.any():
            at = int(bad.nonzero()[0])
            place = f"(position {self.start + at // self.members}, member {at % self.members})"
            raise kind(f"{what} {place}", remedy=remedy)


def _below_peak(logits: Tensor, real: Tensor, start: int) -> Tensor:
    """z - max z (n, M, C), float32 or float64; all 0 at positions that do not count."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wide = wide.masked_fill(~real[:, None, None], 0.0)
    peak = wide.amax(dim=-1, keepdim=True)  # NaN where any is NaN, -inf where all are
    place, fix = _Place(start, logits.shape[1]), "mend the teacher's outputs there"
    if not torch.isfinite(peak).all():
        flat = peak.flatten()
        overflow = f"{fix}: NaN inputs or an overflow in half precision is the usual cause"
        place.refuse(flat.isnan(), "logits are NaN", overflow, NanLogits)
        place.refuse(flat.isposinf(), "a logit is +inf", overflow, InfiniteLogits)
        impossible = "the logits of all classes are -inf"
        place.refuse(flat.isneginf(), impossible, f"{fix}: no class is possible", NoPossibleClass)
    below = wide - peak
    place.refuse(
        ((below <= -_BEYOND) & ~wide.isneginf()).any(dim=-1).flatten(),
        "a finite logit lies more than 65504 below the largest of its position, which float16 cannot hold",
        "mark impossible classes with -inf instead of a large negative number",
        LogitsOverflow,
    )
    return below


def _check_labels(labels: Tensor, classes: int) -> None:
    wrong = labels[(labels < NO_LABEL) | (labels >= classes)]
    if len(wrong):
        raise LabelError(
            f"a label is {int(wrong[0])}, and there are {classes} classes", remedy="check the transfer set's labels"
        )


def _encode(
    below: Tensor, labels: Tensor, encoding: TopkEncoding, fit: TailFit | None, place: _Place
) -> tuple[Columns, Tensor]:
    """Columns (n, ...) of z - max z (n, C) with labels (n,), and z - max z with -inf where a class is stored."""
    classes = below.shape[1]
    ids = top_classes(below, encoding.k)
    tail = below.scatter(1, ids, -torch.inf)
    found = {"top_logit": below.gather(1, ids).half()}
    if encoding.tail != "renormalised":
        found |= mass_columns(tail, found["top_logit"], encoding, place.refuse)
    if fit is not None:
        found |= coefficient_columns(fit.coefficients(tail, ids), encoding, place.refuse)
    own = below.gather(1, labels.clamp_min(0)[:, None])[:, 0].half()
    found["label_logit"] = own.masked_fill(labels < 0, torch.nan)
    return narrow(ids.cpu().numpy(), classes) | {name: values.cpu().numpy() for name, values in found.items()}, tail


def top_classes(below: Tensor, count: int) -> Tensor:
    """Ids (n, `count`), ascending, of the largest of (n, C); of equal ones the lowest ids, whatever torch.topk takes."""
    values, ids = below.topk(count, dim=1, sorted=True)
    least = values[:, -1:]
    tied = _count(below == least) > _count(values == least)
    if tied.any():
        rows, least = below[tied], least[tied]
        above, equal = rows > least, rows == least
        rest = count - above.sum(dim=1, keepdim=True)
        ids[tied] = (above | (equal & (equal.cumsum(dim=1) <= rest))).nonzero()[:, 1].view(-1, count)
    return ids.sort(dim=1).values


def mass_columns(
    tail: Tensor, top_logit: Tensor, encoding: TopkEncoding, refuse: Callable[[Tensor, str, str], None]
) -> dict[str, Tensor]:
    """The columns `tail_odds` and `tail_curve` of the tail's logits (n, C) and the stored ones (n, K), see `tail_mass`."""
    places = nodes(encoding.nodes, encoding.beta_max)
    g, h = _log_sums(tail, places), _log_sums(top_logit.double(), (places[0], places[-1]))
    empty = g[:, 0].isneginf()
    odds = (g[:, [0, -1]] - h).half()
    ends = odds.double() + h
    along = torch.tensor(places[1:], dtype=torch.float64, device=tail.device) / encoding.beta_max
    refuse(
        ~empty & ~torch.isfinite(odds).all(dim=1),
        "the mass of the tail is too small for float16",
        "mark impossible classes with -inf, or keep labels for higher temperatures only",
    )
    curve = (g[:, 1:] - (1 - along) * ends[:, :1] - along * ends[:, 1:]) * CURVE_STEPS
    curve = curve.masked_fill(empty[:, None], 0.0).round()
    limit = torch.iinfo(torch.int16).max  # passed only where float16 rounds odds by whole nats: a tail of no mass
    return {
        "tail_odds": odds.masked_fill(empty[:, None], -torch.inf),
        "tail_curve": curve.clamp(-limit, limit).to(torch.int16),
    }


def _log_sums(logits: Tensor, betas: Sequence[float]) -> Tensor:
    """log sum of exp(beta z) over the possible classes of (n, C), -inf without any, for each beta: (n, betas) float64."""
    peak = logits.amax(dim=1, keepdim=True)
    below, scratch, sums = logits - peak.masked_fill(peak.isneginf(), 0.0), torch.empty_like(logits), []
    for beta in betas:
        if beta == 0:
            sums.append(_count(below > -torch.inf).double().log())
        else:
            total = torch.mul(below, beta, out=scratch).exp_().sum(dim=1)
            sums.append(total.double().log() + beta * peak[:, 0].double())
    return torch.stack(sums, dim=1)


def _count(holds: Tensor) -> Tensor:
    """How many of (n, C) hold, (n,)."""
    return holds.sum(dim=1, dtype=torch.int32)  # into int64 it takes ten times as long


def _nothing(encoding: TopkEncoding, classes: int, members: int) -> Columns:
    """Columns of no position."""
    return {name: np.zeros((0, *shape), dtype) for name, dtype, shape, _ in topk_columns(encoding, classes, members)}
