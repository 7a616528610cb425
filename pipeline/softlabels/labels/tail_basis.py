"""The shape of tails in few numbers: a prior and a basis that a whole store shares, and a position's coefficients in it.

Logits of a language model are a product of a hidden state and an output matrix, so that over a sample of positions they
vary in few directions. The prior is the sample's mean of z - max z, a class at a time; the basis holds the leading singular
vectors of what is left of it, each scaled to the sample's standard deviation along it, so that coefficients are about 1 in
size. A constant a position says nothing, so each position's mean is taken out of it beforehand.

A position's coefficients are those of least squares over its tail alone: what the stored classes would need is of no concern.
`tail_fit` finds them.

n positions, M members, C classes, K stored classes, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import ConfigError
from softlabels.labels.blocks import block_of
from softlabels.labels.stored import IMPOSSIBLE
from softlabels.labels.topk_fields import COARSE, FINE, TopkFields

SMALLEST = 2.0**-14  # below it float16 is coarser than int8's coefficients
_ROUNDS = 6  # of subspace iteration
_CHUNK_BYTES = 1 << 26  # float32 working memory a chunk of classes


def find_basis(logits: Iterable[Tensor], rank: int) -> NDArray[np.float16]:
    """Prior and basis (1 + `rank`, C) of a sample's logits; the same for the same logits, machine and number of threads.

    Args:
        logits: blocks (n, M, C) on any device; -inf for impossible classes. Held in memory as float16.
        rank: r basis vectors; 0 for the prior alone.

    Raises:
        LogitsError: a position with NaN, +inf, or nothing but -inf.
        ConfigError: the sample has fewer distributions or classes than `rank`, or none.

    Example:
        >>> from softlabels.labels.tail_basis import find_basis
        >>> find_basis([torch.from_numpy(logits)], rank=2).shape
        (3, 5)
    """
    blocks = [
        block_of(block, None, None, "row {} of a sampled block".format).below.flatten(0, 1).half() for block in logits
    ]
    sample = torch.cat(blocks) if blocks else torch.zeros(0, 0)
    if len(sample) == 0 or rank > min(sample.shape):
        raise ConfigError(
            f"a sample of {len(sample)} distributions of {sample.shape[1]} classes cannot give a basis of rank {rank}",
            remedy="take a lower rank (labels.rank, --rank), or "
            + ("keep so few classes densely" if len(sample) >= rank else "a larger transfer set"),
        )
    prior = _prior(sample)
    found = torch.cat([prior[None], _leading(_Residuals(sample, prior.float()), rank)])
    return np.asarray(found.cpu().numpy())


def _chunks(sample: Tensor) -> Iterable[slice]:
    """Slices of the classes of (n, C)."""
    size = max(1, _CHUNK_BYTES // (4 * len(sample)))
    return (slice(start, start + size) for start in range(0, sample.shape[1], size))


def _prior(sample: Tensor) -> Tensor:
    """The mean (C,) float16 over the positions where a class is possible."""
    parts = []
    for chunk in _chunks(sample):
        values = sample[:, chunk].float()
        possible = torch.isfinite(values)
        total = values.masked_fill_(~possible, 0.0).double().sum(dim=0)
        count = possible.sum(dim=0)
        parts.append(torch.where(count > 0, total / count.clamp_min(1), IMPOSSIBLE).half())
    return torch.cat(parts)


class _Residuals:
    """What a prior leaves of a sample, (n, C), each position less its mean; 0 where a class is impossible."""

    def __init__(self, sample: Tensor, prior: Tensor) -> None:
        self.sample, self.prior = sample, prior
        total, count = torch.zeros(2, len(sample), dtype=torch.float64, device=sample.device)
        for chunk in _chunks(sample):
            part = sample[:, chunk] - prior[chunk]
            possible = torch.isfinite(part)
            total += part.masked_fill_(~possible, 0.0).double().sum(dim=1)
            count += possible.sum(dim=1)
        self.means = (total / count).float()[:, None]

    def chunks(self) -> Iterable[Tensor]:
        """(n, c) float32, classes in order."""
        for chunk in _chunks(self.sample):
            part = self.sample[:, chunk] - self.prior[chunk] - self.means
            yield part.masked_fill_(torch.isneginf(part), 0.0)


def _leading(residuals: _Residuals, rank: int) -> Tensor:
    """The leading right singular vectors (r, C) float16, each times its singular value / sqrt(n), its largest entry positive.

    By subspace iteration (Halko, Martinsson, Tropp 2011, SIAM Review 53, algorithm 4.4) from a fixed random start.
    """
    n, classes = residuals.sample.shape
    device = residuals.sample.device
    if rank == 0:
        return torch.zeros(0, classes, dtype=torch.float16, device=device)
    width = min(2 * rank + 16, n, classes)
    space = torch.randn(n, width, generator=torch.Generator().manual_seed(0)).to(device)
    for _ in range(_ROUNDS):
        space = torch.linalg.qr(space.double()).Q.float()
        space = sum((part @ (part.T @ space) for part in residuals.chunks()), torch.zeros_like(space))
    space = torch.linalg.qr(space.double()).Q.float()
    image = torch.cat([part.T @ space for part in residuals.chunks()]).double()  # (C, width)
    turn = torch.linalg.eigh(image.T @ image).eigenvectors.flip(1)[:, :rank]
    vectors = (image @ turn).T / n**0.5
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    basis: Tensor = (vectors * torch.where(largest < 0, -1.0, 1.0)).half()
    return basis


def coefficient_columns(
    coefficients: Tensor, encoding: TopkFields, refuse: Callable[[Tensor, str, str], None]
) -> dict[str, Tensor]:
    """Coefficients (n, r) as the columns (n, ...) that keep them: the leading ones with 8 bits, the others with 4, two a byte.

    `refuse` is told of positions (n,) whose coefficients lie beyond float16.
    """
    columns, scales = {}, []
    if encoding.fine:
        columns["tail_fine"], scale = _rounded(coefficients[:, : encoding.fine], FINE, refuse)
        scales.append(scale)
    if encoding.coarse:
        steps, scale = _rounded(coefficients[:, encoding.fine :], COARSE, refuse)
        nibbles = torch.nn.functional.pad(steps, (0, encoding.coarse % 2)).to(torch.uint8) & 15
        columns["tail_coarse"] = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
        scales.append(scale)
    return columns | {"tail_scale": torch.stack(scales, dim=1)}


def _rounded(coefficients: Tensor, limit: int, refuse: Callable[[Tensor, str, str], None]) -> tuple[Tensor, Tensor]:
    """(n, r) as int8 (n, r) from -limit to limit and scale (n,) float16: coefficient = int8 * scale / limit. Nothing is
    clipped, as the scale is the largest of a position's coefficients.
    """
    scale = coefficients.abs().amax(dim=1).half()
    refuse(
        ~torch.isfinite(scale),
        "the tail lies too far from the store's basis for float16",
        "check the teacher's outputs there, or keep another tail than lowrank",
    )
    scale = scale.masked_fill(scale < SMALLEST, 0.0)
    steps = coefficients / torch.where(scale == 0, torch.inf, scale.double())[:, None] * limit
    return steps.round().to(torch.int8), scale
