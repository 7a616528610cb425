"""`SoftLabels`: a batch of stored teacher outputs in torch, dense or sparse, from which any temperature's distribution is
computed on the device. The numpy references are `ensemble` and `topk`; the losses that consume it are in `softlabels.student`.

N positions, M members, C classes, K stored classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softlabels.errors import MeanUnavailable
from softlabels.labels.encoding import Tail, TopkEncoding, tail_of
from softlabels.labels.ensemble import check_mean, check_temperature, no_common_class
from softlabels.labels.standardise import standardise
from softlabels.labels.topk_soft import Columns, TopkMembers

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class DenseMembers:
    """Every class's logit of M members, as stored.

    Attributes:
        logits: (N, M, C) z - max(z), float16 as stored, or wider; -inf for a class of probability 0.
        shift: (N, M) float32, max(z), so that z = logits + shift.
    """

    logits: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return self.logits.shape[0]

    @property
    def count(self) -> int:
        """M."""
        return self.logits.shape[1]

    @property
    def classes(self) -> int:
        """C."""
        return self.logits.shape[2]

    def __getitem__(self, index: slice | Tensor) -> DenseMembers:
        return DenseMembers(self.logits[index], self.shift[index])

    def member(self, number: int) -> DenseMembers:
        """One member's outputs, M = 1."""
        return DenseMembers(self.logits[:, number : number + 1], self.shift[:, number : number + 1])

    def to(self, device: torch.device | str) -> DenseMembers:
        """The same on `device`."""
        return DenseMembers(self.logits.to(device), self.shift.to(device))


