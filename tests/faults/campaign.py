"""The fault campaign: what a trial is, how all of them are run, and the table that comes of it.

A trial keeps one promise of docs/reliability.md under attack, many times, and has a negative control: the same attack with
the defence taken away, which must be seen to do harm, or the trial could not have seen any. `trials_<subject>.py` beside
this file hold them; `python -m tests.faults` runs them all, test_faults.py a few of each. Imports no torch.
"""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softlabels.errors import SoftLabelsError

PROMISES = {
    1: "kill-safe",
    2: "power-cut durable",
    3: "disk full",
    4: "I/O errors",
    5: "no silent corruption",
    6: "one committer",
    7: "hostile store",
    8: "the right logits for the right row",
    9: "the same store again",
    10: "the same student again",
    11: "preemption",
    12: "stuck worker",
    13: "clock",
    14: "verify and repair",
    15: "shared work",
    16: "served teachers",
    17: "trained together",
    18: "far away",
}
FIRST = "TESTS_FIRST_FAILURE"  # in the environment: the first failure is enough


@dataclass(frozen=True)
class Outcome:
    """What some trials showed: how many were run, a line for each that went wrong (with what it takes to repeat it), and why
    they cannot run here, where they cannot (`trials` is 0 then).
    """

    trials: int
    failures: tuple[str, ...] = ()
    not_run: str = ""


@dataclass(frozen=True)
class Trial:
    """One attack on one promise.

    Attributes:
        promise: its number.
        what: what is done; a cell of the table.
        count, quick: how many in the whole campaign, and in `make test`.
        run: given how many and a seed, with everything as it is: must show no failures.
        control: given a seed, with the defence taken away: must show failures.
        control_what: the defence that was taken away.
        slow: whether `make test` leaves the control to `make slow` and the campaign.
    """

    promise: int
    what: str
    count: int
    quick: int
    run: Callable[[int, int], Outcome]
    control: Callable[[int], Outcome]
    control_what: str
    slow: bool = False


@dataclass(frozen=True)
class Result:
    """A trial, what it and its negative control showed, and how long both took."""

    trial: Trial
    shown: Outcome
    control: Outcome
    seconds: float

    @property
    def control_works(self) -> bool:
        """Whether the control was seen to fail, or cannot run here."""
        return bool(self.control.failures or self.control.not_run)

    @property
    def good(self) -> bool:
        """Whether the promise was tried and held and the control did not hold, as far as both can run here."""
        tried = bool(self.shown.trials or self.shown.not_run)
        return tried and not self.shown.failures and self.control_works


class NotHere(Exception):
    """Raised inside a trial: this machine or this user cannot run it. Its text says why."""


class Harm(AssertionError):
    """Raised inside a trial: what the defence is there to prevent has happened. Its text says what."""


def repeated(
    count: int,
    seed: int,
    attack: Callable[[np.random.Generator], object],
    *,
    failing: tuple[type[Exception], ...] = (AssertionError, SoftLabelsError),
) -> Outcome:
    """Run `attack` with `count` generators that follow from `seed`. A failed assertion and an error of ours are failures, or
    in a control only what is `failing`; anything else is a mistake in the attack and goes up. Under $TESTS_FIRST_FAILURE
    the first failure is the last trial.
    """
    failures = []
    for number in range(count):
        try:
            attack(np.random.default_rng([seed, number]))
        except NotHere as reason:
            return Outcome(trials=0, not_run=str(reason))
        except failing as error:
            failures.append(f"seed [{seed}, {number}]: {type(error).__name__}: {_line(error)}")
            if os.environ.get(FIRST):
                return Outcome(trials=number + 1, failures=tuple(failures))
    return Outcome(trials=count, failures=tuple(failures))


def all_trials() -> tuple[Trial, ...]:
    """The trials of every subject, by promise."""
    subjects = sorted(path.stem for path in Path(__file__).parent.glob("trials_*.py"))
    found = [trial for subject in subjects for trial in importlib.import_module(f"tests.faults.{subject}").TRIALS]
    return tuple(sorted(found, key=lambda trial: trial.promise))


def judge(trial: Trial, *, scale: float, seed: int) -> Result:
    """Run a trial at `scale` times its count, and its control."""
    began = time.monotonic()
    try:
        shown = trial.run(max(1, round(trial.count * scale)), seed)
    except Exception as error:
        shown = Outcome(trials=0, failures=(f"seed {seed}: {_where(error)}",))
    try:
        control = trial.control(seed)
    except Exception as error:
        print(f"the control of {trial.what} broke: {_where(error)}", flush=True)
        control = Outcome(trials=0)
    return Result(trial, shown, control, time.monotonic() - began)


def table(results: Iterable[Result]) -> str:
    """The results as a table in Markdown, a line for each trial."""
    lines = ["| promise | trial | trials | failures | without the defence |", "| --- | --- | ---: | ---: | --- |"]
    for result in results:
        trial, shown, control = result.trial, result.shown, result.control
        if control.not_run:
            seen = f"not run: {control.not_run}"
        elif control.failures:
            seen = f"{len(control.failures)} of {control.trials} fail"
        else:
            seen = "**holds all the same: the trial is blind**"
        lines.append(
            f"| {trial.promise} {PROMISES[trial.promise]} | {trial.what} "
            + (f"| not run | {shown.not_run} " if shown.not_run else f"| {shown.trials:,} | {len(shown.failures)} ")
            + f"| {trial.control_what}: {seen} |"
        )
    return "\n".join(lines)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]


def _where(error: Exception) -> str:
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {_line(error)} ({Path(at.filename).name}, line {at.lineno})"
