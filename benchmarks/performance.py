"""The picture of docs/performance.md, from the numbers that `make bench` leaves in benchmarks/results.

python -m benchmarks.performance
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.loader import rate

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "performance.png"
OURS, THEIRS = "#1f77b4", "#b0b0b0"


def main(argv: Sequence[str] | None = None) -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the numbers")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="the file to write")
    options = parser.parse_args(argv)
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (reading, writing, teaching) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    loader, written, taught = (
        json.loads((options.results / f"{name}.json").read_text())
        for name in ("loader", "write_path", "offline_online")
    )
    read = {
        f"{name}: {way}": max(rate(each, "cpu_s") for each in found["epochs"][1:])
        for name, ways in loader["dense"].items()
        for way, found in ways.items()
    }
    bars(reading, read, "Dense labels read, thousands of rows a CPU-second")
    rates = {name: found["bytes"] / found["cpu_s"] / 1e6 for name, found in written.items()}
    bars(writing, rates, "Dense labels written, MB a CPU-second")
    lines(teaching, taught)
    figure.savefig(options.picture, dpi=80)
    plt.close(figure)


def bars(axes: Any, rates: dict[str, float], title: str) -> None:
    """The fastest on top, on a scale of powers of ten."""
    names = sorted(rates, key=rates.__getitem__)
    colours = [OURS if name.startswith("softlabels") else THEIRS for name in names]
    drawn = axes.barh(names, [rates[name] for name in names], color=colours)
    axes.bar_label(drawn, fmt="%.0f", padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(title, fontsize=10)


def lines(axes: Any, found: list[dict[str, Any]]) -> None:
    """How many times as long the teacher in the loop takes, over the number of students."""
    for student in dict.fromkeys(each["student"] for each in found):
        these = [each for each in found if each["student"] == student]
        for way, name, style in (("own", "each on its own", "-"), ("loop", "in one loop", "--")):
            ratios = [each[way] / (each["stage"] + each["trained"]) for each in these]
            axes.plot([each["students"] for each in these], ratios, style, marker="o", label=f"{student}, {name}")
    axes.axhline(1, color="black", linewidth=0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("students")
    axes.legend(fontsize=8)
    axes.set_title("Online, times as long as offline", fontsize=10)


if __name__ == "__main__":
    main()
