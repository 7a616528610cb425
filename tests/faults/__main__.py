"""Run the fault campaign: `python -m tests.faults [--only WORDS] [--scale 0.1] [--seed N] [--output docs/reliability.md]`.

Says how each trial went as it ends, prints the table, and writes that of a whole campaign into a page between `MARKS`. Exit
code 1 where a promise did not hold, or a negative control did.
"""

from __future__ import annotations

import argparse
import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.faults.campaign import PROMISES, Result, all_trials, judge, table

MARKS = ("<!-- table of python -m tests.faults -->", "<!-- end of the table -->")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Run the fault campaign.")
    parser.add_argument("--only", default="", help="trials whose number, promise or description holds these words")
    parser.add_argument("--scale", type=float, default=1.0, help="how many trials, as a share of each one's count")
    parser.add_argument("--seed", type=int, default=None, help="the seed that a failure named; default: a new one")
    parser.add_argument("--output", type=Path, default=None, help="a page for the table of a whole campaign")
    args = parser.parse_args(argv)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if args.seed is None else args.seed
    chosen = [
        trial for trial in all_trials() if args.only in f"{trial.promise} {PROMISES[trial.promise]}: {trial.what}"
    ]
    print(f"{len(chosen)} trials, --seed={seed}", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as state:
        os.environ["SOFTLABELS_STATE"] = state
        for trial in chosen:
            results.append(judge(trial, scale=args.scale, seed=seed))
            tell(results[-1])
    print(found := summary(results, seed))
    if args.output is not None and not args.only and args.scale >= 1:
        write_between(args.output, found)
    elif args.output is not None:
        print(f"{args.output} is left as it is: this was not the whole campaign")
    return 0 if results and all(result.good for result in results) else 1


def tell(result: Result) -> None:
    """What a trial showed, in a line, and a line for each failure."""
    trial, shown = result.trial, result.shown
    how = f"not run: {shown.not_run}" if shown.not_run else f"{shown.trials} trials, {len(shown.failures)} failures"
    control = "" if result.control_works else "; THE CONTROL HOLDS ALL THE SAME"
    print(
        f"{trial.promise} {PROMISES[trial.promise]}: {trial.what}: {how}{control} ({result.seconds:.0f} s)", flush=True
    )
    for failure in shown.failures:
        print(f"    {failure}", flush=True)


def summary(results: Sequence[Result], seed: int) -> str:
    """The table, and under it what it was made with."""
    ran = sum(result.shown.trials for result in results)
    minutes = sum(result.seconds for result in results) / 60
    machine = f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores"
    return f"{table(results)}\n\n{ran:,} trials in {minutes:.0f} minutes, seed {seed}; {machine}."


def write_between(page: Path, text: str) -> None:
    """Put the text between the page's two marks."""
    before, rest = page.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    page.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    sys.exit(main())
