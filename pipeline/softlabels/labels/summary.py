"""What is asked of labels at many temperatures at once, without a distribution in float64 at each of them: the probabilities of
a few classes, entropies, and the cross entropy to others.

What a member keeps of single classes, its logits and log-probabilities, is in float64. Of its other classes, the tail, either
all are alike (`Alike`), and nothing is looked at class by class; or they have a shape z whose largest is 0 (`Shaped`): a pass
in float32 over its classes gives A(beta) = log sum exp(beta z), and the mean of z or of another's logits under it. A dense
label is all tail. The entropy of several members' mean takes their mean class by class, where they have shapes.

N positions, J temperatures, M members, C classes, K classes that each keeps, k classes that are asked for, S others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.asked import Summary
from softlabels.labels.kept_union import KeptUnion

NUMBERS = 1 << 21  # of a tensor: more does not fit a processor's cache
LOWEST = -1e30  # stands for -inf: 0 times it is 0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Stored = Callable[[float], tuple[Floats, Floats]]  # at T log p (N, M, K) of kept classes, log mass (N, M) of the tail


class Block(ABC):
    """Some positions.

    Attributes:
        ids: (N, M, K) of the kept classes. stored: see `Stored`.
        weights: (M,) that sum to 1.
        others: logits (N, C) float32 of each of the others.
    """

    def __init__(self, ids: Ints, stored: Stored, weights: Floats, others: Sequence[Tensor]) -> None:
        self.ids, self.stored, self.weights, self.others = ids, stored, weights, others

    @abstractmethod
    def put(self, found: Summary, rows: slice, number: int, temperature: float, at: _Places) -> None:
        """Fill in what is said of `rows` at the temperature of that number."""

    def put_norms(self, found: Summary, rows: slice, number: int, temperature: float, mean_z: Sequence[Floats]) -> None:
        """The same of the others, of their mean logits (N,) under the members' mean."""
        for other, z in enumerate(self.others):
            norm = torch.logsumexp(z / temperature, dim=1).double().numpy()
            found.norm[other, number, rows] = norm
            found.cross[other, number, rows] = norm - mean_z[other] / temperature


class _Places:
    """Where classes (n, k) that are asked for stand among the kept ones (n, M, K)."""

    def __init__(self, asked: Ints, kept: Ints) -> None:
        self.asked = asked
        if kept.shape[2]:
            self._at = (kept[:, :, None, :] == asked[:, None, :, None]).argmax(axis=-1)  # (n, M, k)
            is_kept = np.take_along_axis(kept, self._at, axis=2) == asked[:, None]
        else:
            self._at, is_kept = None, np.zeros((len(asked), kept.shape[1], asked.shape[1]), np.bool_)
        self.beyond = ~is_kept & (asked >= 0)[:, None]

    def log_p(self, stored: Floats, of_tail: Floats) -> Floats:
        """(n, M, k) of those of kept classes (n, M, K) and those that they would have in the tail (n, M, k)."""
        if self._at is None:
            return of_tail
        return np.where(self.beyond, of_tail, np.take_along_axis(stored, self._at, axis=2))


def summarised(
    make: Callable[[slice, Sequence[Tensor]], Block], step: int, *, classes: int, weights: Floats,
    temperatures: Sequence[float], ids: Ints, others: Sequence[NDArray[np.floating]],
) -> Summary:  # fmt: skip
    """See `EncodingBase.summary`; `make` gives the block of `step` positions at most, and the others' logits of them."""
    count, asked = ids.shape
    lead, members = (len(temperatures), count), len(weights)
    found = Summary(
        log_p=np.zeros((*lead, members, asked)),
        in_tail=np.zeros((count, members, asked), np.bool_),
        shift=np.zeros((*lead, members, 2)),
        own_entropy=np.zeros((*lead, members)),
        own_top=np.zeros((*lead, members)),
        entropy=np.zeros(lead),
        top=np.zeros(lead),
        cross=np.zeros((len(others), *lead)),
        norm=np.zeros((len(others), *lead)),
        total=np.zeros((lead[0], classes)),
    )
    for start in range(0, count, step):
        rows = slice(start, start + step)
        block = make(rows, [torch.from_numpy(np.asarray(each[rows], np.float32)).clamp(min=LOWEST) for each in others])
        at = _Places(ids[rows], block.ids)
        found.in_tail[rows] = at.beyond & (
            block.ids.shape[2] > 0
        )  # where nothing is kept by itself one curve is enough
        for number, temperature in enumerate(temperatures):
            block.put(found, rows, number, temperature, at)
    return found


