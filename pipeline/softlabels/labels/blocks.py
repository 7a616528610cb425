"""Logits a block at a time where they are, through a bounded piece of memory: checked, reduced, and for the kinds that keep
softmax logits taken below their largest. What is kept of a block is `dense_encode`'s and `topk_encode`'s business.

N positions, M members, C classes; n positions of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from softlabels.errors import InfiniteLogits, LogitsError, LogitsOverflow, NanLogits, NoPossibleClass
from softlabels.labels.ensemble import normalised_weights
from softlabels.labels.fidelity import FidelitySums

_ARRAYS = 12  # float32 arrays (block, C) that stand in memory at once, at most
_COMPARED_BYTES = 1 << 22  # of float64 logits that are compared at a time: they stay in the cache
_BEYOND = 65520.0  # what float16 rounds to infinity
_NO_CLASS = "correct the teacher's outputs there: no class is possible"
OVERFLOW = "correct the teacher's outputs there: NaN inputs or an overflow in half precision is the usual cause"


@dataclass(frozen=True)
class Block:
    """Some positions.

    Attributes:
        logits: (n, M, C), float32 or float64.
        real: (n,) bool, which of them count; the others have logits of 0.
        place: what messages call a position of the block, from its number.
        at: which of all positions they are.
    """

    logits: Tensor
    real: Tensor
    place: Callable[[int], str]
    at: slice

    @cached_property
    def peak(self) -> Tensor:
        """(n, M, 1) the largest of each distribution. Raises `LogitsError` where it is no number that float32 holds."""
        peak = self.logits.amax(dim=-1, keepdim=True)  # NaN where any is NaN, -inf where all are
        if not torch.isfinite(peak.float()).all():
            self.refuse(peak.isnan(), "logits are NaN", OVERFLOW, NanLogits)
            self.refuse(peak.isposinf(), "a logit is +inf", OVERFLOW, InfiniteLogits)
            self.refuse(peak.isneginf(), "the logits of all classes are -inf", _NO_CLASS, NoPossibleClass)
            beyond = "the largest logit lies beyond float32"
            self.refuse(peak.float().isinf(), beyond, "scale the teacher's outputs down", InfiniteLogits)
        return peak

    @cached_property
    def below(self) -> Tensor:
        """logits - peak (n, M, C). Raises `LogitsOverflow` for what float16 does not hold."""
        below = self.logits - self.peak
        if bool((below.amin(dim=-1) <= -_BEYOND).any()):  # else no class is compared, which would take longest
            self.refuse(
                ((below <= -_BEYOND) & ~self.logits.isneginf()).any(dim=-1),
                "a finite logit lies more than 65504 below the largest of its row, which float16 cannot hold",
                "mark impossible classes with -inf instead of a large negative number",
                LogitsOverflow,
            )
        return below

    def counted(self, values: Tensor) -> Tensor:
        """Those of values (n, ...) whose positions count."""
        return values if bool(self.real.all()) else values[self.real]

    def refuse(self, bad: Tensor, what: str, remedy: str, kind: type[LogitsError] = LogitsError) -> None:
        """Raise an error of this kind that names the first distribution that is `bad`, of n * M in order."""
        if bad.any():
            number, member = divmod(int(bad.flatten().nonzero()[0]), self.logits.shape[1])
            raise kind(f"{what} ({self.place(number)}, member {member})", remedy=remedy)


Check = Callable[[Block], object]  # what refuses outputs that are none of a kind


def softmax_logits(block: Block) -> None:
    """Raise `LogitsError` unless each distribution has a class of finite logit, and no NaN or +inf."""
    _ = block.peak


def blocks(
    logits: Tensor, weights: ArrayLike | None, mask: Tensor | None, place: Callable[[int], str], block_bytes: int,
    check: Check,
) -> Iterator[Block]:  # fmt: skip
    """Logits (N, M, C) in blocks; see `EncodingBase.encode`."""
    if logits.ndim != 3 or not logits.is_floating_point():
        raise LogitsError(
            f"logits must be floats of shape (rows, members, classes), not {logits.dtype} of shape {tuple(logits.shape)}",
            remedy="give one float logit a class",
        )
    step = max(1, block_bytes // (4 * _ARRAYS * logits[0:1].numel() or 1))
    cuts = (slice(start, start + step) for start in range(0, len(logits), step))
    return (
        block_of(logits[at], weights, None if mask is None else mask[at], partial(_placed, place, at.start), at, check)
        for at in cuts
    )


def _placed(place: Callable[[int], str], start: int, number: int) -> str:
    return place(start + number)


def block_of(
    logits: Tensor, weights: ArrayLike | None, mask: Tensor | None, place: Callable[[int], str], at: slice = slice(None),
    check: Check = softmax_logits,
) -> Block:  # fmt: skip
    """A block of logits (n, M, C), 0 where `mask` (n,) is false, checked, and reduced where there are weights."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    real = torch.ones(len(wide), dtype=torch.bool, device=wide.device) if mask is None else mask
    if mask is not None:
        wide = wide.masked_fill(~mask[:, None, None], 0.0)
    given = Block(wide, real, place, at)
    check(given)  # here, where the member is known
    return given if weights is None else Block(reduced(wide, weights), real, place, at)


def reduced(logits: Tensor, weights: ArrayLike) -> Tensor:
    """The members' weighted mean logits, (n, M, C) -> (n, 1, C) float64, all that a geometric mean needs."""
    share = normalised_weights(weights, logits.shape[1]).tolist()
    total, *parts = (logits[:, number].double() * part for number, part in enumerate(share) if part > 0)
    mean: Tensor = sum(parts, total)  # one after the other: the same bits on any machine
    return mean[:, None]


def rounded(values: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
    """The nearest numbers of a dtype, on the device; of float64 too, which torch rounds twice on its way to float16."""
    if values.dtype != torch.float64 or dtype != torch.float16:
        return values.to(dtype)
    with np.errstate(over="ignore"):  # infinite, which is refused where it is none
        return torch.from_numpy(values.cpu().numpy().astype(np.float16)).to(values.device)


def compared(
    exact: Tensor,
    stored: Tensor,
    temperatures: Sequence[float],
    compare: Callable[[Tensor, Tensor, Sequence[float]], Tensor],
) -> tuple[FidelitySums, ...]:
    """What storing (n, M, C) lost, in float64 and a few distributions at a time. `compare` gives of some (n, C) whether they
    agree, and below it the KL at each temperature.
    """
    classes = exact.shape[-1]
    step = max(1, _COMPARED_BYTES // (8 * classes))
    pairs = zip(*(torch.split(each.reshape(-1, classes), step) for each in (exact, stored)), strict=True)
    agreed, *kl = torch.cat([compare(z.double(), s.double(), temperatures) for z, s in pairs], dim=1)
    return tuple(FidelitySums.of(t, each, agreed) for t, each in zip(temperatures, kl, strict=True))


def tensor_of(logits: NDArray[np.floating]) -> Tensor:
    """The same array in torch, not copied where it may be written to. Raises `LogitsError` unless torch knows such floats."""
    if logits.dtype not in (np.float16, np.float32, np.float64):
        raise LogitsError(f"logits are {logits.dtype}", remedy="give float16, float32 or float64")
    return torch.from_numpy(np.require(logits, requirements=["C", "W"]))
