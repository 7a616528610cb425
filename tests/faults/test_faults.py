"""The fault campaign in short: every trial a few times, and its negative control. `make faults` runs it in full."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.faults.__main__ import write_between
from tests.faults.apart import apart
from tests.faults.campaign import FIRST, PROMISES, Harm, Outcome, Result, Trial, all_trials, judge, repeated, table
from tests.faults.trials_clock import unmoved_and_believed

TRIALS = {f"{trial.promise} {trial.what}": trial for trial in all_trials()}
each = pytest.mark.parametrize("name", TRIALS)


def seed_of(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 31))


@each
def test_the_promise_holds(name: str, rng: np.random.Generator) -> None:
    shown = TRIALS[name].run(TRIALS[name].quick, seed_of(rng))
    if shown.not_run:
        pytest.skip(shown.not_run)
    assert shown.trials > 0
    assert shown.failures == ()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * trial.slow) for name, trial in TRIALS.items()]
)
def test_without_the_defence_it_does_not(name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One harm seen is enough here; `make faults` counts how many of a control's attacks do harm."""
    monkeypatch.setenv(FIRST, "1")
    shown = TRIALS[name].control(seed_of(rng))
    if shown.not_run:
        pytest.skip(shown.not_run)
    assert shown.failures


def made_up(run: Outcome | Exception, control: Outcome | Exception) -> Result:
    """What the campaign makes of a trial and a control that show this."""

    def show(outcome: Outcome | Exception) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    trial = Trial(1, "kills", 10, 1, lambda count, seed: show(run), lambda seed: show(control), "no flush")
    return judge(trial, scale=1, seed=7)


def test_the_campaign_sees_what_fails() -> None:
    fine, harmed, absent = Outcome(10), Outcome(10, ("seed 3: lost a shard",)), Outcome(0, not_run="no strace")
    assert made_up(fine, harmed).good
    assert made_up(absent, absent).good
    assert not made_up(harmed, harmed).good
    assert not made_up(fine, fine).good
    assert not made_up(Outcome(0), harmed).good
    assert not made_up(ValueError("broken"), harmed).good
    assert not made_up(fine, ValueError("broken")).good
    lines = table([made_up(fine, harmed), made_up(absent, absent), made_up(harmed, fine)]).splitlines()[2:]
    assert lines[0] == "| 1 kill-safe | kills | 10 | 0 | no flush: 1 of 10 fail |"
    assert lines[1] == "| 1 kill-safe | kills | not run | no strace | no flush: not run: no strace |"
    assert "| 10 | 1 | no flush: **holds all the same" in lines[2]


def test_a_control_counts_its_harm_alone() -> None:
    def refused_elsewhere(rng: np.random.Generator) -> None:
        raise AssertionError("another error")

    def harmed(rng: np.random.Generator) -> None:
        raise Harm("a shard was written")

    assert repeated(1, 7, harmed, failing=(Harm,)).failures == ("seed [7, 0]: Harm: a shard was written",)
    with pytest.raises(AssertionError, match="another error"):
        repeated(1, 7, refused_elsewhere, failing=(Harm,))


@pytest.mark.slow
def test_only_moved_clocks_make_a_sweep_by_age_do_harm(rng: np.random.Generator) -> None:
    assert apart(unmoved_and_believed, seed_of(rng)) == Outcome(3)


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    page = tmp_path / "page.md"
    page.write_bytes((root / "docs" / "reliability.md").read_bytes())
    write_between(page, "| a table |")
    write_between(page, "| another |")
    assert page.read_text().count("| another |") == 1
    assert "| a table |" not in page.read_text()


def test_the_page_numbers_the_promises_of_the_campaign() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert {*PROMISES} <= {*numbers}