@dataclass(frozen=True)
class SoftLabels:
    """Teacher outputs for a batch, as stored.

    Attributes:
        members: what is stored of each member.
        weights: (M,) float32, the members' weights, summing to 1.
        reduce: "none", or "geometric" where the one stored member is the members' mean logits.
    """

    members: DenseMembers | TopkMembers
    weights: Tensor
    reduce: str = "none"

    @staticmethod
    def dense(logits: Tensor, shift: Tensor, weights: Tensor, reduce: str = "none") -> SoftLabels:
        """Labels of dense columns, see `DenseMembers`."""
        return SoftLabels(DenseMembers(logits, shift), weights, reduce)

    @staticmethod
    def topk(
        columns: Columns,
        weights: Tensor,
        reduce: str = "none",
        *,
        encoding: TopkEncoding,
        classes: int,
        basis: Tensor | None = None,
    ) -> SoftLabels:
        """Labels of sparse columns (N, M, ...), see `TopkMembers`."""
        return SoftLabels(TopkMembers.of(columns, encoding=encoding, classes=classes, basis=basis), weights, reduce)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def classes(self) -> int:
        """C."""
        return self.members.classes

    @property
    def stored_members(self) -> int:
        """M."""
        return self.members.count

    @property
    def tail(self) -> Tail | None:
        """What is known of the tail's shape; None for dense labels, which have no tail."""
        return None if isinstance(self.members, DenseMembers) else self.members.encoding.tail

    def __getitem__(self, index: slice | Tensor) -> SoftLabels:
        """The positions that `index` selects along N."""
        return replace(self, members=self.members[index])

    def to(self, device: torch.device | str) -> SoftLabels:
        """The same labels on `device`."""
        return replace(self, members=self.members.to(device), weights=self.weights.to(device))

    def member(self, number: int) -> SoftLabels:
        """One member's labels, as those of an ensemble of one."""
        return SoftLabels(self.members.member(number), torch.ones_like(self.weights[:1]), self.reduce)

    def log_probs(self, temperature: float, mean: str = "arithmetic") -> Tensor:
        """Log-probabilities (N, C) float32 of the ensemble at `temperature`; -inf for classes of probability 0.

        `mean` is "arithmetic", "geometric" or "tempered", defined in `softlabels.labels.ensemble`, of the members' full
        distributions.

        Raises:
            ConfigError: temperature <= 0 or not finite, lower than the labels' tails are known for, or no such mean.
            MeanUnavailable: a mean that the labels cannot give.
            NoPossibleClass: the geometric mean of members that have no possible class in common.
        """
        check_temperature(temperature)
        self._check_mean(mean)
        if isinstance(self.members, TopkMembers):
            return self._topk_log_probs(self.members, temperature, mean, None)
        return self._dense_log_probs(self.members.logits, temperature, mean)

    def log_probs_of_label(self, temperature: float, mean: str, labels: Tensor) -> Tensor:
        """As `log_probs`, for losses that set a position's label (N,) apart from the other classes: where labels are
        sparse and know the label's logit, its own probability is exact in each member, and the tail's other classes share
        what it leaves of the tail's mass. -1: no label.
        """
        if not isinstance(self.members, TopkMembers):
            return self.log_probs(temperature, mean)
        self._check_mean(mean)
        return self._topk_log_probs(self.members, temperature, mean, labels)

    def stored(self, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Of sparse labels of one member: ids (N, K) int64 and log-probabilities (N, K) of the stored classes, and the
        log mass (N,) of the tail, float32.
        """
        assert isinstance(self.members, TopkMembers)
        assert self.members.count == 1
        log_p, log_tail = self.members.stored(temperature)
        return self.members.ids()[:, 0], log_p[:, 0], log_tail[:, 0]

    def _check_mean(self, mean: str) -> None:
        """See `check_mean`."""
        tail = tail_of(self.members.encoding, self.classes) if isinstance(self.members, TopkMembers) else None
        members = int((self.weights > 0).sum()) if tail and mean == "geometric" else 1
        check_mean(mean, self.reduce, tail=tail, members=members)

    def _topk_log_probs(self, members: TopkMembers, temperature: float, mean: str, labels: Tensor | None) -> Tensor:
        """Each member's distribution after the other, so that no more than two stand in memory."""
        if members.count == 1:
            return members.log_probs(0, temperature, labels)
        inner = 1.0 if mean == "tempered" else temperature
        nothing = 0.0 if mean == "geometric" else -torch.inf
        total = torch.full((len(self), self.classes), nothing, device=self.weights.device)
        for number, weight in enumerate(self.weights):
            log_p = members.log_probs(number, inner, labels)
            if mean == "geometric":
                total += torch.where(weight > 0, weight * log_p, 0.0)
            else:
                total = torch.logaddexp(total, log_p.add_(weight.log()))
        if mean == "arithmetic":
            return total
        return torch.log_softmax(_existing(total) if mean == "geometric" else total / temperature, dim=-1)

    def _dense_log_probs(self, logits: Tensor, temperature: float, mean: str) -> Tensor:
        one = logits.shape[1] == 1
        if mean == "geometric" and not one:
            return torch.log_softmax(_existing(self._weighted(logits.float())) / temperature, dim=-1)
        members = _log_softmax(logits, 1.0 if mean == "tempered" and not one else temperature)  # (N, M, C)
        if one:
            return members[:, 0]
        members += self.weights.log()[:, None]
        peak = members.amax(dim=1).clamp_min_(LOWEST)  # a class that no member allows: log 0 = -inf is meant
        averaged = (members - peak[:, None]).exp_().sum(dim=1).log_() + peak
        return torch.log_softmax(averaged / temperature, dim=-1) if mean == "tempered" else averaged

    def standardised(self) -> SoftLabels:
        """The same labels with each member's logits standardised, see `softlabels.labels.standardise`.

        Raises:
            MeanUnavailable: only the members' mean logits are stored, from which no member can be standardised; or only
                the largest logits are, whose mean and deviation are not those of all.
        """
        if self.reduce != "none":
            raise MeanUnavailable(
                "logit_standardization scales each member's logits, and the labels keep only the members' mean "
                f"(reduce: {self.reduce})",
                remedy="train without it, or label the transfer set again with reduce: none",
            )
        if isinstance(self.members, TopkMembers):
            raise MeanUnavailable(
                "logit_standardization needs every class's logit, and the labels keep the largest (encoding: topk)",
                remedy="train without it, or from a dense store",
            )
        scaled = standardise(self.members.logits)
        shift = scaled.amax(dim=-1)
        return SoftLabels.dense(scaled - shift[:, :, None], shift, self.weights, self.reduce)

    def mean_logits(self, *, shifted: bool = True) -> Tensor:
        """The members' weighted mean of z, (N, C) float32; -inf where a member of weight > 0 says -inf. Not `shifted`, that of
        z - max(z): the same but for a constant a position, and without its rounding.

        Raises:
            MeanUnavailable: only the largest logits are stored.
        """
        if isinstance(self.members, TopkMembers):
            raise MeanUnavailable(
                "the members' mean logits need every class's logit, and the labels keep the largest (encoding: topk)",
                remedy="take the geometric mean's log-probabilities, or a dense store",
            )
        logits = self.members.logits.float()
        return self._weighted(logits + self.members.shift[:, :, None] if shifted else logits)

    def _weighted(self, logits: Tensor) -> Tensor:
        """sum_m w_m logits_m: (B, M, C) -> (B, C); a member of weight 0 does not count, not even its -inf."""
        weights = self.weights[:, None]
        return torch.where(weights > 0, weights * logits, 0.0).sum(dim=1)


def _existing(mean_logits: Tensor) -> Tensor:
    """The same (N, C), unless a position has no class that is possible to all members: `NoPossibleClass`."""
    impossible = torch.isneginf(mean_logits.amax(dim=-1))
    if bool(impossible.any()):
        raise no_common_class(f"position {int(impossible.nonzero()[0])} of {len(impossible)}")
    return mean_logits


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / T) over the last axis in float32; for few classes several times faster than torch's own."""
    scaled = logits.float() / temperature
    scaled -= scaled.amax(dim=-1, keepdim=True)
    scaled -= scaled.exp().sum(dim=-1, keepdim=True).log_()
    return scaled
