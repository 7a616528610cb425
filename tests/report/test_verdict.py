"""What a plan says to settle first."""

from __future__ import annotations

import pytest

from softlabels.report.estimates import Interval
from softlabels.report.plan import Data, Gain, Plan, Size, Teacher
from softlabels.report.verdict import settle, verdict


def planned(gain: Gain | str, held_out: dict[str, float] | None = None) -> Plan:
    short = Interval(0.9, 1.0, 1.1)
    data = Data({"train": 300, "test": 60}, {}, (), {}, 0.5, 0.5, 2)
    teacher = Teacher("forest", "test", held_out, {}, folds=True)
    own = Size("dense", "zarr", 1000, None, is_own=True)
    pilot, times = {"train": 300, "test": 60}, (short, short, short)
    return Plan("people", data, pilot, 0, *times, (own,), "dense", "", None, "here", teacher, None, gain)


@pytest.mark.parametrize(
    ("advice", "remedy"),
    [("", "no larger one can, so compare"), ("--rows=4000", "give --rows=4000"), ("--seconds=60", "give --seconds=60")],
)
def test_a_pilot_that_cannot_tell_names_what_can(advice: str, remedy: str) -> None:
    [said] = settle(
        planned(
            Gain(
                measure="error rate",
                groups=4,
                rows=60,
                held_out=60,
                epochs=15,
                batch_size=20,
                steps=45,
                hard=0.2,
                distilled=0.19,
                interval=Interval(-0.02, 0.01, 0.04),
                alike=False,
                holds=0.86,
                chance=0.5,
                learnt=True,
                idle=False,
                advice=advice,
                temperatures={"2": 0.19},
                temperature="2",
            )
        )
    )
    assert "does not show that students gain" in said
    assert remedy in said


def test_a_plan_without_students_says_that_their_gain_is_not_known() -> None:
    plan = planned("too slow: give --seconds=3000", {"accuracy": 0.9, "labelled": 60.0})
    assert verdict(plan).endswith(", but what students gain is not known.")
