"""Students of labels out of fold beside those of labels in-sample, from finished runs of the recipe `forest`.

    python -m benchmarks.forest OUT_OF_FOLD IN_SAMPLE [...]

Of each pair of runs a line a kind of student: errors of the held-out rows over the seeds; and how far labels out of fold are
ahead, paired over them. Hard labels are those of the first run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path


def main(words: Sequence[str] | None = None) -> None:
    """Print a Markdown table and some lines a pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args(words).runs
    hard = errors(runs[0])["hard"]
    for outside, inside in zip(runs[::2], runs[1::2], strict=True):
        compare(errors(outside), errors(inside), hard)


def compare(outside: Mapping[str, list[float]], inside: Mapping[str, list[float]], hard: list[float]) -> None:
    """Print what one pair of runs came to."""
    found = {
        "the teacher": outside["ensemble"],
        "student, hard labels": hard,
        "student, labels in-sample": inside["distilled"],
        "student, labels out of fold": outside["distilled"],
    }
    print("| who | errors |")
    print("| --- | ---: |")
    for name, values in found.items():
        print(f"| {name} | {shown(values)} |")
    print()
    *_, best = found.values()
    for name in ("student, hard labels", "student, labels in-sample"):
        print(lead(name, [other - own for other, own in zip(found[name], best, strict=True)]))
    print()


def errors(run: Path) -> dict[str, list[float]]:
    """Of the ensemble, and of each kind of student a number a seed."""
    results = json.loads((run / "results.json").read_text())
    found = {each["label"]: [scores["errors"] for scores in each["scores"]] for each in results["students"]}
    return found | {"ensemble": [scores["errors"] for scores in results["teacher"]["ensemble"]]}


def shown(values: Sequence[float]) -> str:
    """Mean, and where there are several, ± the sample standard deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def lead(name: str, differences: Sequence[float]) -> str:
    """How many errors more than those of labels out of fold."""
    mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    said = f": {mean / error:.1f} standard errors" if error > 0 else ""
    return f"{name}: {mean:+.1f} errors, standard error {error:.1f} (paired over {len(differences)} seeds){said}"


if __name__ == "__main__":
    main()
