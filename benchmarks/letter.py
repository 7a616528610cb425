"""The root mean square error of the probability, of everyone in finished runs of the recipes `letter`.

    python -m benchmarks.letter RUN [RUN ...]

Of two classes it is sqrt(Brier / 2), and results.json has Brier's score. A network alone is a member of the teacher that was
trained on hard labels; the best kind of them by validation is the recipe's. Standard errors are of two independent means.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

NETWORK = "softlabels.models.MLP"


def main(words: Sequence[str] | None = None) -> None:
    """Print a Markdown table, and by how much each kind of student leads the networks alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    print("| run | who | RMSE |")
    print("| --- | --- | ---: |")
    for run in parser.parse_args(words).runs:
        found = errors(run)
        for name, values in found.items():
            print(f"| {run.name} | {name} | {shown(values)} |")
        for name, values in found.items():
            if name.startswith("student") and "networks alone" in found:
                print(f"| {run.name} | {lead(name, values, found['networks alone'])} |")


def errors(run: Path) -> dict[str, list[float]]:
    """Of the ensemble, of its members by kind, and of each kind of student: an RMSE a seed."""
    results = json.loads((run / "results.json").read_text())
    members = yaml.safe_load((run / "config.yaml").read_text())["teacher"]["members"]
    found: dict[str, list[float]] = {}
    for member, scores in zip(members, results["teacher"]["members"].values(), strict=True):
        name = "networks alone" if member["class_path"] == NETWORK else member["class_path"].rpartition(".")[2]
        found.setdefault(name, []).extend(map(rmse, scores))
    found["ensemble"] = [rmse(each) for each in results["teacher"]["ensemble"]]
    for student in results["students"]:
        found[f"student, {student['settings']['loss']}"] = [rmse(each) for each in student["scores"]]
    return found


def rmse(scores: Mapping[str, Any]) -> float:
    """Of the probability of class 1 of two, against 0 and 1."""
    return math.sqrt(scores["brier"] / 2)


def shown(values: Sequence[float]) -> str:
    """Mean, and where there are several, ± the sample standard deviation."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f} ({len(values)})"


def lead(name: str, students: Sequence[float], networks: Sequence[float]) -> str:
    """How far students are ahead of networks alone."""
    ahead = statistics.mean(networks) - statistics.mean(students)
    both = [values for values in (students, networks) if len(values) > 1]
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in both))
    said = f", {ahead / error:.1f} standard errors" if error > 0 else ""
    return f"{name}: ahead of networks alone | {ahead:.4f}{said}"


if __name__ == "__main__":
    main()
