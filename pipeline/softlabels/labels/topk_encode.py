"""Logits to the columns of the top-k encoding, where the logits are: only the columns leave the device.

What the columns mean is in `topk_reference`; how a tail's shape becomes a few numbers, in `tail_basis`; what was lost is
measured on the way.

N positions, M members, C classes, K stored classes, n tail nodes, r basis vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import LabelError
from softlabels.labels import NO_LABEL
from softlabels.labels.base import Encoded
from softlabels.labels.blocks import Block
from softlabels.labels.class_ids import narrow
from softlabels.labels.fidelity import FidelitySums
from softlabels.labels.lost import Lost
from softlabels.labels.tail_basis import TailBasis, coefficient_columns
from softlabels.labels.tail_mass import CURVE_STEPS, nodes
from softlabels.labels.topk_fields import TopkFields
from softlabels.labels.topk_soft import TopkMembers

_CACHED = 1 << 19  # logits whose masses are summed at a time, on CPUs
_FEWEST = 3  # rows of them, cut evenly: several threads sum one row alone in another order


class TopkEncoder:
    """Blocks to columns, one after the other. What was lost is measured at the first of the positions that count and at each
    that is `measured_share` further.

    Raises `LogitsError` for a tail of which float16 keeps no mass.
    """

    def __init__(self, encoding: TopkFields, classes: int, basis: TailBasis | None, labels: Tensor | None) -> None:
        self.encoding, self.basis, self.labels = encoding, basis, labels
        if labels is not None:
            _check_labels(labels, classes)
        self.counted = 0

    def __call__(self, block: Block) -> Encoded:
        _, members, classes = block.below.shape
        labels = torch.full_like(block.real, NO_LABEL, dtype=torch.int64)
        if self.labels is not None:
            labels = self.labels[block.at].masked_fill(~block.real, NO_LABEL)
        labels = labels.repeat_interleave(members)
        below = block.below.flatten(0, 1)
        columns, tail = self._columns(below, labels, block)
        measured = block.real & ((self.counted + block.real.cumsum(0) - 1) % self.encoding.measured_share(classes) == 0)
        self.counted += int(block.real.sum())
        measured = measured.repeat_interleave(members)
        kept = {name: values[:, None] for name, values in columns.items()}
        basis = None if self.basis is None else self.basis.wide
        stored = TopkMembers.of(kept, encoding=self.encoding, classes=classes, basis=basis).to(below.device)
        lost = Lost(fidelity=measure_topk(self.encoding, below[measured], tail[measured], stored[measured]))
        return {name: values.reshape(-1, members, *values.shape[1:]) for name, values in columns.items()}, lost

    def _columns(self, below: Tensor, labels: Tensor, block: Block) -> tuple[dict[str, NDArray[np.generic]], Tensor]:
        """Columns (n, ...) of z - max z (n, C) with labels (n,), and z - max z with -inf where a class is stored."""
        classes, encoding = below.shape[1], self.encoding
        ids = top_classes(below, encoding.k)
        tail = below.scatter(1, ids, -torch.inf)
        found = {"top_logit": below.gather(1, ids).half()}
        if encoding.tail != "renormalised":
            found |= mass_columns(tail, found["top_logit"], encoding, block.refuse)
        if self.basis is not None and encoding.tail == "lowrank":
            found |= coefficient_columns(self.basis.coefficients(tail, ids), encoding, block.refuse)
        own = below.gather(1, labels.clamp_min(0)[:, None])[:, 0].half()
        found["label_logit"] = own.masked_fill(labels < 0, torch.nan)
        return narrow(ids.cpu().numpy(), classes) | {name: values.cpu().numpy() for name, values in found.items()}, tail


def _check_labels(labels: Tensor, classes: int) -> None:
    wrong = labels[(labels < NO_LABEL) | (labels >= classes)]
    if len(wrong):
        raise LabelError(
            f"a label is {int(wrong[0])}, and there are {classes} classes", remedy="check the transfer set's labels"
        )


def top_classes(below: Tensor, count: int) -> Tensor:
    """Ids (n, `count`), ascending, of the largest of (n, C); of equal ones the lowest ids, whatever torch.topk takes."""
    values, ids = below.topk(min(count + 1, below.shape[1]), dim=1, sorted=True)
    least, ids = values[:, count - 1 : count], ids[:, :count]
    tied = (values[:, count:] == least).any(dim=1)
    if tied.any():
        rows, least = below[tied], least[tied]
        above, equal = rows > least, rows == least
        rest = count - above.sum(dim=1, keepdim=True)
        ids[tied] = (above | (equal & (equal.cumsum(dim=1) <= rest))).nonzero()[:, 1].view(-1, count)
    return ids.sort(dim=1).values


def mass_columns(
    tail: Tensor, top_logit: Tensor, encoding: TopkFields, refuse: Callable[[Tensor, str, str], None]
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
    step = max(_FEWEST, _CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    parts = logits.tensor_split(max(1, -(-len(logits) // max(1, step))))
    return torch.cat([_log_sums_of(part, betas) for part in parts])


def _log_sums_of(logits: Tensor, betas: Sequence[float]) -> Tensor:
    """The same of so few that they stay in the cache."""
    peak = logits.amax(dim=1, keepdim=True)
    below, scratch, sums = logits - peak.masked_fill(peak.isneginf(), 0.0), torch.empty_like(logits), []
    for beta in betas:
        if beta == 0:
            nowhere = below.isneginf().sum(dim=1, dtype=torch.int32)  # into int64 it takes ten times as long
            sums.append((logits.shape[1] - nowhere).double().log())
        else:
            total = torch.mul(below, beta, out=scratch).exp_().sum(dim=1)
            sums.append(total.double().log() + beta * peak[:, 0].double())
    return torch.stack(sums, dim=1)


def measure_topk(encoding: TopkFields, logits: Tensor, tail: Tensor, stored: TopkMembers) -> tuple[FidelitySums, ...]:
    """Compare a block with its encoding at the temperatures where that is measured. The stored distribution is the full one; a
    bucket is spread over its classes.

    Args:
        encoding: what was kept.
        logits: (N, C) z - max z, exact.
        tail: the same with -inf where a class is stored.
        stored: what was kept of them, M = 1.
    """
    return tuple(_at(t, logits, tail, stored) for t in encoding.measured_at)


def _at(temperature: float, logits: Tensor, tail: Tensor, stored: TopkMembers) -> FidelitySums:
    if len(logits) == 0:
        return FidelitySums.of(temperature, logits.new_zeros(0), logits.new_zeros(0))
    log_z = torch.logsumexp(logits / temperature, dim=-1, keepdim=True)
    log_p = (logits / temperature).sub_(log_z)
    log_q = stored.log_probs(0, temperature)
    mass = (torch.logsumexp(tail / temperature, dim=-1) - log_z[:, 0]).exp()
    off = (mass - stored.stored(temperature)[1][:, 0].exp()).abs().max().item()
    return FidelitySums.of(temperature, kl_rows(log_p, log_q), log_p.argmax(dim=-1) == log_q.argmax(dim=-1), off)


def kl_rows(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) (N,) float64 of log-probabilities (N, C): sum of p (exp(d) - 1 - d) with d = log q - log p. So written, no
    term is negative and nearly equal ones keep their digits; where d is large, or p is 0, as q - p (1 + d), which cannot
    overflow. Infinite where q alone is 0.
    """
    p, q, d = log_p.exp(), log_q.exp(), log_q - log_p
    terms = torch.where(d < 1, torch.expm1(d) - d, 0.0).mul_(p)
    far = q - p * (1 + d)
    terms = torch.where(d < 1, terms, far)
    return torch.where(p == 0, q, terms).sum(dim=-1, dtype=torch.float64)
