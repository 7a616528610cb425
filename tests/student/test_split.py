"""The cuts depend on content keys and seed only, hit their counts, and never part identical inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from softlabels.errors import ConfigError
from softlabels.student.split import chosen_rows, labelled_rows, validation_rows

Cut = Callable[[np.ndarray, float, int], np.ndarray]


def keys(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 256, (rows, 16), dtype=np.uint8)


@pytest.mark.parametrize("cut", [validation_rows, labelled_rows])
@pytest.mark.parametrize(("rows", "fraction"), [(1000, 0.1), (997, 0.25), (41, 0.5), (5000, 0.001), (7, 0.3)])
def test_counts_are_exact_to_rounding(rng: np.random.Generator, cut: Cut, rows: int, fraction: float) -> None:
    mask = cut(keys(rng, rows), fraction, 3)
    assert mask.dtype == bool
    assert mask.shape == (rows,)
    assert mask.sum() == round(fraction * rows)


@pytest.mark.parametrize("cut", [validation_rows, labelled_rows])
def test_the_order_of_rows_plays_no_part_and_the_seed_does(rng: np.random.Generator, cut: Cut) -> None:
    some = keys(rng, 600)
    mask = cut(some, 0.2, 7)
    order = rng.permutation(600)
    np.testing.assert_array_equal(cut(some[order], 0.2, 7), mask[order])
    np.testing.assert_array_equal(cut(np.asfortranarray(some), 0.2, 7), mask)
    overlap = (cut(some, 0.2, 8) & mask).sum()
    assert 5 < overlap < 60  # independent choices share 0.2 * 0.2 * 600 = 24 rows


def test_identical_inputs_stay_on_one_side(rng: np.random.Generator) -> None:
    distinct = keys(rng, 300)
    repeats = np.repeat(np.arange(300), rng.integers(1, 5, 300))
    some = distinct[rng.permutation(repeats)]
    for seed in range(20):
        mask = validation_rows(some, 0.3, seed)
        held_out, rest = ({key.tobytes() for key in some[side]} for side in (mask, ~mask))
        assert not held_out & rest
        wanted = round(0.3 * len(some))
        assert wanted - 4 < mask.sum() <= wanted


def test_the_two_cuts_are_independent_of_each_other(rng: np.random.Generator) -> None:
    some = keys(rng, 5000)
    both = (validation_rows(some, 0.2, 0) & labelled_rows(some, 0.2, 0)).sum()
    assert 130 < both < 270  # 200 expected; 1000 if one hash served both


def test_every_part_of_the_key_and_of_the_seed_counts(rng: np.random.Generator) -> None:
    some = np.zeros((256 * 2, 16), np.uint8)
    for byte in range(16):
        some[:] = 0
        some[:256, byte] = np.arange(256)
        some[256:, byte] = np.arange(256)  # each key twice: a hash blind to this byte would have only ties
        assert 250 <= labelled_rows(some, 0.5, 0).sum() <= 256
    assert (labelled_rows(keys(rng, 400), 0.5, 2**40) != labelled_rows(keys(rng, 400), 0.5, 0)).any()


def test_nearly_equal_keys_are_scattered_evenly() -> None:
    """Row numbers as keys (a named id column) must not be cut in a block."""
    some = np.zeros((4000, 16), np.uint8)
    some[:, :4] = np.arange(4000, dtype="<u4").view(np.uint8).reshape(-1, 4)
    held_out = np.flatnonzero(validation_rows(some, 0.1, 0))
    counts = np.bincount(held_out // 1000, minlength=4)
    assert counts.min() > 60


def test_edges(rng: np.random.Generator) -> None:
    some = keys(rng, 50)
    assert not validation_rows(some, 0.0, 0).any()
    assert not labelled_rows(some, 0.0, 0).any()
    assert labelled_rows(some, 1.0, 0).all()
    assert labelled_rows(some[:0], 0.5, 0).shape == (0,)
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="validation must be"):
            validation_rows(some, fraction, 0)
    with pytest.raises(ConfigError, match="hard_label_fraction must lie"):
        labelled_rows(some, 1.1, 0)
    with pytest.raises(ConfigError, match=r"validation=0\.001 of 50 rows holds out 0"):
        validation_rows(some, 0.001, 0)
    with pytest.raises(ConfigError, match=r"validation=0\.9 of 1 rows holds out 1"):
        validation_rows(some[:1], 0.9, 0)
    with pytest.raises(ConfigError, match="of 50 rows keeps no label"):
        labelled_rows(some, 0.001, 0)


def test_the_choice_is_the_same_in_every_version() -> None:
    some = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = {
        validation_rows: [0, 5, 9, 11],
        labelled_rows: [1, 4, 7, 12],
        chosen_rows: [1, 9, 10, 14],
    }
    for cut, rows in expected.items():
        assert np.flatnonzero(cut(some, 0.25, 5)).tolist() == rows
