"""After how many steps students of the recipe `chunker` answer as the chunker does.

    python -m benchmarks.chunker RUN [RUN ...]

RUN is a run of `train-student --config=chunker`. A line a kind of student: of each seed the steps until it was right on
validation rows 0.95 times as often as the chunker is on test rows, > N where N steps were not enough; the mean and spread of
these; and how often it is right at the end, on test rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHARE = 0.95


def main(words: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    print("| run | student | steps, seed by seed | mean | right at the end |")
    print("| --- | --- | --- | ---: | ---: |")
    for run in parser.parse_args(words).runs:
        results = json.loads((run / "results.json").read_text())
        [teacher] = results["teacher"]["ensemble"]
        print(f"| {run} | chunker | | | {_right(teacher):.1%} |")
        for student in results["students"]:
            logs = sorted(run.glob(f"{student['kind']}-seed*/metrics.jsonl"))
            steps = [steps_until(log, SHARE * _right(teacher)) for log in logs]
            cells = [", ".join(map(_shown, steps)), _mean(steps), _spread([*map(_right, student["scores"])])]
            print(f"| {run} | {student['label']} | {' | '.join(cells)} |")


def steps_until(log: Path, accuracy: float) -> int:
    """The step of the first epoch in a metrics.jsonl whose answers are so good; -N where none of the N steps are."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    epochs = [line for line in lines if "epoch" in line]
    reached = (int(line["step"]) for line in epochs if _right(line) >= accuracy)
    return next(reached, -int(epochs[-1]["step"]))


def _right(scores: dict[str, Any]) -> float:
    """The share of right answers, of scores of the recipe's targets."""
    return float(scores["targets"]["answer"]["accuracy"])


def _shown(steps: int) -> str:
    return f"{steps:,}" if steps > 0 else f"> {-steps:,}"


def _mean(steps: Sequence[int]) -> str:
    if min(steps) < 0:
        return f"> {statistics.mean(map(abs, steps)):,.0f}"
    return f"{statistics.mean(steps):,.0f}" + (f" ± {statistics.stdev(steps):,.0f}" if len(steps) > 1 else "")


def _spread(shares: Sequence[float]) -> str:
    mean = f"{statistics.mean(shares):.1%}"
    return mean if len(shares) < 2 else f"{mean} ± {statistics.stdev(shares):.1%}"


if __name__ == "__main__":
    main()
