"""What a teacher says of many positions, at the temperatures that a page interpolates between: how sure it is of each, its mass
by class and by pair of classes, and how far its members agree. Of a softmax, or of a sigmoid a class.

N positions, W voices (the ensemble, then the members that are shown), M members, C classes, J temperatures, n pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.decoder import Columns
from softlabels.labels.members import Members
from softlabels.labels.targets import Target
from softlabels.pages.distributions import temperatures
from softlabels.store import Store
from softlabels.stream.columns import SoftColumns

SQUARE = 40  # classes up to which every pair is kept
PAIRS = 60  # of more classes
VOICES = 6  # members that are shown by themselves: there are as many colours
_CANDIDATES = 32  # classes of a position among which pairs are looked for
_BLOCK = 1 << 22  # probabilities of a block
_ASKED = 1 << 22  # numbers of pairs of a block
Blocks = Callable[[], Iterator[Columns]]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What was found, float32 where nothing else is said.

    Attributes:
        temperatures: (J,) float64.
        entropy: (W, N, J), in nats; of a sigmoid the mean of its classes'. top: (W, N, J), the largest probability.
        apart: (J,), the members' mean KL to the ensemble.
        mass: (J, C), the ensemble's mean probability of each class.
        tops: (C,) int64, of how many positions a class is the most probable one at the temperature next to 1; of a sigmoid, of
            how many it is more likely than not.
        pairs: (n, 2) int64, classes i and j.
        joint: (J, n), the mean of p_j over the positions whose most probable class is i; of a sigmoid that of p_i p_j over all.
        alike: (W - 1, W - 1), in how many positions two members have the same most probable class, as a share; of a sigmoid, in
            how many decisions they agree.
    """

    temperatures: NDArray[np.float64]
    entropy: NDArray[np.float32]
    top: NDArray[np.float32]
    apart: NDArray[np.float64]
    mass: NDArray[np.float64]
    tops: Ints
    pairs: Ints
    joint: NDArray[np.float64]
    alike: NDArray[np.float64]

    @property
    def positions(self) -> int:
        """N."""
        return int(self.entropy.shape[1])


@dataclass(frozen=True)
class _Reader:
    """Columns to probabilities of one target."""

    soft: SoftColumns
    kind: Target
    near_1: float
    block: int

    def blocks(self, columns: Columns) -> Iterator[Members]:
        """The members of a few positions at a time."""
        tensors = {name: torch.from_numpy(each) for name, each in self.soft.stackable(columns).items()}
        every = self.soft.encoding.members(tensors, self.soft.classes, self.soft.basis)
        for start in range(0, every.shape[0], self.block):
            yield every[start : start + self.block]

    def each(self, members: Members, temperature: float) -> Tensor:
        """Probabilities (M, n, C) of the members."""
        one = torch.ones(1)
        alone = [members.member(number) for number in range(members.shape[1])]
        if self.kind == "sigmoid":
            return torch.stack([each.averaged_logits(one, temperature, "arithmetic").sigmoid() for each in alone])
        return torch.stack([each.averaged(one, temperature, "arithmetic").exp() for each in alone])

    def ensemble(self, p: Tensor) -> Tensor:
        """(n, C) of those of members (M, n, C)."""
        mean: Tensor = torch.tensordot(self.soft.weights, p, dims=1)
        return mean

    def entropy(self, p: Tensor) -> Tensor:
        """(..., n) of probabilities (..., n, C)."""
        parts: Tensor = torch.special.entr(p)
        return (parts + torch.special.entr(1 - p)).mean(-1) if self.kind == "sigmoid" else parts.sum(-1)


