"""Folds: the fold of a row is a pure function of its key."""

from __future__ import annotations

import numpy as np
import pytest

from softlabels.errors import ConfigError
from softlabels.stream.folds import fold_of, require_folds


def by_hand(key: bytes, folds: int) -> int:
    """The rule of the docstring with Python's own integers."""
    mask = 2**64 - 1

    def mix(x: int) -> int:
        z = (x + 0x9E3779B97F4A7C15) & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    a, b = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    return (mix(b ^ mix(a ^ mix(4))) >> 32) * folds >> 32


@pytest.mark.parametrize("folds", [2, 5, 1 << 16])
def test_the_rule(folds: int, rng: np.random.Generator) -> None:
    keys = rng.integers(0, 256, (300, 16), np.uint8)
    found = fold_of(keys, folds)
    assert found.dtype == np.uint16
    assert found.tolist() == [by_hand(key.tobytes(), folds) for key in keys]
    order = rng.permutation(300)[:200]
    assert (fold_of(keys[order], folds) == found[order]).all()  # whatever rows stand beside it


def test_rows_of_one_key_share_a_fold_and_folds_are_alike_but_for_chance(rng: np.random.Generator) -> None:
    keys = rng.integers(0, 256, (5000, 16), np.uint8)
    counts = np.bincount(fold_of(keys, 5))
    assert np.abs(counts - 1000).max() < 5 * 28.3
    assert (fold_of(keys[[7, 7, 9, 7]], 5)[[0, 1, 3]] == fold_of(keys, 5)[7]).all()


def test_more_folds_than_distinct_keys(rng: np.random.Generator) -> None:
    keys = rng.integers(0, 256, (40, 16), np.uint8)
    require_folds(keys, 2)
    with pytest.raises(
        ConfigError, match=r"teacher.folds=41: of 40 distinct training rows .* fold \d+ has none; give fewer"
    ):
        require_folds(keys, 41)
    with pytest.raises(ConfigError, match=r"teacher.folds=2: of 1 distinct"):
        require_folds(keys[[3, 3, 3]], 2)
