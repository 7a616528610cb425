"""What a pilot says of a whole pass, against definitions and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from softlabels.report.estimates import Interval, Timed, Weighed, best, duration, gain, whole_bytes


def test_a_duration_is_what_is_fixed_and_the_rate_of_the_rows() -> None:
    warm, steady = Timed(100, 9.0), [Timed(100, 2.0), Timed(50, 1.0)]
    found = duration(3.0, [warm, *steady], 10_000)
    assert found.estimate == pytest.approx(203)
    assert found.high / found.low == pytest.approx(2)  # a factor of 2 between the ends, and no more for steady batches
    assert duration(3.0, [warm], 1000).estimate == pytest.approx(93)  # of one batch there is nothing else


def test_uneven_batches_widen_it_by_the_error_of_their_rate() -> None:
    rows, seconds = np.array([100, 100, 60, 100]), np.array([1.0, 5.0, 0.5, 2.0])
    found = duration(0.0, [Timed(1, 1.0), *map(Timed, rows.tolist(), seconds.tolist())], 1000)
    rate = seconds.sum() / rows.sum()
    error = np.std(seconds - rate * rows, ddof=1) / rows.mean() / 2  # residuals sum to 0; of four batches
    assert found.high == pytest.approx(1000 * (rate + 2 * error))
    assert found.low == pytest.approx(max(0.0, min(1000 * rate / 2**0.5, 1000 * (rate - 2 * error))))


def test_bytes_grow_with_the_data_and_what_is_fixed_does_not() -> None:
    fixed, slack, kept = (
        700,
        300,
        0.8,
    )  # bytes of files that do not grow, of the bound beyond them, share after compression

    def bound(data: int) -> Weighed:
        return Weighed(fixed + slack + data, data)

    files = fixed + round(kept * 1000)
    found = whole_bytes(bound(50_000), bound(1000), files=files, stored=round(kept * 1000))
    assert found == fixed + kept * 50_000


def test_a_gain_is_within_its_interval_as_often_as_two_standard_errors_promise(rng: np.random.Generator) -> None:
    hard, distilled = rng.normal(0.5, 0.1, (2, 5_000, 8)) - np.array([0.0, 0.05])[:, None, None]
    found = [gain(one, two) for one, two in zip(hard.tolist(), distilled.tolist(), strict=True)]
    held = np.mean([each.low < 0.05 < each.high for each in found])
    assert held == pytest.approx(0.914, abs=0.015)  # P(|t| < 2) of 7 degrees of freedom
    again = np.mean([a.low < b.estimate < a.high for a, b in itertools.pairwise(found)])
    assert again == pytest.approx(0.800, abs=0.015)  # P(|t| < 2 / sqrt 2): both means vary


def test_an_interval_says_on_which_side_of_0_it_lies() -> None:
    assert Interval(0.1, 0.2, 0.3).is_above
    assert Interval(-0.3, -0.2, -0.1).is_below
    assert not (Interval(-0.1, 0.1, 0.3).is_above)
    assert not (Interval(-0.1, 0.1, 0.3).is_below)


def test_another_setting_is_taken_only_where_it_is_better_beyond_doubt() -> None:
    own = [0.30, 0.31, 0.29, 0.30]
    assert best([own, [0.20, 0.21, 0.20, 0.19]], 0) == 1
    assert best([own, [0.29, 0.32, 0.28, 0.30]], 0) == 0  # better by its mean alone
    assert best([own, [0.40, 0.41, 0.40, 0.39]], 0) == 0
