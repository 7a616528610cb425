"""MUNGE against the paper's loop, written out in plain Python, and what must hold of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from softlabels.errors import TransferSetError
from softlabels.transfer import munge as module
from softlabels.transfer.munge import munge, nearest

ROWS, REALS, NAMES = 30, 3, 2


@pytest.fixture
def rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Real attributes, the last of which is constant, and nominal ones; two rows are repeats."""
    reals = np.hstack([rng.normal(size=(ROWS, REALS - 1)) * [1, 50], np.full((ROWS, 1), 7.0)])
    codes = rng.integers(0, 3, (ROWS, NAMES))
    reals[[4, 9]], codes[[4, 9]] = reals[2], codes[2]
    return reals, codes


def all_passes(reals: np.ndarray, codes: np.ndarray, **settings: float) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(munge(reals, codes, **({"passes": 3, "probability": 0.4, "spread": 2.0, "seed": 5} | settings)))
    return np.concatenate([one for one, _ in blocks]), np.concatenate([one for _, one in blocks])


def distance(reals: np.ndarray, codes: np.ndarray, one: int, other: int) -> float:
    ranges = reals.max(axis=0) - reals.min(axis=0)
    between = [(a - b) / r for a, b, r in zip(reals[one], reals[other], ranges, strict=True) if r > 0]
    return math.sqrt(math.fsum(d * d for d in between) + int((codes[one] != codes[other]).sum()))


def neighbour(reals: np.ndarray, codes: np.ndarray, row: int) -> int:
    """The first of the nearest rows that differ."""
    found = [(distance(reals, codes, row, other), other) for other in range(len(reals))]
    return min((d, other) for d, other in found if d > 0)[1]


def one_pass(
    reals: np.ndarray, codes: np.ndarray, probability: float, spread: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The paper's inner loops."""
    chosen = rng.random((len(reals), REALS + NAMES)) < probability
    noise = rng.standard_normal((len(reals), REALS, 2))
    new, names = reals.copy(), codes.copy()
    for e in range(len(reals)):
        other = neighbour(reals, codes, e)
        for a in range(REALS):
            if chosen[e, a]:
                own, its = new[e, a], new[other, a]
                deviation = abs(own - its) / spread
                new[e, a], new[other, a] = its + deviation * noise[e, a, 0], own + deviation * noise[e, a, 1]
        for a in range(NAMES):
            if chosen[e, REALS + a]:
                names[e, a], names[other, a] = names[other, a], names[e, a]
    return new, names


def test_passes_are_those_of_the_paper(rows: tuple[np.ndarray, np.ndarray]) -> None:
    reals, codes = all_passes(*rows)
    assert len(reals) == len(codes) == 3 * ROWS
    for number in range(3):
        part = slice(number * ROWS, (number + 1) * ROWS)
        wanted, names = one_pass(*rows, 0.4, 2.0, np.random.default_rng([5, number]))
        np.testing.assert_allclose(reals[part], wanted, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(codes[part], names)
        assert not np.array_equal(wanted, rows[0])
    assert (reals[:, -1] == 7).all()  # what is constant stays


def test_more_passes_only_add_rows_however_they_are_cut(
    rows: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = all_passes(*rows), all_passes(*rows, passes=5)
    monkeypatch.setattr(module, "_BYTES", 1)
    assert len(list(munge(*rows, passes=5, probability=0.4, spread=2.0, seed=5))) == 5
    cut = all_passes(*rows, passes=5)
    for one, other, third in zip(few, many, cut, strict=True):
        np.testing.assert_array_equal(one, other[: len(one)])
        np.testing.assert_array_equal(other, third)
    assert not np.array_equal(all_passes(*rows, seed=6)[0], few[0])


def test_the_first_of_several_neighbours_that_are_as_near() -> None:
    reals = np.array([[0.0], [2], [1], [2], [3], [1]])  # 1 lies between 0 and 2, whose first rows are 0 and 1
    assert nearest(reals, np.empty((6, 0), np.int64)).tolist() == [2, 2, 0, 2, 1, 0]


def test_names_alone_have_neighbours_by_their_number_of_differences() -> None:
    codes = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1], [2, 2, 2]])
    assert nearest(np.empty((4, 0)), codes).tolist() == [2, 2, 0, 0]


def test_the_first_of_very_many_that_are_as_near(rng: np.random.Generator) -> None:
    codes = rng.permutation(np.stack(np.meshgrid(*[range(4)] * 4), -1).reshape(-1, 4))  # twelve differ in one name
    differ = (codes[:, None] != codes).sum(-1)
    assert nearest(np.empty((256, 0)), codes).tolist() == (differ == 1).argmax(1).tolist()


def test_rows_that_are_all_alike_have_no_neighbour() -> None:
    with pytest.raises(TransferSetError, match="5 rows have one and the same input, so none has a neighbour"):
        nearest(np.ones((5, 2)), np.zeros((5, 1), np.int64))
