"""What a plan says to settle first."""

from __future__ import annotations

import pytest

from softlabels.report.estimates import Interval
from softlabels.report.plan import Data, Gain, Plan, Size, Teacher
from softlabels.report.verdict import settle


@pytest.mark.parametrize(("rows", "remedy"), [(300, "it had all rows, so compare"), (30_000, "take more rows")])
def test_a_pilot_that_had_all_rows_is_not_to_take_more(rows: int, remedy: str) -> None:
    short = Interval(0.9, 1.0, 1.1)
    gain = Gain("error rate", 4, 60, 15, 20, 16, 0.2, 0.19, Interval(-0.02, 0.01, 0.04), {"2": 0.19}, "2")
    data = Data({"train": rows, "test": 60}, {}, (), {}, 0.5, 0.5, 2)
    teacher = Teacher("forest", "test", None, {}, folds=True)
    own = Size("dense", "zarr", 1000, None, is_own=True)
    pilot, times = {"train": 300, "test": 60}, (short, short, short)
    plan = Plan("people", data, pilot, 0, *times, (own,), "dense", "", None, "here", teacher, None, gain)
    [said] = settle(plan)
    assert "does not show that students gain" in said
    assert remedy in said
