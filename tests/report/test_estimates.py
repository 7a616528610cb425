"""What a pilot says of a whole pass, against definitions and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import norm, t

from softlabels.report.estimates import HOLDS, Interval, Timed, Weighed, best, duration, gain, rarer, whole_bytes


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


def held(found: list[Interval], mean: float) -> tuple[float, float]:
    """How often intervals hold a mean, and how often the estimate of another repetition."""
    again = np.mean([a.low < b.estimate < a.high for a, b in itertools.pairwise(found)])
    return float(np.mean([each.low < mean < each.high for each in found])), float(again)


def test_a_gain_is_that_of_groups_alone_where_blocks_are_alike_and_of_blocks_alone_where_groups_are() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.6])
    error = np.std(values, ddof=1) / 2
    for table in (np.tile(values[:, None], 5), np.tile(values, (5, 1))):
        found = gain(table.tolist(), np.zeros_like(table).tolist())
        assert (found.low, found.estimate, found.high) == pytest.approx((0.3 - 2 * error, 0.3, 0.3 + 2 * error))


def test_how_often_an_interval_holds_is_that_of_a_t() -> None:
    assert {each: round(2 * t(each - 1).cdf(2) - 1, 2) for each in HOLDS} == HOLDS


@pytest.mark.parametrize("groups", [4, 8])
def test_a_gain_is_within_its_interval_as_often_as_is_said(groups: int, rng: np.random.Generator) -> None:
    """At worst, which is where all that varies is the groups: else the blocks count too, and there are more of them."""
    said = HOLDS[groups]
    for blocks in (0.0, 0.1):
        hard = 0.05 + rng.normal(0, 0.1, (2_000, groups, 1)) + rng.normal(0, blocks, (2_000, 1, 8))
        found = [gain(one, np.zeros_like(one)) for one in hard]
        inside, again = held(found, 0.05)
        assert inside > said - 0.025
        assert again > 2 * t(groups - 1).cdf(2**0.5) - 1 - 0.035  # where both means vary
        assert inside < said + 0.05


def test_a_gain_of_error_rates_is_within_its_interval(rng: np.random.Generator) -> None:
    """A population whose gain is known: a row is wrong where student, row and chance add up to more than 0 (a probit model), so
    the error rate of all students and rows is Phi(mean / deviation).
    """
    repetitions, groups, blocks, rows = 1_500, 8, 16, 5
    rate, of_row = {}, rng.normal(0, 1, (repetitions, 1, blocks * rows))  # how hard it is, for both kinds of student
    for kind, mean in {"hard": -1.5, "distilled": -1.8}.items():
        student = rng.normal(mean, 0.4, (repetitions, groups, 1))
        wrong = student + of_row + rng.normal(0, 1, (repetitions, groups, blocks * rows)) > 0
        rate[kind] = wrong.reshape(repetitions, groups, blocks, rows).mean(-1)
    true = float(np.diff(norm.cdf(np.array([-1.8, -1.5]) / np.sqrt(1 + 1 + 0.4**2)))[0])
    found = [gain(one, two) for one, two in zip(rate["hard"], rate["distilled"], strict=True)]
    inside, again = held(found, true)
    assert 0.90 < inside < 0.96
    assert 0.78 < again < 0.88


def test_a_gain_that_no_row_of_a_pilot_shows_is_within_its_interval(rng: np.random.Generator) -> None:
    """Errors so rare that most pilots see none: an interval from 0 to 0 would hold their mean in 4 of 10."""
    groups, blocks, rows, true = 4, 4, 8, 0.002
    wrong = rng.random((1_000, groups, blocks * rows)) < true
    rate = wrong.reshape(-1, groups, blocks, rows).mean(-1)
    found = [gain(one, np.zeros_like(one)) for one in rate]
    alike = [each.is_point for each in found]
    assert np.mean(alike) > 0.6
    assert {(each.low, each.high) for each, same in zip(found, alike, strict=True) if same} == {(0.0, 0.0)}
    assert rarer(found[alike.index(True)], blocks * rows) == Interval(-3 / 32, 0, 3 / 32)
    inside, _ = held([rarer(each, blocks * rows) if each.is_point else each for each in found], true)
    assert inside > HOLDS[groups]


def test_an_interval_says_on_which_side_of_0_it_lies() -> None:
    assert Interval(0.1, 0.2, 0.3).is_above
    assert Interval(-0.3, -0.2, -0.1).is_below
    assert not (Interval(-0.1, 0.1, 0.3).is_above)
    assert not (Interval(-0.1, 0.1, 0.3).is_below)


def test_another_setting_is_taken_only_where_it_is_better_beyond_doubt() -> None:
    own = [[0.30, 0.31], [0.29, 0.30], [0.31, 0.30]]
    better, by_its_mean, worse = (
        [[x - off for x, off in zip(row, offs, strict=True)] for row in own]
        for offs in ((0.1, 0.11), (-0.02, 0.03), (-0.1, -0.1))
    )
    assert best([own, better], 0) == 1
    assert best([own, by_its_mean], 0) == 0
    assert best([own, worse], 0) == 0
