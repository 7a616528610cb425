"""The top-k encoding in torch: `TopkMembers`, the sparse half of `SoftLabels`. The numpy reference is `topk_reference`.

A tail class's log-probability is the log of the tail's mass + z_i / T - the log-sum-exp of z / T over the tail. The stored
classes are taken out of that sum by putting -inf in their places, never by subtracting what they add to it: where they hold
nearly all of it, the difference would be noise.

N positions, M members, C classes, K stored classes, n tail nodes, r basis vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.aligned import aligned_product
from softlabels.labels.class_ids import PAGE, pages
from softlabels.labels.members import Members, existing
from softlabels.labels.tail_mass import CURVE_STEPS, check_beta, curve_weights
from softlabels.labels.topk_fields import COARSE, FINE, IMPOSSIBLE, TopkFields

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32}  # torch cannot index the former


@dataclass(frozen=True)
class TopkMembers(Members):
    """The sparse outputs of M members, as stored.

    Attributes:
        columns: the encoding's columns by name, each (N, M, ...), see `topk_fields`; unsigned ones seen as signed.
        encoding: what is kept.
        classes: C.
        basis: (1 + r, C) float16, the prior and the basis; None where the tail has none.
    """

    columns: Mapping[str, Tensor]
    encoding: TopkFields
    classes: int
    basis: Tensor | None

    @staticmethod
    def of(
        columns: Mapping[str, Tensor | NDArray[np.generic]],
        *,
        encoding: TopkFields,
        classes: int,
        basis: Tensor | None = None,
    ) -> TopkMembers:
        """Members of columns as a store or an encoder gives them; arrays are not copied."""
        tensors = {name: torch.as_tensor(values) for name, values in columns.items()}
        signed = {name: values.view(_SIGNED.get(values.dtype, values.dtype)) for name, values in tensors.items()}
        return TopkMembers(signed, encoding, classes, basis)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.columns["label_logit"].shape, self.classes)

    @property
    def tail(self) -> str:
        return self.encoding.tail

    @property
    def left_out(self) -> str | None:
        return self.encoding.tail_of(self.classes)

    def each(self, change: Callable[[Tensor], Tensor]) -> TopkMembers:
        return replace(self, columns={name: change(values) for name, values in self.columns.items()})

    def to(self, device: torch.device | str) -> TopkMembers:
        return replace(super().to(device), basis=None if self.basis is None else self.basis.to(device))

    def ids(self) -> Tensor:
        """Ids (N, M, K) int64 of the stored classes, ascending."""
        stored = self.columns["top_class"]
        ids = stored.long() & (PAGE - 1 if stored.dtype == torch.int16 else (1 << 32) - 1)
        if pages(self.classes):
            counts = self.columns["top_page"]
            below = counts.long() & ((1 << 8 * counts.element_size()) - 1)
            slot = torch.arange(ids.shape[-1], device=ids.device)
            for page in range(below.shape[-1]):
                ids += PAGE * (slot >= below[..., page : page + 1])
        return ids

    def stored(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N, M, K) of the stored classes and log mass (N, M) of the tail, float32.

        Raises:
            ConfigError: the temperature is not above 0, or below 1 / beta_max, where the tail is not known.
        """
        beta = check_beta(self.encoding, temperature)
        logits = self.columns["top_logit"].float()
        stored = torch.logsumexp(beta * logits, dim=-1)
        tail = self._tail_log_sum(logits, beta)
        total = torch.logaddexp(stored, tail)
        return beta * logits - total[..., None], tail - total

    def _tail_log_sum(self, logits: Tensor, beta: float) -> Tensor:
        """g(beta) (N, M), see `tail_mass`; -inf where there is no tail."""
        nodes, beta_max = self.encoding.nodes, self.encoding.beta_max
        if not nodes:
            return torch.full_like(logits[..., 0], -torch.inf)
        odds = self.columns["tail_odds"].float()
        empty = torch.isneginf(odds[..., 0])
        odds = odds.masked_fill(empty[..., None], 0.0)
        first = odds[..., 0] + torch.isfinite(logits).sum(dim=-1).log()
        last = odds[..., 1] + torch.logsumexp(beta_max * logits, dim=-1)
        along = beta / beta_max
        weights = torch.tensor(curve_weights(beta, nodes, beta_max), dtype=torch.float32, device=odds.device)
        curve = (self.columns["tail_curve"].float() / CURVE_STEPS * weights).sum(dim=-1)
        g = (1 - along) * first + along * last + curve
        return g.masked_fill(empty, -torch.inf)

    def averaged(self, weights: Tensor, temperature: float, mean: str, labels: Tensor | None = None) -> Tensor:
        """Each member's distribution after the other, so that no more than two stand in memory."""
        if self.shape[1] == 1:
            return self.log_probs(0, temperature, labels)
        inner = 1.0 if mean == "tempered" else temperature
        nothing = 0.0 if mean == "geometric" else -torch.inf
        total = torch.full((self.shape[0], self.classes), nothing, device=weights.device)
        for number, weight in enumerate(weights):
            log_p = self.log_probs(number, inner, labels)
            if mean == "geometric":
                total += torch.where(weight > 0, weight * log_p, 0.0)
            else:
                total = torch.logaddexp(total, log_p.add_(weight.log()))
        if mean == "arithmetic":
            return total
        return torch.log_softmax(existing(total) if mean == "geometric" else total / temperature, dim=-1)

    def log_probs(self, number: int, temperature: float, labels: Tensor | None = None) -> Tensor:
        """Log-probabilities (N, C) float32 of member `number`; with `labels` (N,) those of the labels are the exact ones.

        A label's own probability follows from its stored logit whatever the tail's shape says of it; the other classes of the
        tail share what it leaves of the tail's mass. Labels of -1, labels among the stored classes (which are exact as they
        are) and positions without a stored label, or with one that cannot be a tail class's, stay as they are.
        """
        one = self.member(number)
        ids, (log_p, log_tail) = one.ids()[:, 0], (each[:, 0] for each in one.stored(temperature))
        log_probs = one._tail_log_probs(ids, log_tail, temperature)
        if labels is not None and self.encoding.tail != "renormalised":
            one._set_label(log_probs, ids, log_p, log_tail, labels, temperature)
        return log_probs.scatter_(1, ids, log_p)

    def _tail_log_probs(self, ids: Tensor, log_tail: Tensor, temperature: float) -> Tensor:
        """Log-probabilities (N, C) where a class is in the tail of the one member; anything where it is stored."""
        shape, rest = (len(ids), self.classes), self.classes - ids.shape[1]
        if self.encoding.tail not in ("lowrank", "prior") or rest == 0:
            alike = log_tail - math.log(max(rest, 1))
            return alike[:, None].expand(shape).clone()
        z = self.tail_logits(ids, temperature)
        # not log_tail - log-sum-exp: of z in the thousands the sum is known to thousandths, and so would be what p sum to
        return torch.log_softmax(z, dim=-1).add_(log_tail[:, None])

    def tail_logits(self, ids: Tensor, temperature: float, nowhere: float = -torch.inf) -> Tensor:
        """z / T (N, C) float32 of the one member's tail, from prior and basis; a tensor of its own.

        `nowhere` at the stored classes `ids` (N, K) and at those that the prior holds for impossible; where it holds a whole
        tail for impossible, that tail's classes are alike.
        """
        assert self.basis is not None
        wide = self.basis.float()
        if self.encoding.tail == "prior":
            z = (wide[0] / temperature).repeat(self.shape[0], 1)
        else:
            coefficients = self.coefficients()[:, 0]
            with torch.autocast(wide.device.type, enabled=False):  # half precision would blur the logits
                with_prior = torch.cat([torch.ones_like(coefficients[:, :1]), coefficients], dim=1)
                z = aligned_product(with_prior.div_(temperature), wide)
        impossible = wide[0] == IMPOSSIBLE
        if bool(impossible.any()):
            possible = self.classes - impossible.sum() - (~impossible[ids]).sum(dim=1)
            z.masked_fill_(impossible, nowhere).masked_fill_((possible == 0)[:, None], 0.0)
        return z.scatter_(1, ids, nowhere)

    def coefficients(self) -> Tensor:
        """Coefficients (N, M, r) float32 of the basis vectors."""
        scale, parts = self.columns["tail_scale"].float(), []
        if self.encoding.fine:
            parts.append(self.columns["tail_fine"].float() * (scale[..., :1] / FINE))
        if self.encoding.coarse:
            pairs = self.columns["tail_coarse"]
            steps = torch.stack([pairs & 15, pairs >> 4 & 15], dim=-1).flatten(-2)[..., : self.encoding.coarse]
            parts.append(((steps ^ 8).float() - 8) * (scale[..., -1:] / COARSE))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _set_label(
        self, log_probs: Tensor, ids: Tensor, log_p: Tensor, log_tail: Tensor, labels: Tensor, temperature: float
    ) -> None:
        """Put the label's exact probability into the tail's log-probabilities (N, C), see `log_probs`.

        It has at most the tail's mass (which is rounded), and all of it where no other class can have any.
        """
        logit, top = self.columns["label_logit"][:, 0].float(), self.columns["top_logit"][:, 0].float()
        at = labels.clamp_min(0)[:, None]
        # false for NaN, which stands for no label
        known = (labels >= 0) & (logit <= top.amin(dim=-1)) & (ids != at).all(dim=-1)
        others = torch.logsumexp(log_probs.scatter(1, ids, -torch.inf).scatter_(1, at, -torch.inf), dim=-1)
        # the largest log p is -log Z: its logit is 0
        own = torch.minimum(logit / temperature + log_p.amax(dim=-1), log_tail)
        own = torch.where(torch.isneginf(others), log_tail, own)
        left = log_tail + torch.log1p(-(own - log_tail).exp())
        scale = torch.where(known & (others > -torch.inf), left - others, 0.0)
        found = torch.where(known, own, log_probs.gather(1, at)[:, 0])
        log_probs.add_(scale[:, None]).scatter_(1, at, found[:, None])
