"""What the top-k encoding lost, measured on the device while the exact logits are still there; `fidelity` says what the sums
mean and adds them up.

N distributions (positions of a member), C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.labels.encoding import TopkEncoding
from pipeline.labels.fidelity import TEMPERATURES, FidelitySums
from pipeline.labels.topk_soft import TopkMembers


class TopkFidelity:
    """Sums over blocks of distributions. The stored distribution is the full one; a bucket is spread over its classes."""

    def __init__(self, encoding: TopkEncoding) -> None:
        served = [t for t in TEMPERATURES if t * encoding.beta_max >= 1 - 1e-12]
        self._temperatures = TEMPERATURES if encoding.tail == "renormalised" else served
        self._samples = 0
        self._sums: Tensor | None = None

    def add(self, logits: Tensor, tail: Tensor, stored: TopkMembers) -> None:
        """Add a block.

        Args:
            logits: (N, C) z - max z, exact.
            tail: the same with -inf where a class is stored.
            stored: what was kept of them, M = 1.
        """
        if len(logits) == 0:
            return
        self._samples += len(logits)
        sums = torch.stack([self._at(t, logits, tail, stored) for t in self._temperatures])
        if self._sums is not None:
            sums = torch.stack(
                [
                    self._sums[:, 0] + sums[:, 0],
                    torch.maximum(self._sums[:, 1], sums[:, 1]),
                    torch.maximum(self._sums[:, 2], sums[:, 2]),
                    self._sums[:, 3] + sums[:, 3],
                ],
                dim=1,
            )
        self._sums = sums

    def _at(self, temperature: float, logits: Tensor, tail: Tensor, stored: TopkMembers) -> Tensor:
        """Sum of KL, largest KL, largest error of the tail's mass, equal argmaxes: (4,) float64."""
        log_z = torch.logsumexp(logits / temperature, dim=-1, keepdim=True)
        log_p = (logits / temperature).sub_(log_z)
        log_q = stored.log_probs(0, temperature)
        agreed = log_p.argmax(dim=-1) == log_q.argmax(dim=-1)
        mass = (torch.logsumexp(tail / temperature, dim=-1) - log_z[:, 0]).exp()
        kept = stored.stored(temperature)[1][:, 0].exp()
        kl = kl_rows(log_p, log_q)
        return torch.stack([kl.sum(), kl.max(), (mass - kept).abs().max().double(), agreed.sum().double()])

    def result(self) -> tuple[FidelitySums, ...]:
        """A line a temperature that the encoding serves."""
        rows = [[0.0] * 4] * len(self._temperatures) if self._sums is None else self._sums.tolist()
        return tuple(
            FidelitySums(
                temperature=temperature,
                samples=self._samples,
                kl_sum=row[0] if math.isfinite(row[0]) else None,
                kl_max=row[1] if math.isfinite(row[1]) else None,
                tail_mass_error=row[2],
                top1_agreed=int(row[3]),
            )
            for temperature, row in zip(self._temperatures, rows, strict=True)
        )


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
