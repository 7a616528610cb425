"""Logits to the columns of the dense encoding, where the logits are, and what rounding them lost.

N positions, M members, C classes, T temperatures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softlabels.labels.base import Encoded
from softlabels.labels.blocks import Block, rounded
from softlabels.labels.fidelity import TEMPERATURES, FidelitySums
from softlabels.labels.lost import Lost

_CACHED, _AT_ONCE = 1 << 16, 1 << 22  # logits that are measured at a time: on CPUs, elsewhere
_SUMMED = 1 << 12  # classes whose sum float32 holds to a few parts in 10^6, also where all are alike
_CANCELS = 1 / 8  # of E e² that E e² - (E e)² leaves: below it, float32 has lost too many digits


def encode_dense(temperatures: Sequence[float], block: Block) -> Encoded:
    """The columns of a block, and what they lost at its positions that count, at some temperatures."""
    stored = rounded(block.below)
    columns = {"logits": stored.cpu().numpy(), "shift": block.peak[..., 0].float().cpu().numpy()}
    return columns, Lost(fidelity=measure_rounded(block.counted(block.below), block.counted(stored), temperatures))


def measure_rounded(
    below: Tensor, stored: Tensor, temperatures: Sequence[float] = TEMPERATURES
) -> tuple[FidelitySums, ...]:
    """What rounding lost of distributions: z - max z (n, M, C), float32 or float64, and the same in float16. In float32; see
    `rounding_kl`.
    """
    z, s = (each.reshape(-1, below.shape[-1]) for each in (below, stored))
    kl, agreed = rounding_kl(z, s, temperatures), same_largest(z, s)
    return tuple(FidelitySums.of(t, each, agreed) for t, each in zip(temperatures, kl, strict=True))


def rounding_kl(z: Tensor, stored: Tensor, temperatures: Sequence[float]) -> Tensor:
    """KL(softmax(z/T) || softmax(stored/T)) (T, n) float64 of logits (n, C), at most 0, and their nearest float16.

    With e = stored - z and E the mean over softmax(z/T) it is log E exp(e/T) - E e/T. Rounding moves a logit by at most
    2^-11 |z|, and a class with |z| > 40 T has no probability that counts, so that e/T is below 1/50 wherever it counts: E of
    its first three powers give the KL to a part in 10^4. What float32 rounds off E e/T cancels out.

    That is so while errors differ. Where nearly all classes have one logit, as of a teacher with a floor, E e² and (E e)² are
    nearly equal, and such distributions are compared in float64.
    """
    t = torch.tensor(temperatures, dtype=torch.float64, device=z.device)[:, None]
    total, *moments = _sums(z, stored, temperatures).permute(2, 1, 0)  # (T, n) each
    first, second, third = (moment / total / t**power for power, moment in enumerate(moments, 1))
    kl: Tensor = (torch.log1p(first + second / 2 + third / 6) - first).clamp_min_(0.0)
    alike = (second - first**2 < _CANCELS * second).any(dim=0)
    if bool(alike.any()):
        kl[:, alike] = _wide_kl(z[alike], stored[alike], temperatures)
    return kl


def _wide_kl(z: Tensor, stored: Tensor, temperatures: Sequence[float]) -> Tensor:
    """The same as `rounding_kl`, in float64 and a few distributions at a time."""
    found = []
    for part, rounded_part in zip(
        *(torch.split(each, max(1, _CACHED // z.shape[1])) for each in (z, stored)), strict=True
    ):
        wide = part.double()
        e = (rounded_part.double() - wide).masked_fill_(wide.isneginf(), 0.0)
        found.append(torch.stack([_centred_kl(torch.softmax(wide / t, dim=-1), e / t) for t in temperatures]))
    return torch.cat(found, dim=1)


def _centred_kl(p: Tensor, d: Tensor) -> Tensor:
    """log E exp(d - E d) over p (n, C), per row: written so, it keeps its digits."""
    d = d - (p * d).sum(dim=-1, keepdim=True)
    return torch.log1p((p * d.expm1_()).sum(dim=-1)).clamp_min_(0.0)


def _sums(z: Tensor, stored: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Sums of exp(z/T) e^j over the classes of (n, C), for j from 0 to 3, (n, T, 4) float64, of float32 terms."""
    classes = z.shape[1]
    step = max(1, (_CACHED if z.device.type == "cpu" else _AT_ONCE) // classes)
    powers = z.new_ones(min(step, len(z)), 4, classes, dtype=torch.float32)
    p = powers.new_empty(len(powers), len(temperatures), classes)
    found = [powers.new_zeros(0, len(temperatures), 4, dtype=torch.float64)]
    for start in range(0, len(z), step):
        part = z[start : start + step]
        e, square, cube = powers[: len(part), 1:].unbind(1)
        e.copy_(stored[start : start + step] - part)
        if bool(part.amin().isneginf()):
            e.masked_fill_(part.isneginf(), 0.0)
        torch.mul(torch.mul(e, e, out=square), e, out=cube)
        _exponentials(part, temperatures, p[: len(part)])
        pairs = zip(*(torch.split(each[: len(part)], _SUMMED, dim=2) for each in (p, powers)), strict=True)
        with torch.autocast(z.device.type, enabled=False):  # half precision would blur the sums
            sums = torch.stack([torch.bmm(left, right.mT) for left, right in pairs])
        found.append(sums.sum(dim=0, dtype=torch.float64))
    return torch.cat(found)


def _exponentials(z: Tensor, temperatures: Sequence[float], out: Tensor) -> None:
    """exp(z/T) (n, T, C) of logits (n, C) into `out`; of half a temperature by squares, in a fifth of the time."""
    for t in sorted(temperatures, reverse=True):
        one = out[:, temperatures.index(t)]
        if 2 * t in temperatures:
            torch.square(out[:, temperatures.index(2 * t)], out=one)
        else:
            torch.mul(z, 1 / t, out=one).exp_()


def same_largest(z: Tensor, stored: Tensor) -> Tensor:
    """Whether the largest class, of equal ones the first, is the same of logits (n, C), at most 0, and of their float16."""
    zeros = z.shape[1] - (stored.view(torch.int16) & 0x7FFF).clamp_max_(1).sum(dim=-1, dtype=torch.int32)
    agreed, several = zeros == 1, zeros > 1  # the largest is 0 and stored as 0, as others may be
    if bool(several.any()):
        agreed[several] = z[several].argmax(dim=-1) == stored[several].argmax(dim=-1)
    return agreed
