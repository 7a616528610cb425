"""What the top-k encoding lost, measured on the device while the exact logits are still there; `fidelity` says what the sums
mean and adds them up.

N distributions (positions of a member), C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.fidelity import TEMPERATURES, FidelitySums
from softlabels.labels.topk_soft import TopkMembers


def measure_topk(encoding: TopkEncoding, logits: Tensor, tail: Tensor, stored: TopkMembers) -> tuple[FidelitySums, ...]:
    """Compare a block with its encoding at each of `TEMPERATURES` that the encoding serves, and at the lowest that it serves,
    where that is lower. The stored distribution is the full one; a bucket is spread over its classes.

    Args:
        encoding: what was kept.
        logits: (N, C) z - max z, exact.
        tail: the same with -inf where a class is stored.
        stored: what was kept of them, M = 1.
    """
    everywhere, lowest = encoding.tail == "renormalised", 1 / encoding.beta_max
    served = [t for t in TEMPERATURES if everywhere or t * encoding.beta_max >= 1 - 1e-12]
    served = [lowest, *served] if lowest < TEMPERATURES[0] else served
    return tuple(_at(t, logits, tail, stored) for t in served)


def _at(temperature: float, logits: Tensor, tail: Tensor, stored: TopkMembers) -> FidelitySums:
    if len(logits) == 0:
        return FidelitySums(
            temperature=temperature, samples=0, kl_sum=0.0, kl_max=0.0, tail_mass_error=0.0, top1_agreed=0
        )
    log_z = torch.logsumexp(logits / temperature, dim=-1, keepdim=True)
    log_p = (logits / temperature).sub_(log_z)
    log_q = stored.log_probs(0, temperature)
    agreed = log_p.argmax(dim=-1) == log_q.argmax(dim=-1)
    mass = (torch.logsumexp(tail / temperature, dim=-1) - log_z[:, 0]).exp()
    kept = stored.stored(temperature)[1][:, 0].exp()
    kl = kl_rows(log_p, log_q)
    kl_sum, kl_max = kl.sum().item(), kl.max().item()
    return FidelitySums(
        temperature=temperature,
        samples=len(logits),
        kl_sum=kl_sum if math.isfinite(kl_sum) else None,
        kl_max=kl_max if math.isfinite(kl_max) else None,
        tail_mass_error=(mass - kept).abs().max().item(),
        top1_agreed=int(agreed.sum()),
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
