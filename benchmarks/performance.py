"""The picture and the tables of docs/performance.md, from the numbers that `make bench` leaves in benchmarks/results.

python -m benchmarks.performance
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
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
    """Draw the picture and put the tables into the page. A question that was not asked keeps its table, and then the picture
    stays as it is.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the numbers")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of performance.md, which is changed")
    options = parser.parse_args(argv)
    files = {name: options.results / f"{name}.json" for name in TABLES}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    page = options.docs / "performance.md"
    text = page.read_text()
    for name, answers in found.items():
        text = between(text, name, TABLES[name](answers))
    page.write_text(text)
    if found.keys() == TABLES.keys():
        draw(found, options.docs / "performance.png")


def between(text: str, name: str, lines: list[str]) -> str:
    """A page with these lines in the place of those between the marks of a table."""
    begin, end = f"<!-- table of {name} -->\n", f"<!-- end of {name} -->\n"
    head, _, rest = text.partition(begin)
    return head + begin + "\n".join(["", *lines, "", end]) + rest.partition(end)[2]


def reading(loader: dict[str, Any]) -> list[str]:
    """Every reader's rates, the fastest with dense labels first."""
    dense = {(name, way): found for name, ways in loader["dense"].items() for way, found in ways.items()}
    kinds, rows = [kind for kind in KINDS if kind in loader], []
    for name, way in sorted(dense, key=lambda reader: -best(dense[reader])):
        found = [loader[kind].get(name, {}).get(way) for kind in kinds]
        mixed = [dense[name, way]["shuffle"], f"{dense[name, way]['mixed']:.0f}"]
        rows.append([name, way, *mixed, *("" if each is None else f"{best(each):,.0f}" for each in found)])
    return table(
        ("peer", "reader", "rows are shuffled among", "blocks in a batch", *map(KINDS.__getitem__, kinds)),
        rows,
        words=3,
    )


def resuming(found: dict[str, Any]) -> list[str]:
    """As its own page has it, without the shuffles."""
    rows = [[name, way, *resume.show(each)[1:]] for name, answer in found.items() for way, each in answer.items()]
    return table((*resume.HEAD[:2], *resume.HEAD[3:]), rows, words=2)


def writing(found: dict[str, Any]) -> list[str]:
    """The fastest first."""
    speeds = sorted(found.items(), key=lambda item: item[1]["cpu_s"] / item[1]["bytes"])
    return table(write_path.HEAD, [[name, *write_path.show(each)] for name, each in speeds])


def teaching(found: list[dict[str, Any]]) -> list[str]:
    """As its own page has it."""
    return table(offline_online.HEAD, [offline_online.show(each) for each in found])


TABLES: dict[str, Callable[[Any], list[str]]] = {
    "loader": reading,
    "resume": resuming,
    "write_path": writing,
    "offline_online": teaching,
}


def draw(found: dict[str, Any], picture: Path) -> None:
    """Three panels: reading, writing, the teacher in the loop."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    dense = found["loader"]["dense"]
    read = {f"{name}: {way}": best(each) for name, ways in dense.items() for way, each in ways.items()}
    bars(left, read, "Dense labels read, thousands of rows a CPU-second")
    rates = {name: each["bytes"] / each["cpu_s"] / 1e6 for name, each in found["write_path"].items()}
    bars(middle, rates, "Dense labels written, MB a CPU-second")
    lines(right, found["offline_online"])
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
