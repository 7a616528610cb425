"""What students of the recipe `clone` earn: the returns of whole episodes, which no score on single states shows.

    python -m benchmarks.clone RUN [RUN ...]

RUN is a run of `train-student --config=clone`. The controller and each student swing the pendulum up from the same 1,000
states; a line a kind of student: the mean return over the states, how much lower it is than the controller's, and the share of
episodes that do not end upright; each with its mean and spread over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
import yaml

from softlabels.models import ModelConfig, build_model
from softlabels.recipes.pendulum import PendulumController, Policy, played, policy, starts
from softlabels.student.trainer import WEIGHTS
from softlabels_stages.schema import typed

STARTS = starts(1000, seed=7)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    best = earned(policy(PendulumController()))
    print("| run | policy | seeds | mean return | lower than the controller's | episodes that fail |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    print(line("", "controller", [best], best[0]))
    for run in runs:
        for kind in ("hard", "distilled"):
            found = [earned(policy(build_model(each))) for each in students(run, kind)]
            if found:
                print(line(str(run), kind, found, best[0]))


def students(run: Path, kind: str) -> list[ModelConfig]:
    """The trained students of a run: hard or distilled."""
    section = yaml.safe_load((run / "config.yaml").read_text())["student"]
    return [
        typed(ModelConfig, section | {"weights": str(weights)}, where="student")
        for weights in sorted(run.glob(f"{kind}*/{WEIGHTS}"))
    ]


def earned(acts: Policy) -> tuple[float, float]:
    """Mean return, and the share of episodes that do not end upright."""
    returns, is_upright = played(acts, STARTS)
    return float(returns.mean()), float(1 - is_upright.mean())


def line(run: str, kind: str, found: list[tuple[float, float]], best: float) -> str:
    """A row of the table; returns are below 0."""
    returns, failed = ([each[at] for each in found] for at in (0, 1))
    lower = [each / best - 1 for each in returns]
    cells = [shown(returns, "{:.1f}"), shown(lower, "{:.1%}"), shown(failed, "{:.1%}")]
    return f"| {run} | {kind} | {len(found)} | {' | '.join(cells)} |"


def shown(values: list[float], form: str) -> str:
    """Mean, and where there are several, ± the sample standard deviation."""
    mean = form.format(statistics.mean(values))
    return mean if len(values) < 2 else f"{mean} ± {form.format(statistics.stdev(values))}"


if __name__ == "__main__":
    main()