def outcomes(store: Store, blocks: Blocks) -> Outcomes:
    """What the members of a store of one target, and their arithmetic mean, say of positions.

    Args:
        store: of softmax or sigmoid labels.
        blocks: the soft columns (n, M, ...) of positions, block by block; of many classes it is asked twice.
    """
    encoding, classes = store.encoding, store.classes
    block = max(1, _BLOCK // (store.members * classes))
    reader = _Reader(SoftColumns.of(store), encoding.target, encoding.near_1, block)
    nodes = temperatures(encoding, classes)
    is_wide = classes > SQUARE and reader.kind == "softmax"
    pairs = _all_pairs(classes, reader.kind) if classes <= SQUARE else _largest_pairs(reader, blocks, nodes)
    sums = _Sums(reader, nodes, pairs, min(store.members, VOICES) if store.members > 1 else 0)
    for columns in blocks():
        if is_wide:
            for part in _cut(columns, _ASKED // (len(nodes) * store.members * len(pairs))):
                sums.add_summary(part)
            continue
        for members in reader.blocks(columns):
            sums.add(members)
    return sums.found()


def _cut(columns: Columns, step: int) -> Iterator[Columns]:
    for start in range(0, len(next(iter(columns.values()))), max(1, step)):
        yield {name: values[start : start + max(1, step)] for name, values in columns.items()}


def _largest_of(soft: SoftColumns, columns: Columns, member: int) -> Ints:
    """The most probable class (n,) of a member."""
    own = {name: values[:, member : member + 1] for name, values in columns.items()}
    return soft.encoding.largest(own, soft.classes, np.ones(1))


class _Sums:
    """Adds up what `Outcomes` holds."""

    def __init__(self, reader: _Reader, nodes: NDArray[np.float64], pairs: Ints, voices: int) -> None:
        self._reader, self._nodes, self._pairs, self._voices = reader, nodes, pairs, voices
        classes = reader.soft.classes
        self._curves: list[Tensor] = []  # (2, W, n, J)
        self._apart = torch.zeros(len(nodes), dtype=torch.float64)
        self._mass = torch.zeros(len(nodes), classes, dtype=torch.float64)
        self._tops = torch.zeros(classes, dtype=torch.int64)
        self._joint = torch.zeros(len(nodes), len(pairs), dtype=torch.float64)
        self._alike = torch.zeros(voices, voices, dtype=torch.float64)

    def add(self, members: Members) -> None:
        """A block of positions."""
        reader, (first, second) = self._reader, torch.from_numpy(self._pairs).T
        near = reader.each(members, reader.near_1)
        said = _said(reader, near[: self._voices])
        self._alike += (said[:, None] == said).double().flatten(2).mean(-1) * near.shape[1]
        mean = reader.ensemble(near)
        group = None if reader.kind == "sigmoid" else mean.argmax(-1)
        self._tops += (mean > 0.5).sum(0) if group is None else torch.bincount(group, minlength=mean.shape[1])
        curves = torch.empty(2, self._voices + 1, len(mean), len(self._nodes))
        for at, temperature in enumerate(self._nodes.tolist()):
            p = reader.each(members, temperature)
            mean = reader.ensemble(p)
            entropy, own = reader.entropy(mean), reader.entropy(p)
            curves[:, 0, :, at] = torch.stack([entropy, mean.amax(-1)])
            curves[:, 1:, :, at] = torch.stack([own, p.amax(-1)])[:, : self._voices]
            self._apart[at] += (entropy - reader.soft.weights @ own).double().sum()
            self._mass[at] += mean.double().sum(0)
            self._joint[at] += _joint(mean, group, first, second)
        self._curves.append(curves)

    def add_summary(self, columns: Columns) -> None:
        """A block of positions of a softmax of many classes."""
        soft, second, weights = self._reader.soft, self._pairs[:, 1], self._reader.soft.weights.double().numpy()
        count = len(next(iter(columns.values())))
        largest = [_largest_of(soft, columns, number) for number in range(self._voices)]
        said = np.reshape(largest, (self._voices, count))
        self._alike += torch.from_numpy((said[:, None] == said).sum(axis=-1))
        group = soft.encoding.largest(columns, soft.classes, weights)
        self._tops += torch.bincount(torch.from_numpy(group), minlength=soft.classes)
        found = soft.encoding.summary(
            columns, soft.classes, None if soft.basis is None else soft.basis.numpy(),
            weights=weights, temperatures=self._nodes.tolist(), ids=np.broadcast_to(second, (count, len(second))),
        )  # fmt: skip
        p = np.einsum("m,jnmk->jnk", weights, np.exp(found.log_p))
        here = group[:, None] == self._pairs[:, 0]
        self._mass += torch.from_numpy(found.total)
        self._joint += torch.from_numpy(np.where(here, p, 0.0).sum(axis=1))
        self._apart += torch.from_numpy((found.entropy - found.own_entropy @ weights).sum(axis=1))
        mean = np.stack([found.entropy, found.top])[:, None]  # (2, 1, J, n)
        own = np.stack([found.own_entropy, found.own_top])[..., : self._voices].transpose(0, 3, 1, 2)
        curves = np.concatenate([mean, own], axis=1).transpose(0, 1, 3, 2)
        self._curves.append(torch.from_numpy(curves.astype(np.float32)))

    def found(self) -> Outcomes:
        """All of it as means."""
        empty = torch.zeros(2, self._voices + 1, 0, len(self._nodes))
        curves = torch.cat([empty, *self._curves], dim=2).numpy()
        count, tops = max(1, curves.shape[2]), self._tops.numpy()
        of = count if self._reader.kind == "sigmoid" else np.maximum(tops[self._pairs[:, 0]], 1)
        apart = (self._apart.numpy() / count).clip(min=0)
        scaled = (self._mass.numpy() / count, self._joint.numpy() / of, self._alike.numpy() / count)
        mass, joint, alike = scaled
        return Outcomes(self._nodes, curves[0], curves[1], apart, mass, tops, self._pairs, joint, alike)


def _said(reader: _Reader, p: Tensor) -> Tensor:
    """What each member (M, n, C) decides, (M, n, ...)."""
    return p > 0.5 if reader.kind == "sigmoid" else p.argmax(-1)


def _joint(mean: Tensor, group: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """The sums (n,) over a block of what `Outcomes.joint` is the mean of."""
    if group is None:
        return (
            (mean.T @ mean)[first, second].double() if len(first) > PAIRS else (mean[:, first] * mean[:, second]).sum(0)
        )
    if len(first) > PAIRS:
        square = torch.zeros(mean.shape[1], mean.shape[1]).index_add_(0, group, mean)
        return square[first, second].double()
    return torch.where(group[:, None] == first, mean[:, second], 0.0).double().sum(0)


def _all_pairs(classes: int, kind: Target) -> Ints:
    i, j = np.divmod(np.arange(classes * classes), classes)
    kept = i < j if kind == "sigmoid" else i != j
    return np.stack([i[kept], j[kept]], axis=1).astype(np.int64)


def _largest_pairs(reader: _Reader, blocks: Blocks, nodes: NDArray[np.float64]) -> Ints:
    """Pairs of the most mass at the temperatures next to 1 and to 4, of the few largest classes of each position."""
    classes, chosen = reader.soft.classes, list[Ints]()
    at = {reader.near_1, float(nodes[np.abs(np.log(nodes / 4)).argmin()])}
    for temperature in sorted(at):
        codes: Ints = np.zeros(0, np.int64)
        sums: NDArray[np.float64] = np.zeros(0)
        for columns in blocks():
            for new, mass in _candidates(reader, columns, temperature):
                codes, where = np.unique(np.concatenate([codes, new]), return_inverse=True)
                sums = np.bincount(where, weights=np.concatenate([sums, mass])).astype(np.float64)
        chosen.append(codes[np.argsort(-sums, kind="stable")[: PAIRS // len(at)]])
    codes = np.unique(np.concatenate(chosen))
    return np.stack(np.divmod(codes, classes), axis=1)


def _candidates(reader: _Reader, columns: Columns, temperature: float) -> Iterator[tuple[Ints, NDArray[np.float64]]]:
    """Codes i C + j of pairs in blocks of positions, and the mass of each."""
    soft, classes = reader.soft, reader.soft.classes
    kept = soft.encoding.kept_probabilities(columns, classes, soft.weights.double().numpy(), temperature=temperature)
    if kept is not None:
        order = np.argsort(-kept.p, axis=1)[:, :_CANDIDATES]
        places, largest = np.take_along_axis(kept.ids, order, axis=1), np.take_along_axis(kept.p, order, axis=1)
        has = largest[:, 1:] > 0
        yield (places[:, :1] * classes + places[:, 1:])[has], largest[:, 1:][has].astype(np.float64)
        return
    for members in reader.blocks(columns):
        mean = reader.ensemble(reader.each(members, temperature))
        k = min(classes, _CANDIDATES if reader.kind == "softmax" else 8)
        of_largest, ids = mean.topk(k, dim=-1)
        if reader.kind == "softmax":
            pairs, mass = ids[:, :1] * classes + ids[:, 1:], of_largest[:, 1:]
        else:
            one, other = torch.triu_indices(k, k, 1)
            low, high = torch.minimum(ids[:, one], ids[:, other]), torch.maximum(ids[:, one], ids[:, other])
            pairs, mass = low * classes + high, of_largest[:, one] * of_largest[:, other]
        yield pairs.reshape(-1).numpy(), mass.reshape(-1).double().numpy()
