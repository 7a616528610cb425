"""KL(exact || stored) by the tail's shape and bytes a position, and the same for what others keep: the k largest
probabilities scaled to 1, or with the tail's mass at T = 1 beside them.

n positions, C classes, K stored classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.any_temperature.logits import Teacher
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.topk_soft import TopkMembers

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
CLASSES = 151_936  # whose bytes are counted
ONCE, GHOST = "mass of T = 1", "one logit for the tail"
SHAPES = ("renormalised", ONCE, GHOST, "uniform", "prior", "lowrank")
KS, FINES = (1, 2, 4, 8, 16), (0, 16)
_SEQUENCE_BYTES = 3  # mask and document of a position
_BLOCK_NUMBERS = 1 << 22


@dataclass(frozen=True)
class Setting:
    """What is kept: one of `SHAPES`, and the encoding that comes nearest to it."""

    shape: str
    encoding: TopkEncoding

    def bytes(self, classes: int = CLASSES) -> int:
        """A position of a sequence, with the label's logit, mask and document."""
        extra = 2 if self.shape in (ONCE, GHOST) else 0
        columns = self.encoding.columns(classes, 1)
        return (
            _SEQUENCE_BYTES + extra + sum(np.dtype(dtype).itemsize * math.prod(shape) for _, dtype, shape, _ in columns)
        )

    def words(self) -> str:
        """As tables say it."""
        e = self.encoding
        parts = [f"k {e.k}"]
        if e.nodes:
            parts.append(f"nodes {e.nodes}")
        if e.rank:
            parts.append(f"rank {e.rank}, fine {e.fine}")
        return ", ".join(parts)


# What the product recommends, and the second half of docs/any-temperature.md.
LARGE = Setting("lowrank", TopkEncoding(k=8, nodes=12, rank=102, fine=16))
SMALL = Setting("lowrank", TopkEncoding(k=2, nodes=4, rank=42))


def candidates(shape: str, budget: int, ranks: int) -> Iterator[Setting]:
    """Settings of a shape that take at most `budget` bytes; for lowrank, of each k and fine that with the highest rank.

    From 64 bytes on the tail has 12 nodes, which make its mass right with any k; below, 4.
    """
    nodes = 12 if budget >= 64 else 4
    if shape != "lowrank":
        tail = {"uniform": "uniform", "prior": "prior"}.get(shape, "renormalised")
        own = 0 if tail == "renormalised" else nodes
        settings = (Setting(shape, TopkEncoding(k=k, tail=tail, nodes=own)) for k in range(1, 400))  # type: ignore[arg-type]
        fitting = [each for each in settings if each.bytes() <= budget]
        yield from fitting[-1:]
        return
    for k in KS:
        for fine in FINES:
            fitting = [
                each
                for rank in range(max(fine, 1), ranks + 1)
                if (each := Setting(shape, TopkEncoding(k=k, nodes=nodes, rank=rank, fine=fine))).bytes() <= budget
            ]
            yield from fitting[-1:]


def divergences(teacher: Teacher, setting: Setting, basis: NDArray[np.float16]) -> NDArray[np.float64]:
    """Mean KL(exact || stored) over a teacher's positions, by temperature; infinite for renormalised.

    `basis` (1 + R, C) may have more vectors than the setting takes.
    """
    classes, total = teacher.positions.shape[1], np.zeros(len(TEMPERATURES))
    vectors = torch.from_numpy(basis[: 1 + setting.encoding.rank])
    for block in torch.split(teacher.positions, max(1, _BLOCK_NUMBERS // classes)):
        log_q = stored(block, setting, vectors)
        for at, temperature in enumerate(TEMPERATURES):
            log_p = torch.log_softmax(block.double() / temperature, dim=-1)
            total[at] += kl(log_p, log_q(temperature)).sum().item()
    return total / len(teacher.positions)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) (n,) of (n, C) float64."""
    return (log_p.exp() * (log_p - log_q)).masked_fill(log_p.isneginf(), 0.0).sum(dim=-1)


def stored(z: Tensor, setting: Setting, vectors: Tensor) -> Callable[[float], Tensor]:
    """What the setting makes of logits (n, C): log-probabilities (n, C) float64 at a temperature."""
    encoding = setting.encoding
    if setting.shape in (ONCE, GHOST):
        return lambda temperature: others_log_probs(z.double(), encoding.k, temperature, ghost=setting.shape == GHOST)
    shared = vectors if encoding.tail in ("lowrank", "prior") else None
    columns, _ = encoding.encode(z[:, None], basis=shared)
    members = TopkMembers.of(columns, encoding=encoding, classes=z.shape[1], basis=shared)
    return lambda temperature: members.log_probs(0, temperature).double()


def others_log_probs(z: Tensor, k: int, temperature: float, *, ghost: bool) -> Tensor:
    """Top k and one number for the tail, taken at T = 1: its mass, kept as it is at every temperature, or (`ghost`) its
    log-odds as if the tail were one class, whose logit is divided by T. The tail's classes are alike.
    """
    values, ids = z.topk(k, dim=-1)
    kept = values.half().double() / temperature
    log_z = torch.logsumexp(z, dim=-1)
    tail = torch.logsumexp(z.scatter(1, ids, -torch.inf), dim=-1)
    h = torch.logsumexp(kept, dim=-1)
    if ghost:
        g = tail.half().double() / temperature
        log_tail, log_kept = g - torch.logaddexp(g, h), -torch.logaddexp(g, h)
    else:
        log_tail = (tail - log_z).half().double()
        log_kept = torch.log(-torch.expm1(log_tail)) - h
    alike = (log_tail - math.log(z.shape[1] - k))[:, None].expand_as(z)
    return alike.scatter(1, ids, kept + log_kept[:, None])


def kept_mass(z: Tensor, k: int, temperature: float) -> Tensor:
    """(n,) float64: of the k largest classes. -log of it is KL(renormalised || exact)."""
    p = torch.softmax(z.double() / temperature, dim=-1)
    return p.topk(k, dim=-1).values.sum(dim=-1)


@dataclass(frozen=True)
class Point:
    """A setting and its mean KL by temperature."""

    setting: Setting
    kl: NDArray[np.float64]


def frontier(teacher: Teacher, basis: NDArray[np.float16], budgets: tuple[int, ...]) -> dict[str, dict[int, Point]]:
    """By shape and budget the setting with the lowest KL at T = 1 and 2 together."""
    found: dict[str, dict[int, Point]] = {shape: {} for shape in SHAPES}
    for shape in SHAPES:
        for budget in budgets:
            points = [
                Point(each, divergences(teacher, each, basis)) for each in candidates(shape, budget, len(basis) - 1)
            ]
            if points:
                found[shape][budget] = min(points, key=lambda point: float(point.kl[:2].sum()))
    return found