class Alike(Block):
    """The tail's classes are alike, or there are none: `rest` of them, which may be 0."""

    def __init__(self, ids: Ints, stored: Stored, weights: Floats, others: Sequence[Tensor], classes: int) -> None:
        super().__init__(ids, stored, weights, others)
        self._classes, self._rest = classes, classes - ids.shape[2]
        self._union = KeptUnion(ids)
        self._of_union = [each.gather(1, torch.from_numpy(self._union.ids)).double().numpy() for each in others]
        self._sums = [each.double().sum(dim=1).numpy() for each in others]

    def put(self, found: Summary, rows: slice, number: int, temperature: float, at: _Places) -> None:
        """See `Block`."""
        stored, tail = self.stored(temperature)
        p, mass = np.exp(stored), np.exp(tail)
        share = tail - np.log(max(self._rest, 1))  # (N, M)
        found.log_p[number, rows] = at.log_p(stored, np.broadcast_to(share[:, :, None], at.beyond.shape))
        found.shift[number, rows] = np.stack([stored.max(axis=2), share], axis=-1)
        found.own_entropy[number, rows] = -_times(p, stored).sum(axis=2) - _times(mass, share)
        found.own_top[number, rows] = p.max(axis=2)
        of_rest = np.exp(share)
        even = of_rest @ self.weights  # (N,), of a class that no member keeps
        more = self._union.sums(self.weights[:, None] * (p - of_rest[:, :, None]))
        mean = np.where(self._union.first, more + even[:, None], 0.0)
        left = self._classes - self._union.first.sum(axis=1)
        found.entropy[number, rows] = _entr(mean).sum(axis=1) + left * _entr(even)
        found.top[number, rows] = mean.max(axis=1)
        found.total[number] += even.sum() + np.bincount(self._union.ids.reshape(-1), more.reshape(-1), self._classes)
        pairs = zip(self._of_union, self._sums, strict=True)
        self.put_norms(found, rows, number, temperature, [(more * z).sum(axis=1) + even * all_z for z, all_z in pairs])


class Shaped(Block):
    """Tails of shapes `z`, (n, C) float32 of each member: the largest is 0, and a class that is kept or impossible LOWEST."""

    def __init__(
        self, ids: Ints, stored: Stored, weights: Floats, others: Sequence[Tensor], z: Sequence[Tensor]
    ) -> None:
        super().__init__(ids, stored, weights, others)
        self._z, self._ids = z, [torch.from_numpy(ids[:, number]) for number in range(len(z))]

    def put(self, found: Summary, rows: slice, number: int, temperature: float, at: _Places) -> None:
        """See `Block`."""
        stored, tail = self.stored(temperature)
        p, mass = np.exp(stored), np.exp(tail)
        mean, mean_z = None, [np.zeros(len(p)) for _ in self.others]
        for member, (weight, z, own) in enumerate(zip(self.weights.tolist(), self._z, self._ids, strict=True)):
            shape = (z / temperature).exp_()
            whole = shape.sum(dim=1)
            of_tail = whole.double().numpy()
            with np.errstate(invalid="ignore"):  # -inf of a tail that is empty
                second = tail[:, member] - np.log(of_tail)
            kept, left = p[:, member], mass[:, member]
            within = second + _dot(shape, z) / of_tail / temperature  # the mean of log p over the tail
            found.own_entropy[number, rows, member] = -_times(kept, stored[:, member]).sum(axis=1) - _times(
                left, within
            )
            top = np.maximum(kept.max(axis=1, initial=0.0), left / of_tail)
            found.own_top[number, rows, member] = top
            found.shift[number, rows, member, 1] = second
            found.shift[number, rows, member, 0] = stored[:, member].max(axis=1) if own.shape[1] else second
            share = torch.from_numpy(weight * left / of_tail).float()
            found.total[number] += (share @ shape).double().numpy()
            found.total[number] += np.bincount(own.reshape(-1), weight * kept.reshape(-1), found.total.shape[1])
            for other, logits in enumerate(self.others):
                of_kept = (kept * logits.gather(1, own).double().numpy()).sum(axis=1)
                mean_z[other] += weight * (of_kept + left * _dot(shape, logits) / of_tail)
            if len(self._z) > 1:
                shape.mul_(share[:, None]).scatter_add_(1, own, torch.from_numpy(weight * kept).float())
                mean = shape if mean is None else mean.add_(shape)
        found.entropy[number, rows] = found.own_entropy[number, rows, 0]
        found.top[number, rows] = found.own_top[number, rows, 0]
        if mean is not None:
            found.top[number, rows] = mean.amax(dim=1).numpy()
            found.entropy[number, rows] = torch.special.entr(mean).sum(dim=1).numpy()
        of_tails = self._at(at.asked) / temperature + found.shift[number, rows, :, 1:]
        found.log_p[number, rows] = at.log_p(stored, of_tails)
        self.put_norms(found, rows, number, temperature, mean_z)

    def _at(self, asked: Ints) -> Floats:
        """z (n, M, k) of classes; anything where they are kept."""
        places = torch.from_numpy(asked.clip(min=0))
        found = np.stack([z.gather(1, places).double().numpy() for z in self._z], axis=1)
        return np.where(found < LOWEST / 2, -np.inf, found)


def _dot(one: Tensor, other: Tensor) -> Floats:
    """The scalar products (N,) of (N, C)."""
    return torch.bmm(one[:, None], other[:, :, None])[:, 0, 0].double().numpy()


def _times(p: Floats, values: Floats) -> Floats:
    """p times values, 0 where p is."""
    with np.errstate(invalid="ignore"):
        return np.where(p > 0, p * values, 0.0)


def _entr(p: Floats) -> Floats:
    """-p log p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, -p * np.log(p), 0.0)
