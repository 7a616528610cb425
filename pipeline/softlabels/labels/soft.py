"""`SoftLabels`: a batch of stored teacher outputs in torch, of any encoding, from which any temperature's distribution is
computed on the device. The numpy references are `ensemble` and `topk_reference`; the losses that consume it are in
`softlabels.student`.

N positions, M members, C classes, K stored classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softlabels.errors import ConfigError, MeanUnavailable
from softlabels.labels.dense_soft import DenseMembers
from softlabels.labels.ensemble import check_known, check_mean, check_temperature
from softlabels.labels.members import Members
from softlabels.labels.targets import Target, require_target


@dataclass(frozen=True)
class SoftLabels:
    """Teacher outputs for a batch, as stored.

    Attributes:
        members: the stored columns of each member, as `EncodingBase.members` makes them.
        weights: (M,) float32, the members' weights, summing to 1.
        reduce: "none"; "geometric" if the one stored member is the members' mean logits, "arithmetic" if it is their mean
            values.
        known_at: the only temperature at which they are known, None for any.
        near_1: the temperature closest to 1 at which they are known.

    Example:
        >>> soft = next(Loader(EmbeddedRows(store), store, batch_size=50, seed=0).epoch(0)).soft
        >>> soft.stored_members, soft.log_probs(8.0, mean="geometric").shape
        (3, torch.Size([50, 5]))
    """

    members: Members
    weights: Tensor
    reduce: str = "none"
    known_at: float | None = None
    near_1: float = 1.0

    @staticmethod
    def dense(logits: Tensor, shift: Tensor, weights: Tensor, reduce: str = "none") -> SoftLabels:
        """Labels of dense columns, see `DenseMembers`."""
        return SoftLabels(DenseMembers(logits, shift), weights, reduce)

    def __len__(self) -> int:
        return self.members.shape[0]

    @property
    def classes(self) -> int:
        """C."""
        return self.members.shape[2]

    @property
    def stored_members(self) -> int:
        """M."""
        return self.members.shape[1]

    @property
    def target(self) -> Target:
        """The kind of the target."""
        return self.members.target

    @property
    def tail(self) -> str | None:
        """How the tail's shape is stored; None for dense labels, which have no tail."""
        return self.members.tail

    def __getitem__(self, index: slice | Tensor) -> SoftLabels:
        """The positions that `index` selects along N."""
        return replace(self, members=self.members[index])

    def to(self, device: torch.device | str) -> SoftLabels:
        """The same labels on `device`."""
        return replace(self, members=self.members.to(device), weights=self.weights.to(device))

    def member(self, number: int) -> SoftLabels:
        """One member's labels, as those of an ensemble of one."""
        return replace(self, members=self.members.member(number), weights=torch.ones_like(self.weights[:1]))

    def log_probs(self, temperature: float, mean: str = "arithmetic", labels: Tensor | None = None) -> Tensor:
        """Log-probabilities (N, C) float32 of the ensemble at `temperature`; -inf for classes of probability 0.

        `mean` is "arithmetic", "geometric" or "tempered" over the members' full distributions, defined in
        `softlabels.labels.ensemble`.

        `labels` (N,), -1 for none, are for losses that treat a position's label separately. With sparse labels that store the
        label's logit, its own probability is then exact in each member, and the tail's other classes share the rest of the
        tail's mass.

        Raises:
            ConfigError: a temperature that is <= 0, not finite, or lower than the labels' tails are known for; no such mean.
            MeanUnavailable: a mean that the labels cannot give.
            NoPossibleClass: the geometric mean of members that have no possible class in common.
        """
        require_target(self.target, "log-probabilities", "softmax")
        tail = self.members.left_out
        members = int((self.weights > 0).sum()) if tail and mean == "geometric" else 1  # counted on the device
        mean = self._check(temperature, mean, tail, members)
        return self.members.averaged(self.weights, temperature, mean, labels)

    def logits(self, temperature: float, mean: str = "arithmetic") -> Tensor:
        """For a sigmoid target: numbers (N, C) float32 whose sigmoid is the ensemble's probability of each class at
        `temperature`. They are exact for probabilities very close to 0 or 1; -inf and +inf stand for 0 and 1.

        `mean` is "arithmetic", "geometric" or "tempered", defined in `softlabels.labels.bernoulli`.

        Raises:
            ConfigError: an impossible temperature, no such mean, or another kind of target.
            MeanUnavailable: a mean that the labels cannot give.
            NoPossibleClass: the geometric mean, if one member gives a class probability 0 and another 1.
        """
        require_target(self.target, "logits of one class each", "sigmoid")
        mean = self._check(temperature, mean, None, 1)
        return self.members.averaged_logits(self.weights, temperature, mean)

    def values(self) -> Tensor:
        """For a values target: the members' weighted mean (N, D) float32. Raises `ConfigError` for other targets."""
        require_target(self.target, "values", "values")
        return self.members.mean_values(self.weights)

    def _check(self, temperature: float, mean: str, tail: str | None, members: int) -> str:
        """The mean to take, once it and the temperature may be asked for."""
        check_temperature(temperature)
        check_known(temperature, self.known_at)
        check_mean(mean, self.reduce, tail=tail, members=members)
        if mean != "tempered" or self.known_at is None:
            return mean
        if int((self.weights > 0).sum()) > 1:
            check_known(1.0, self.known_at)  # of which it is the mean
        return "arithmetic"  # the same of one member, and at T = 1

    def stored(self, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """For sparse labels of one member: ids (N, K) int64 and log-probabilities (N, K) of the stored classes, and the log
        mass (N,) of the tail, float32. Raises `ConfigError` at a temperature at which they are not known.
        """
        assert self.stored_members == 1
        check_known(temperature, self.known_at)
        log_p, log_tail = self.members.stored(temperature)
        return self.members.ids()[:, 0], log_p[:, 0], log_tail[:, 0]

    def standardised(self) -> SoftLabels:
        """The same labels with each member's logits standardised, see `softlabels.labels.standardise`.

        Raises:
            MeanUnavailable: only the members' mean logits are stored, or only the largest logits: members cannot be
                standardised from these.
            ConfigError: as for `mean_logits`.
        """
        self._require_logits("logits to standardise")
        if self.reduce != "none":
            raise MeanUnavailable(
                "logit_standardization scales each member's logits, and the labels keep only the members' mean "
                f"(reduce: {self.reduce})",
                remedy="train without it, or label the transfer set again with reduce: none",
            )
        return replace(self, members=self.members.standardised())

    def mean_logits(self, *, shifted: bool = True) -> Tensor:
        """The members' weighted mean of z, (N, C) float32; -inf where a member of weight > 0 has -inf. With `shifted=False`,
        the mean of z - max(z): the same except for a constant per position, and without its rounding.

        Raises:
            MeanUnavailable: only the largest logits are stored.
            ConfigError: not a softmax target, or labels that are known at only one temperature.
        """
        self._require_logits("mean logits")
        return self.members.mean_logits(self.weights, shifted=shifted)

    def _require_logits(self, what: str) -> None:
        """Raise `ConfigError` unless they are logits of a softmax, which are known at any temperature."""
        require_target(self.target, what, "softmax")
        if self.known_at is not None:
            raise ConfigError(
                f"the labels are known at temperature {self.known_at:g} only and have no {what}",
                remedy="train without them, by a loss at that temperature",
            )
