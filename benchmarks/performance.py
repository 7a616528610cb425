"""The picture and the tables of docs/performance.md, from the numbers that `make bench` leaves in benchmarks/results.

python -m benchmarks.performance
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import offline_online, resume, write_path
from benchmarks.loader import best
from benchmarks.peers.harness import table

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
OURS, THEIRS = "#1f77b4", "#b0b0b0"
KINDS = {
    "dense": "dense",
    "topk": "top-k",
    "inputs": "with inputs",
    "workers": "two workers",
}  # columns of the first table


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the picture and put the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the numbers")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of performance.md, which is changed")
    options = parser.parse_args(argv)
    names = ("loader", "resume", "write_path", "offline_online")
    found = {name: json.loads((options.results / f"{name}.json").read_text()) for name in names}
    page = options.docs / "performance.md"
    text = page.read_text()
    for name, lines in tables(found).items():
        text = between(text, name, lines)
    page.write_text(text)
    draw(found, options.docs / "performance.png")


def between(text: str, name: str, lines: list[str]) -> str:
    """A page with these lines in the place of those between the marks of a table."""
    begin, end = f"<!-- table of {name} -->\n", f"<!-- end of {name} -->\n"
    head, _, rest = text.partition(begin)
    return head + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]


def tables(found: dict[str, Any]) -> dict[str, list[str]]:
    """Those of the page, by name."""
    loader, written = found["loader"], found["write_path"]
    readers = {(name, way) for part in loader.values() for name, each in part.items() for way in each}
    rates = {reader: [best(loader[kind].get(reader[0], {}).get(reader[1])) for kind in KINDS] for reader in readers}
    ordered = sorted(readers, key=lambda reader: -(rates[reader][0] or 0))
    rows = []
    for name, way in ordered:
        dense = loader["dense"][name][way]
        cells = ["" if rate is None else f"{rate:,.0f}" for rate in rates[name, way]]
        rows.append([name, way, dense["shuffle"], f"{dense['mixed']:.0f}", *cells])
    placed = [
        [name, way, *resume.show(each)[1:]] for name, answer in found["resume"].items() for way, each in answer.items()
    ]
    speeds = sorted(written.items(), key=lambda item: item[1]["cpu_s"] / item[1]["bytes"])
    return {
        "loader": table(
            ("peer", "reader", "rows are shuffled among", "blocks in a batch", *KINDS.values()), rows, words=3
        ),
        "resume": table((*resume.HEAD[:2], *resume.HEAD[3:]), placed, words=2),
        "write_path": table(write_path.HEAD, [[name, *write_path.show(each)] for name, each in speeds]),
        "offline_online": table(offline_online.HEAD, [offline_online.show(each) for each in found["offline_online"]]),
    }


def draw(found: dict[str, Any], picture: Path) -> None:
    """Three panels: reading, writing, the teacher in the loop."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (reading, writing, teaching) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    dense = found["loader"]["dense"]
    read = {f"{name}: {way}": best(each) for name, ways in dense.items() for way, each in ways.items()}
    bars(reading, read, "Dense labels read, thousands of rows a CPU-second")
    rates = {name: each["bytes"] / each["cpu_s"] / 1e6 for name, each in found["write_path"].items()}
    bars(writing, rates, "Dense labels written, MB a CPU-second")
    lines(teaching, found["offline_online"])
    figure.savefig(picture, dpi=80)
    plt.close(figure)


def bars(axes: Any, rates: dict[str, Any], title: str) -> None:
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
