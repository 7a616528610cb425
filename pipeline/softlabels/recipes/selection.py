"""Weights of an ensemble's members, chosen on the stored labels of a split: `python -m softlabels.recipes.selection STORE`.

Greedy selection with replacement (Caruana, Niculescu-Mizil, Crew, Ksikes 2004, Ensemble selection from libraries of models): of
all members the one is added, time after time, that brings the mean distribution nearest to the hard labels, by the Brier score;
how often a member was added, up to the best point on the way, is its weight. Few rows make one choice a matter of chance, so it
is made for several draws of the rows, and the weights are added. The store keeps every member, so none runs again.

R rows, M members, C classes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import SoftLabelsError, UserError
from softlabels.store import Store, open_store

Floats = NDArray[np.float64]


def greedy(probabilities_MRC: Floats, labels: NDArray[np.int64], *, rounds: int = 30) -> NDArray[np.int64]:
    """(M,) how often each member counts.

    Args:
        probabilities_MRC: of each member; every row has a label.
        labels: (R,).
        rounds: members that are added.
    """
    wanted = np.eye(probabilities_MRC.shape[2])[labels]  # (R, C)
    added, total = np.zeros(len(probabilities_MRC), np.int64), np.zeros_like(wanted)
    best, kept = np.inf, added
    for number in range(1, rounds + 1):
        scores = [brier((total + each) / number, wanted) for each in probabilities_MRC]
        choice = int(np.argmin(scores))
        added, total = added + (np.arange(len(added)) == choice), total + probabilities_MRC[choice]
        if scores[choice] < best:
            best, kept = scores[choice], added
    return kept


def bagged(
    probabilities_MRC: Floats, labels: NDArray[np.int64], *, rounds: int = 30, bags: int = 20
) -> NDArray[np.int64]:
    """(M,) the sum of what `greedy` says of so many draws of R rows, with replacement; the first is the rows themselves."""
    draws = [np.arange(len(labels))]
    draws += [np.random.default_rng(bag).integers(0, len(labels), len(labels)) for bag in range(1, bags)]
    found = [greedy(probabilities_MRC[:, rows], labels[rows], rounds=rounds) for rows in draws]
    return np.asarray(np.sum(found, axis=0))


def brier(found: Floats, wanted: Floats) -> float:
    """The mean over the rows of the squared distance of two distributions (R, C)."""
    return float(np.square(found - wanted).sum(axis=1).mean())


def select(store: Store, *, rounds: int = 30, bags: int = 20) -> tuple[NDArray[np.int64], Floats]:
    """The weights (M,) by the labelled rows of a store; the Brier scores of each member alone, of all alike, of the weights.

    Raises:
        UserError: a store of something else than one class a row, of reduced members, or without hard labels.
    """
    if store.spec.encoding.target != "softmax" or store.positions is not None or store.members < 2:
        raise UserError(
            f"{store.path} has no distributions of several members, one a row",
            remedy="name a store that keeps all members",
        )
    labels = np.asarray(store.column("label"))
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise UserError(f"{store.path} has no hard labels", remedy="name the store of a split that has them")
    each = [store.probabilities(rows, temperature=1.0, weights=one) for one in np.eye(store.members)]
    probabilities_MRC, wanted = np.stack(each), np.eye(store.classes)[labels[rows]]
    weights = bagged(probabilities_MRC, labels[rows], rounds=rounds, bags=bags)
    together = [np.average(probabilities_MRC, axis=0, weights=w) for w in (np.ones(len(weights)), weights)]
    return weights, np.array([brier(p, wanted) for p in [*probabilities_MRC, *together]])


def main(words: Sequence[str] | None = None) -> int:
    """Print each member with its weight, and the scores."""
    parser = argparse.ArgumentParser(prog="selection", description="weights of an ensemble's members, by hard labels")
    parser.add_argument("store", type=Path, help="the store of a split, such as stores/mine/validation")
    parser.add_argument("--rounds", type=int, default=30, help="how many members are added, one after another")
    parser.add_argument("--bags", type=int, default=20, help="how many draws of the rows the weights are averaged over")
    given = parser.parse_args(words)
    try:
        store = open_store(given.store)
        weights, scores = select(store, rounds=given.rounds, bags=given.bags)
    except SoftLabelsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    for number, (member, weight) in enumerate(zip(store.spec.teacher.members, weights, strict=True)):
        print(f"member {number} ({member.model}): Brier {scores[number]:.4f}, weight {weight}")
    print(f"equal weights: Brier {scores[-2]:.4f}; with these weights: {scores[-1]:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
