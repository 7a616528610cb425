"""The pictures of docs/gallery.md, drawn from the tables of docs: no number is here, and nothing is run.

    python -m benchmarks.gallery

A picture names its page, the part of it whose first table counts, a column, and the rows that it shows. A cell `84.6 ± 4.6` is
a bar with its spread, `67, 69, 72` a bar at the mean with a point each.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from softlabels.report.figure import figure_in

DOCS = Path(__file__).parents[1] / "docs"
STUDENT, OTHER = "#0072B2", "#b0b0b0"
NUMBER = r"-?\d*\.?\d+"


@dataclass(frozen=True)
class Picture:
    """A picture: `name`.png.

    Attributes:
        page, part: the page below docs, and the heading whose first table is drawn.
        column: the heading of the column.
        rows: how the rows begin that are shown, and what the picture calls them; a star stands before what a store taught.
        title: what the numbers are.
        log: whether the axis is logarithmic.
    """

    name: str
    page: str
    part: str
    column: str
    rows: dict[str, str]
    title: str
    log: bool = False


PICTURES = (
    Picture(
        "mnist",
        "results.md",
        "MNIST: Hinton",
        "ours",
        {
            "a teacher": "teachers",
            "the ensemble": "ensemble",
            "student, hard": "student, hard labels",
            "student, distilled": "*student, T = 20",
        },
        "errors of 10,000",
    ),
    Picture(
        "ag-news",
        "results.md",
        "AG News",
        "errors of 7,600",
        {
            "teachers": "teachers",
            "ensemble": "ensemble",
            "student, hard": "student, hard labels",
            "student, distilled": "*student, distilled",
        },
        "errors of 7,600",
    ),
    Picture(
        "lm",
        "results.md",
        "Language models",
        "minus dense labels",
        {
            "hard labels": "hard labels",
            "128 bytes: k": "*128 bytes",
            "48 bytes: k": "*48 bytes",
            "top 30 scaled": "top 30 scaled, 127 bytes",
            "top 10 scaled": "top 10 scaled, 47 bytes",
        },
        "test loss minus that of dense labels, nats a token",
    ),
    Picture(
        "lm-t2",
        "results.md",
        "Language models",
        "minus dense labels",
        {
            "128 bytes": "*128 bytes",
            "48 bytes": "*48 bytes",
            "top 30 scaled to sum to 1": "top 30 scaled to 1",
            "top 10 scaled to sum to 1": "top 10 scaled to 1",
        },
        "test loss minus that of dense labels, T = 2",
    ),
    Picture(
        "places",
        "../benchmarks/results/far_reading.md",
        "Reading a store",
        "5 ms",
        {
            "on the disk, zarr": "on the disk",
            "on S3, zarr, 20 ms": "*on S3, zarr",
            "on S3, arrow, 20 ms": "*on S3, arrow",
            "s3fs and zarr, 20 ms": "s3fs and zarr",
            "tensorstore, 20 ms": "tensorstore",
            "MosaicML streaming, 20 ms": "MosaicML streaming",
        },
        "ms a batch is waited for, S3 20 ms away",
        log=True,
    ),
    Picture(
        "letter",
        "results.md",
        "Letters",
        "p2",
        {
            "support vectors": "support vectors",
            "boosted": "boosted trees",
            "neighbours": "neighbours",
            "network": "network alone",
            "ensemble": "ensemble",
            "student, `forward_kl`": "*one network, distilled",
        },
        "RMSE, letters p2",
    ),
    Picture(
        "forest",
        "results.md",
        "Wrong labels",
        "the ensemble teaches",
        {
            "the teacher": "teacher",
            "student, hard": "student, hard labels",
            "student, labels in": "labels in-sample",
            "student, labels out": "*labels out of fold",
        },
        "errors of 500, 30% of the labels wrong",
    ),
    Picture(
        "speech",
        "results.md",
        "Spoken digits",
        "errors",
        {
            "teachers": "teachers",
            "ensemble": "ensemble",
            "student, hard labels for a tenth": "student, a tenth of the labels",
            "student, hard labels for all": "student, all labels",
            "student, distilled": "*student, distilled",
        },
        "errors of 1,000",
    ),
    Picture(
        "detect",
        "results.md",
        "Blood cells",
        "mean",
        {
            "teachers": "teachers",
            "ensemble": "ensemble",
            "student, hard": "student, hard labels",
            "student, distilled": "*student, distilled",
        },
        "AP50, more is better",
    ),
    Picture(
        "graph",
        "results.md",
        "A graph",
        "errors",
        {
            "teachers": "graph networks",
            "ensemble": "ensemble",
            "perceptron, hard, ": "words alone, hard labels",
            "perceptron, distilled": "*words alone, distilled",
        },
        "errors of 1,000",
    ),
    Picture(
        "edge",
        "uses/edge.md",
        "Students for small",
        "ms per row, one by one",
        {
            "teacher": "teacher: three networks",
            "student of 2,410": "*student of 2,410 weights",
            "student of 1,126,410": "*student of 1,126,410 weights",
        },
        "ms per row, one by one",
    ),
    Picture(
        "chunker",
        "results.md",
        "A chunker's states",
        "right at the end, test",
        {"chunker": "chunker", "hard": "without the stored states", "distilled": "*with them"},
        "right over a gap of 52 steps, %",
    ),
)


@dataclass(frozen=True)
class Cell:
    """The numbers of a cell: their mean, the spread that it names or 0, and each where it lists them."""

    mean: float
    spread: float
    each: tuple[float, ...]


def main(argv: Sequence[str] | None = None) -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--output", type=Path, default=DOCS / "gallery", help="folder of the pictures")
    output = parser.parse_args(argv).output
    output.mkdir(exist_ok=True)
    for picture in PICTURES:
        bars(cells(picture), picture.title, output / f"{picture.name}.png", log=picture.log)


def cells(picture: Picture) -> dict[str, Cell]:
    """What the picture shows, by what it calls each row."""
    page = (DOCS / picture.page).read_text()
    part = next(part for part in re.split(r"^#+ ", page, flags=re.M) if part.startswith(picture.part))
    lines = re.search(r"(?:^\|.*\n)+", part, re.M)
    assert lines is not None, f"no table in {picture.part}"
    head, _, *rows = ([cell.strip(" *") for cell in line[1:-1].split("|")] for line in lines[0].splitlines())
    column = head.index(picture.column)
    found = {}
    for begin, called in picture.rows.items():
        row = next((row for row in rows if row[0] == begin), None) or next(
            row for row in rows if row[0].startswith(begin)
        )
        found[called] = cell_of(row[column])
    return found


def cell_of(text: str) -> Cell:
    """`84.6 ± 4.6`, `67, 69, 72`, `4,095` or `100%`."""
    mean, _, spread = re.sub(r"(?<=\d),(?=\d{3})", "", text).partition("±")
    numbers = [float(number) for number in re.findall(NUMBER, mean)]
    return Cell(statistics.fmean(numbers), float(re.findall(NUMBER, spread)[0]) if spread else 0.0, (*numbers,))


def spread(numbers: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 of a single number."""
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else 0.0


def bars(shown: dict[str, Cell], title: str, path: Path, *, log: bool = False) -> None:
    """Horizontal bars, from top to bottom as in the table; on a logarithmic axis points, since a bar has no beginning there."""
    with figure_in(path, width=4.6, height=0.55 + 0.27 * len(shown)) as figure:
        axes = figure.subplots()
        places = range(len(shown), 0, -1)
        for place, (called, cell) in zip(places, shown.items(), strict=True):
            colour = STUDENT if called.startswith("*") else OTHER
            if log:
                axes.plot(cell.mean, place, "o", color=colour)
            else:
                axes.barh(place, cell.mean, 0.62, color=colour, xerr=cell.spread or None)
            if len(cell.each) > 1:
                axes.plot(cell.each, [place] * len(cell.each), "k.", markersize=4)
        axes.set_yticks(places, [called.strip("*") for called in shown])
        axes.grid(visible=False, axis="y")
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        else:
            axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(title)


if __name__ == "__main__":
    main()
