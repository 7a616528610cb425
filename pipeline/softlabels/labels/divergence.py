"""How far decoded labels are apart, position by position and class by class, in float64: of distributions the KL both ways, in
nats, of values the distance.

n positions, C classes (or numbers of a vector).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.bernoulli import log_sigmoid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Apart(NamedTuple):
    """Of n positions.

    Attributes:
        forward, backward: (n,) KL(one || other) and KL(other || one), infinite where one allows what the other does not; of
            sigmoids the sum over the classes; of values both the root of the mean squared difference.
        agreed: (n,) whether the largest class is the same; of sigmoids all decisions, of values all numbers.
        classes: (n, 2) the largest class of each; of sigmoids and values twice the one that moved most.
        numbers: (n, 2) its probability, or value, in each.
        by_class: (C, 4) samples, agreed, forward and backward, summed over the positions whose largest class in `one` it is;
            of sigmoids those of its own decisions and Bernoullis, of values its squared differences.
    """

    forward: Floats
    backward: Floats
    agreed: NDArray[np.bool_]
    classes: Ints
    numbers: Floats
    by_class: Floats


def softmax_apart(one: Floats, other: Floats) -> Apart:
    """Of log-probabilities (n, C)."""
    forward, backward = _kl(one, other).sum(axis=-1), _kl(other, one).sum(axis=-1)
    top = np.stack([one.argmax(axis=-1), other.argmax(axis=-1)], axis=-1)
    agreed = top[:, 0] == top[:, 1]
    numbers = np.exp(np.stack([one.max(axis=-1), other.max(axis=-1)], axis=-1))
    forward, backward = np.maximum(forward, 0), np.maximum(backward, 0)  # what rounding leaves
    sums = [np.bincount(top[:, 0], each, one.shape[-1]) for each in (np.ones(len(top)), agreed, forward, backward)]
    return Apart(forward, backward, agreed, top, numbers, np.stack(sums, axis=-1))


def sigmoid_apart(one: Floats, other: Floats) -> Apart:
    """Of logits (n, C), +-inf for probabilities of 1 and 0."""
    yes, no = [log_sigmoid(z) for z in (one, other)], [log_sigmoid(-z) for z in (one, other)]
    forward = np.maximum(_kl(yes[0], yes[1]) + _kl(no[0], no[1]), 0)
    backward = np.maximum(_kl(yes[1], yes[0]) + _kl(no[1], no[0]), 0)
    same = (one > 0) == (other > 0)
    by_class = _by_class(same, forward, backward)
    p = np.exp(np.stack(yes, axis=-1))
    return _most(np.maximum(forward, backward), forward.sum(-1), backward.sum(-1), same.all(-1), p, by_class)


def values_apart(one: Floats, other: Floats) -> Apart:
    """Of vectors (n, D)."""
    squares, same = (one - other) ** 2, one == other
    distance = np.sqrt(squares.mean(axis=-1))
    by_class = _by_class(same, squares, squares)
    return _most(squares, distance, distance, same.all(axis=-1), np.stack([one, other], axis=-1), by_class)


def _kl(log_p: Floats, log_q: Floats) -> Floats:
    """p (log p - log q): 0 where p is 0, else infinite where q is."""
    with np.errstate(invalid="ignore"):  # -inf - -inf, and 0 times inf
        terms = np.where(np.isneginf(log_q), np.inf, np.exp(log_p) * (log_p - log_q))
    return np.where(np.isneginf(log_p), 0.0, terms)


def _by_class(same: NDArray[np.bool_], forward: Floats, backward: Floats) -> Floats:
    count = np.full(same.shape[-1], float(len(same)))
    return np.stack([count, same.sum(axis=0), forward.sum(axis=0), backward.sum(axis=0)], axis=-1)


def _most(
    moved: Floats, forward: Floats, backward: Floats, agreed: NDArray[np.bool_], numbers: Floats, by_class: Floats
) -> Apart:
    """With the class that moved most, of `numbers` (n, C, 2)."""
    at = moved.argmax(axis=-1)
    return Apart(forward, backward, agreed, np.stack([at, at], axis=-1), numbers[np.arange(len(at)), at], by_class)
