"""MUNGE: rows that look like given rows, as many as are wanted (Bucila, Caruana, Niculescu-Mizil 2006, Model compression).

A pass takes the rows as they are, and goes through them. Of a row e and its nearest neighbour e', each attribute is changed
with probability p: two nominal values are swapped, two real ones are drawn anew around each other,

    e_a ~ N(e'_a, sd),   e'_a ~ N(e_a, sd),   sd = |e_a - e'_a| / s,

in place, so that a row may change several times in a pass. All passes begin with the same rows. The distance is Euclidean over
real attributes, each scaled to [0, 1], and Hamming over nominal ones, added under the root. Neighbours are found once, among
the distinct rows. Neighbour: `pseudo` makes attributes of a transfer set's columns, and columns of what comes out.

R rows, A real attributes, N nominal ones, K passes, U distinct rows, P of them, Q candidates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import TransferSetError
from softlabels.objects import require_extra

Reals = NDArray[np.float64]
Codes = NDArray[np.int64]

_BYTES = 1 << 28  # of the passes that are made side by side
_CANDIDATES = 9  # looked at first for a neighbour; one of them is the row itself
_AT_ONCE = 1 << 22  # candidates of several rows


def munge(
    reals: Reals, codes: Codes, *, passes: int, probability: float, spread: float, seed: int
) -> Iterator[tuple[Reals, Codes]]:
    """Rows that look like these, in blocks of whole passes: the first R of a block are a pass, and so on.

    A pass draws its own random numbers from (seed, its number), so more passes only add rows.

    Args:
        reals: (R, A) real attributes, finite.
        codes: (R, N) nominal ones, as integers.
        passes: K >= 1.
        probability: p, 0 < p <= 1.
        spread: s > 0; the larger, the closer to the two values that are exchanged.
        seed: of all draws.

    Raises:
        TransferSetError: fewer than two distinct rows. MissingExtra: scikit-learn is not installed.
    """
    neighbours = nearest(reals, codes)
    each = reals.nbytes * 4 + codes.nbytes * 2 + 1  # a pass with its draws
    step = max(1, min(passes, _BYTES // each))
    for first in range(0, passes, step):
        numbers = range(first, min(first + step, passes))
        yield _passes(reals, codes, neighbours, numbers, probability, spread, seed)


def _passes(
    reals: Reals, codes: Codes, neighbours: Codes, numbers: range, probability: float, spread: float, seed: int
) -> tuple[Reals, Codes]:
    """The passes of these numbers side by side, row after row: (K R, A), (K R, N)."""
    (rows, width), of_names = reals.shape, codes.shape[1]
    count = len(numbers)
    changed_RKD = np.empty((rows, count, width + of_names), bool)
    noise_RKA2 = np.empty((rows, count, width, 2))
    for k, number in enumerate(numbers):
        rng = np.random.default_rng([seed, number])
        changed_RKD[:, k] = rng.random((rows, width + of_names)) < probability
        noise_RKA2[:, k] = rng.standard_normal((rows, width, 2))
    reals_RKA = np.repeat(reals[:, None], count, axis=1)
    codes_RKN = np.repeat(codes[:, None], count, axis=1)
    for row, other in enumerate(neighbours.tolist()):
        own, its = reals_RKA[row], reals_RKA[other]  # (K, A) of e and e'
        deviation, noise = np.abs(own - its) / spread, noise_RKA2[row]
        drawn, drawn_its = its + deviation * noise[..., 0], own + deviation * noise[..., 1]
        is_drawn, is_swapped = changed_RKD[row, :, :width], changed_RKD[row, :, width:]
        reals_RKA[row], reals_RKA[other] = np.where(is_drawn, drawn, own), np.where(is_drawn, drawn_its, its)
        if of_names:
            mine, theirs = codes_RKN[row], codes_RKN[other]
            codes_RKN[row], codes_RKN[other] = np.where(is_swapped, theirs, mine), np.where(is_swapped, mine, theirs)
    return (
        reals_RKA.swapaxes(0, 1).reshape(count * rows, width),
        codes_RKN.swapaxes(0, 1).reshape(count * rows, of_names),
    )


def nearest(reals: Reals, codes: Codes) -> Codes:
    """(R,) the number of each row's nearest neighbour: the first row that holds the values of the nearest other distinct row;
    of several that are as near, the one that comes first.

    Raises:
        TransferSetError: fewer than two distinct rows. MissingExtra: scikit-learn is not installed.
    """
    found = require_extra("sklearn.neighbors", extra="tables")
    low, high = reals.min(axis=0), reals.max(axis=0)
    scaled = (reals - low) / np.where(high > low, high - low, 1)  # what is constant is no distance
    _, first, back = np.unique(np.hstack([scaled, codes]), axis=0, return_index=True, return_inverse=True)
    if len(first) < 2:
        raise TransferSetError(
            f"{len(reals):,} rows have one and the same input, so none has a neighbour",
            remedy="give at least two distinct rows, or a factory that makes pseudo rows",
        )
    attributes = scaled[first], codes[first]
    points_UD = _points(*attributes)
    search = found.NearestNeighbors().fit(points_UD)
    nearest_U, unsure, count = np.empty(len(first), np.int64), np.arange(len(first)), _CANDIDATES
    while unsure.size:
        count = min(count, len(first))
        more = []
        for part in np.array_split(unsure, -(-unsure.size * count // _AT_ONCE)):
            candidates = search.kneighbors(points_UD[part], count, return_distance=False)
            nearest_U[part], is_unsure = _first_of(*attributes, first, part, candidates)
            more.append(part[is_unsure])
        unsure, count = np.concatenate(more) if count < len(first) else unsure[:0], 4 * count
    neighbours: Codes = nearest_U[back.reshape(-1)]
    return neighbours


def _first_of(
    scaled: Reals, codes: Codes, first: Codes, part: Codes, candidates: Codes
) -> tuple[Codes, NDArray[np.bool_]]:
    """The nearest of the candidates (P, Q) for each of the distinct rows `part` (P,), that with the first number in `first`
    (U,); and where all are as near, so that others may be too. The distinct rows are `scaled` (U, A), `codes` (U, N).

    They are measured once more, attribute after attribute: what the search sums, and how it breaks ties, differs between
    machines.
    """
    distances = np.zeros(candidates.shape)
    for real in scaled.T:
        distances += (real[part][:, None] - real[candidates]) ** 2
    for name in codes.T:
        distances += name[part][:, None] != name[candidates]
    own = candidates == part[:, None]
    is_nearest = distances <= np.where(own, np.inf, distances).min(axis=1, keepdims=True)
    rows = np.where(is_nearest & ~own, first[candidates], np.iinfo(np.int64).max)
    return rows.min(axis=1), is_nearest.all(axis=1)


def _points(scaled: Reals, codes: Codes) -> Reals:
    """(U, D) points whose Euclidean distance is the rows': a nominal attribute has an axis a value, and each is 1/sqrt(2)."""
    axes = [(name[:, None] == np.unique(name)) * np.sqrt(0.5) for name in codes.T]
    return np.hstack([scaled, *axes])
