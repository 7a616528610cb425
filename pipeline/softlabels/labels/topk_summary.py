"""What is asked of a topk label of one member at many temperatures at once, without its distribution at each of them: the
probabilities of a few classes, its entropy, and its cross entropy to others.

Stored classes and the mass of the tail are those of `topk_reference`, in float64. Of a tail of shape z, whose largest is 0, one
pass over its classes gives A(beta) = log sum exp(beta z), and the mean of z or of another's logits under it. z is made once, in
float32.

N positions, J temperatures, C classes, K stored classes, k classes that are asked for, S others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.asked import Summary
from softlabels.labels.base import Columns
from softlabels.labels.topk_fields import TopkFields
from softlabels.labels.topk_reference import stored_log_probs
from softlabels.labels.topk_soft import TopkMembers

_BYTES = 1 << 23  # of a block's tails: more does not fit a processor's cache
_LOWEST = -1e30  # stands for -inf: 0 times it is 0

Floats = NDArray[np.float64]


def topk_summary(
    columns: Columns, encoding: TopkFields, classes: int, basis: NDArray[np.float16] | None, *,
    temperatures: Sequence[float], ids: NDArray[np.int64], others: Sequence[NDArray[np.floating]],
) -> Summary:  # fmt: skip
    """See `EncodingBase.summary`."""
    count = len(ids)
    step = max(1, _BYTES // (4 * classes))
    whole = None if basis is None else torch.from_numpy(np.require(basis, requirements="W")).float()
    parts = [
        _Block(
            {name: values[start : start + step] for name, values in columns.items()}, encoding, classes, whole,
            [torch.from_numpy(np.asarray(each[start : start + step], np.float32)).clamp(min=_LOWEST) for each in others],
        ).summary(temperatures, ids[start : start + step])
        for start in range(0, max(1, count), step)
    ]  # fmt: skip
    return Summary(
        log_p=np.concatenate([part.log_p for part in parts], axis=1),
        in_tail=np.concatenate([part.in_tail for part in parts]),
        shift=np.concatenate([part.shift for part in parts], axis=1),
        top=np.concatenate([part.top for part in parts], axis=1),
        entropy=np.concatenate([part.entropy for part in parts], axis=1),
        cross=np.concatenate([part.cross for part in parts], axis=2),
        norm=np.concatenate([part.norm for part in parts], axis=2),
        total=np.sum([part.total for part in parts], axis=0),
    )


class _Block:
    """A few positions."""

    def __init__(
        self, columns: Columns, encoding: TopkFields, classes: int, basis: Tensor | None, others: Sequence[Tensor]
    ) -> None:
        self._columns, self._encoding, self._classes, self._others = columns, encoding, classes, others
        self._members = TopkMembers.of(columns, encoding=encoding, classes=classes, basis=basis)
        self._ids = self._members.ids()[:, 0]
        self._has_tail = encoding.tail != "renormalised" and encoding.k < classes
        self._alike = encoding.tail not in ("lowrank", "prior")
        self._z: Tensor | None = None
        if self._has_tail and not self._alike:
            z = self._members.tail_logits(self._ids, 1.0, _LOWEST)
            self._z = z.sub_(z.amax(dim=1, keepdim=True))

    def summary(self, temperatures: Sequence[float], ids: NDArray[np.int64]) -> Summary:
        """See `EncodingBase.summary`."""
        own = self._ids.numpy()
        at = (own[:, None, :] == ids[:, :, None]).argmax(axis=-1)  # (N, k)
        in_tail = (np.take_along_axis(own, at, axis=1) != ids) & (ids >= 0)
        log_p, shift, entropy = [], [], []
        total = np.zeros((len(temperatures), self._classes))
        cross, norms = np.zeros((2, len(self._others), len(temperatures), len(ids)))
        for number, temperature in enumerate(temperatures):
            found = stored_log_probs(self._columns, self._encoding, self._classes, temperature)
            stored, tail = found[1][:, 0], found[2][:, 0]
            mass, p = np.exp(tail), np.exp(stored)
            norm, mean, means, total[number] = self._tail(temperature, mass)
            np.add.at(total[number], own, p)
            with np.errstate(invalid="ignore"):  # -inf of a tail that is empty
                second = tail - norm
            of_tail = self._at(ids) / temperature + second[:, None]
            log_p.append(np.where(in_tail, of_tail, np.take_along_axis(stored, at, axis=1)))
            shift.append(np.stack([stored.max(axis=1), second], axis=-1))
            entropy.append(-_times(p, stored).sum(axis=1) - _times(mass, second + mean / temperature))
            for other, z in enumerate(self._others):
                own_norm = torch.logsumexp(z / temperature, dim=1).double().numpy()
                log_q = z.gather(1, self._ids).double().numpy() / temperature - own_norm[:, None]
                norms[other, number] = own_norm
                cross[other, number] = -_times(p, log_q).sum(axis=1)
                cross[other, number] -= _times(mass, means[other] / temperature - own_norm)
        shifts = np.stack(shift)
        return Summary(np.stack(log_p), in_tail, shifts, shifts.max(axis=-1), np.stack(entropy), cross, norms, total)

    def _at(self, ids: NDArray[np.int64]) -> Floats:
        """z (N, k) of classes; anything where they are stored."""
        if self._z is None:
            return np.zeros(ids.shape)
        found = self._z.gather(1, torch.from_numpy(ids.clip(min=0))).double().numpy()
        return np.where(found < _LOWEST / 2, -np.inf, found)

    def _tail(self, temperature: float, mass: Floats) -> tuple[Floats, Floats, list[Floats], Floats]:
        """A (N,), the tail's means of z and of the others' logits, and what tails of `mass` (N,) add up to by class (C,)."""
        rest, nothing = self._classes - self._ids.shape[1], np.zeros(len(self._ids))
        if not self._has_tail:
            return nothing, nothing, [nothing for _ in self._others], np.zeros(self._classes)
        if self._z is None:
            total = np.full(self._classes, mass.sum() / rest)
            np.subtract.at(total, self._ids.numpy(), mass[:, None] / rest)
            return nothing + np.log(rest), nothing, self._means, total
        shape = (self._z / temperature).exp_()
        whole = shape.sum(dim=1)
        summed = (torch.from_numpy(mass).float() / whole) @ shape
        mean, *means = (_dot(shape, each) / whole.double() for each in (self._z, *self._others))
        return whole.double().log().numpy(), mean.numpy(), [each.numpy() for each in means], summed.double().numpy()

    @cached_property
    def _means(self) -> list[Floats]:
        """The others' mean logits (N,) over the tail."""
        rest = self._classes - self._ids.shape[1]
        sums = [each.double().scatter(1, self._ids, 0.0).sum(dim=1) for each in self._others]
        return [np.asarray(each.numpy() / rest) for each in sums]


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """The scalar products (N,) float64 of (N, C)."""
    return torch.bmm(one[:, None], other[:, :, None])[:, 0, 0].double()


def _times(p: Floats, values: Floats) -> Floats:
    """p times values, 0 where p is."""
    with np.errstate(invalid="ignore"):
        return np.where(p > 0, p * values, 0.0)
