"""`Members`: what a batch keeps of each member of a teacher, in torch. Each kind of encoding has its own; `SoftLabels` asks
nothing else. Its neighbours are `dense_soft`, `topk_soft`, `sigmoid_soft` and `values_soft`.

N positions, M members, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from softlabels.errors import MeanUnavailable
from softlabels.labels.ensemble import no_common_class
from softlabels.labels.targets import Target


class Members(ABC):
    """Stored outputs of M members."""

    target: ClassVar[Target] = "softmax"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(N, M, C)."""

    @abstractmethod
    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every column (N, M, ...) changed alike."""

    def __getitem__(self, index: slice | Tensor) -> Self:
        return self.each(lambda values: values[index])

    def member(self, number: int) -> Self:
        """One member's outputs, M = 1."""
        return self.each(lambda values: values[:, number : number + 1])

    def to(self, device: torch.device | str) -> Self:
        """The same on `device`."""
        return self.each(lambda values: values.to(device))

    def averaged(self, weights: Tensor, temperature: float, mean: str, labels: Tensor | None = None) -> Tensor:
        """Of a softmax: log-probabilities (N, C) float32 of the ensemble; for `labels` (N,) see `SoftLabels`."""
        raise NotImplementedError

    def averaged_logits(self, weights: Tensor, temperature: float, mean: str) -> Tensor:
        """Of a sigmoid: logits (N, C) float32 of the ensemble's probabilities."""
        raise NotImplementedError

    def mean_values(self, weights: Tensor) -> Tensor:
        """Of values: the members' weighted mean (N, D) float32."""
        raise NotImplementedError

    @property
    def tail(self) -> str | None:
        """How the classes that are not stored are kept; None where every class's logit is."""
        return None

    @property
    def left_out(self) -> str | None:
        """The same; None too where no class is left out, as in a top-k of all."""
        return None

    def ids(self) -> Tensor:
        """Ids (N, M, K) int64 of the stored classes, ascending, where some are chosen."""
        raise NotImplementedError

    def stored(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Their log-probabilities (N, M, K), and the log mass (N, M) of the tail, float32."""
        raise NotImplementedError

    def tail_logits(self, ids: Tensor, temperature: float, nowhere: float = -torch.inf) -> Tensor:
        """z / T (N, C) float32 of the one member's tail, a tensor of its own; `nowhere` at the stored classes `ids` (N, K)."""
        raise NotImplementedError

    def logits_of(self, number: int) -> Tensor | None:
        """z - max(z) (N, C) of a member as stored; None where not every class's is."""
        return None

    def mean_logits(self, weights: Tensor, *, shifted: bool) -> Tensor:
        """The members' weighted mean of z, or of z - max(z), (N, C) float32. Raises `MeanUnavailable`."""
        raise MeanUnavailable(
            "the members' mean logits need every class's logit, and the labels keep the largest (encoding: topk)",
            remedy="take the geometric mean's log-probabilities, or a dense store",
        )

    def standardised(self) -> Members:
        """The same with each member's logits standardised. Raises `MeanUnavailable`."""
        raise MeanUnavailable(
            "logit_standardization needs every class's logit, and the labels keep the largest (encoding: topk)",
            remedy="train without it, or from a dense store",
        )


@dataclass(frozen=True)
class OneTensor(Members):
    """Numbers (N, M, C) that are kept as they are; see `OneColumn`."""

    numbers: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, M, C)."""
        return self.numbers.shape  # type: ignore[return-value]  # of three axes

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with the numbers changed."""
        return replace(self, numbers=change(self.numbers))


def existing(mean_logits: Tensor) -> Tensor:
    """The same (N, C), unless a position has no class that is possible to all members: `NoPossibleClass`."""
    impossible = torch.isneginf(mean_logits.amax(dim=-1))
    if bool(impossible.any()):
        raise no_common_class(f"position {int(impossible.nonzero()[0])} of {len(impossible)}")
    return mean_logits


def weighted(logits: Tensor, weights: Tensor) -> Tensor:
    """sum_m w_m logits_m: (N, M, C) -> (N, C); a member of weight 0 does not count, not even its -inf."""
    return torch.where(weights[:, None] > 0, weights[:, None] * logits, 0.0).sum(dim=1)
