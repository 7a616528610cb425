"""`TailBasis`: a store's prior and basis on a device, and the coefficients of tails in it. How a basis is found, and
coefficients are stored, is in `tail_basis`.

n positions, C classes, K stored classes, r rank.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from softlabels.labels.stored import IMPOSSIBLE

_RIDGE = 0.1  # squared error of one class against a coefficient of one standard deviation


class TailBasis:
    """A store's prior and basis (1 + r, C) float16, as stored, on a device, with what follows from them: made at the first use
    and kept, as long as the calls to encode that share it.
    """

    def __init__(self, stored: Tensor) -> None:
        self.stored = stored

    @cached_property
    def wide(self) -> Tensor:
        """The same in float32."""
        return self.stored.float()

    @cached_property
    def _unknown(self) -> Tensor:
        """(C,) classes that no position of the sample allows."""
        return self.wide[0] == IMPOSSIBLE

    @cached_property
    def _terms(self) -> Tensor:
        """(1 + r, C) float32: a constant a position is free."""
        return torch.cat([torch.ones_like(self.wide[:1]), self.wide[1:]])

    @cached_property
    def _inverse(self) -> Tensor:
        """(1 + r, 1 + r) float64, of the normal equations over all classes."""
        terms = self._terms.double()
        ridge = torch.full_like(terms[:, 0], _RIDGE)
        ridge[0] = 0.0
        inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(terms @ terms.T + torch.diag(ridge)))
        return inverse

    def coefficients(self, tail: Tensor, ids: Tensor) -> Tensor:
        """Of each position the least squares over the classes of its tail: (n, r) float64 for logits `tail` (n, C), -inf where
        a class is stored, as `ids` (n, K) say, or impossible.

        A class that is impossible here, or was throughout the sample, counts as one that is where the prior has it. The normal
        equations of all classes are solved once; a position takes its K stored ones out of them (Woodbury's identity).
        """
        if ids.shape[1] == tail.shape[1]:
            return self._inverse.new_zeros(len(tail), len(self._inverse) - 1)
        left = self._residual(tail, ids)
        with torch.autocast(left.device.type, enabled=False):  # half precision would blur the coefficients
            whole = (left @ self._terms.T).double() @ self._inverse  # (n, 1 + r)
        stored = self._terms.T[ids].double()  # (n, K, 1 + r)
        moved = stored @ self._inverse
        within = torch.eye(ids.shape[1], dtype=whole.dtype, device=whole.device) - moved @ stored.transpose(1, 2)
        back = torch.linalg.solve(within, stored @ whole[..., None])  # (n, K, 1)
        solved: Tensor = (whole + (moved.transpose(1, 2) @ back)[..., 0])[:, 1:]
        return solved

    def _residual(self, tail: Tensor, ids: Tensor) -> Tensor:
        """What the prior leaves of the tail (n, C), less its mean, in float32; 0 where a class is stored or impossible."""
        left = (tail.float() - self.wide[0]).scatter_(1, ids, 0.0)
        if not self._unknown.any() and not left.amin().isneginf():  # a mask takes as long as all else here
            left -= left.sum(dim=1, keepdim=True) / left.new_full((1, 1), left.shape[1] - ids.shape[1])
            return left.scatter_(1, ids, 0.0)
        nowhere = (left.isneginf() | self._unknown).scatter_(1, ids, True)
        left.masked_fill_(nowhere, 0.0)
        left -= left.sum(dim=1, keepdim=True) / (~nowhere).sum(dim=1, keepdim=True, dtype=torch.int32).clamp_min(1)
        return left.masked_fill_(nowhere, 0.0)
