"""What top-k labels say at any temperature: the error of the tail's mass and of stored classes, KL by tail shape and bytes a
position against what others keep, how teachers' spectra decay, and how fast labels are made and read.

    python -m benchmarks.any_temperature --store stores/lm-dense --output benchmarks/results/any_temperature.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.any_temperature import mass, plots, speed
from benchmarks.any_temperature.frontier import (
    CLASSES,
    LARGE,
    SMALL,
    TEMPERATURES,
    Point,
    Setting,
    candidates,
    divergences,
    frontier,
)
from benchmarks.any_temperature.logits import VOCABULARIES, Teacher, entropy, made_up, stored, variance_left
from benchmarks.page import machine, publish
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.tail_basis import find_basis

BUDGETS = (32, 48, 64, 96, 128, 192)
WIDTH = 2_048  # of made-up hidden states
RANKS = (8, 16, 32, 64, 96, 128)
MORE_STORED = Setting("lowrank", TopkEncoding(k=16, rank=70, fine=16))

Known = list[tuple[Teacher, NDArray[np.float16]]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.any_temperature", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--store", type=Path, help="a dense store, or a folder of splits: the real logits")
    parser.add_argument(
        "--positions", type=int, default=400, help="of each split, and of each made-up teacher a quarter"
    )
    parser.add_argument("--shapes", type=int, default=8, help="positions of each made-up shape")
    parser.add_argument("--made-up", type=int, default=50_257, help="classes of the made-up teachers; 0: none of them")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--output", type=Path, help="also write the page here, and a plot beside it")
    parser.add_argument("--plot", type=Path, help="write the plot over temperatures here")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    for path in (options.output, options.plot):  # before hours of work, and for the plots
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
    text = page(options)
    publish(text, options.output)


def page(options: argparse.Namespace) -> str:
    """The whole of it."""
    rank = 24 if options.quick else 160
    real = stored(options.store, options.positions) if options.store else []
    known: Known = []
    if real:
        basis = find_basis(real[0].pilot, min(rank, real[0].positions.shape[1] - 1))
        known = [(teacher, basis) for teacher in real]
    shapes = (4, (2_000,)) if options.quick else (options.shapes, VOCABULARIES)
    lines = [*head(real, options), "", "## Tail mass and stored classes", "", mass_words(options), ""]
    lines += mass.table(real, *shapes)
    lines += ["", "## Speed", "", *speed_lines(options)]
    for power in (1.5, 1.0) if options.made_up else ():
        known.append(_made_up(power, options, rank))
    lines += ["", "## Spectra", "", *spectra(known), "", "## Settings", "", *settings(known)]
    first, basis = known[0]
    found = frontier(first, basis, BUDGETS[2:4] if options.quick else BUDGETS)
    lines += ["", "## Frontier", "", f"Logits: {first.name}. {FRONTIER_WORDS}", "", *frontier_lines(found)]
    if options.output:
        picture = options.output.with_suffix(".png")
        plots.bytes_plot(found, picture)
        lines += ["", f"![KL against bytes]({picture.name})"]
    if options.plot:
        plots.temperature_plot(first, _fitting(LARGE, len(basis) - 1), basis, options.plot)
    return "\n".join(lines) + "\n"


FRONTIER_WORDS = (
    f"Mean KL(exact || stored) in nats; bytes as a store of {CLASSES:,} classes takes them, with the label's logit, mask and "
    "document; in a budget the setting with the lowest KL at T = 1 and 2 together. Renormalised labels give most classes "
    "probability 0, so that their KL is infinite."
)


def mass_words(options: argparse.Namespace) -> str:
    """What the first table says."""
    return (
        "Largest absolute errors against float64 from the logits, over all positions: of the tail's mass at each temperature "
        f"and at {len(mass.GRID)} from 1 to 20, and of log p of stored classes over all temperatures, by how far below the "
        "largest logit they stand. The first block is of k = 16, the others of the recommended settings below. Made-up shapes: "
        f"the worst of several strengths and of 32,000, 50,257, 131,072 and 151,936 classes, {options.shapes} positions each."
    )


def _made_up(power: float, options: argparse.Namespace, rank: int) -> tuple[Teacher, NDArray[np.float16]]:
    classes, width, pilot = (1000, 48, 200) if options.quick else (options.made_up, WIDTH, 4096)
    teacher = made_up(classes, width, power, pilot=pilot, count=max(8, options.positions // 4))
    return Teacher(teacher.name, (), teacher.positions), find_basis(teacher.pilot, rank)


def _fitting(setting: Setting, vectors: int) -> Setting:
    """The same, with no more vectors than there are."""
    e = setting.encoding
    rank = min(e.rank, vectors)
    return Setting(setting.shape, TopkEncoding(k=e.k, nodes=e.nodes, rank=rank, fine=min(e.fine, rank)))


def head(real: Sequence[Teacher], options: argparse.Namespace) -> list[str]:
    """What was done, and on what."""
    what = "Real logits: none were given (--store)." if not real else (
        f"Real logits: a dense store of {real[0].positions.shape[1]:,} classes, float16 as stored; "
        + ", ".join(f"{len(each.positions):,} positions of {each.name.removeprefix('real, ')}" for each in real)
        + "; a basis is found in other positions of the first."
    )  # fmt: skip
    if options.made_up and not options.quick:
        what += f" Made-up teachers: hidden states of {WIDTH:,} numbers times an output matrix of {options.made_up:,} classes."
    return [
        "# Top-k labels at any temperature",
        "",
        what,
        "",
        machine("torch", "numpy"),
    ]


def speed_lines(options: argparse.Namespace) -> list[str]:
    """Its section."""
    vocabularies = (1000,) if options.quick else (8_192, 50_257, CLASSES)
    chosen = [_fitting(each, 24) if options.quick else each for each in (SMALL, MORE_STORED, LARGE)]
    words = "Positions a second of CPU time on one thread, float32 logits; decoding at T = 2."
    return [words, "", *speed.table(chosen, vocabularies, quick=options.quick)]


def spectra(known: Known) -> list[str]:
    """Its section."""
    lines = [
        "Share of the logits' variance around the prior that the first vectors of a basis leave, in positions that it was "
        "not found in; and the mean entropy at T = 1.",
        "",
        f"| logits | entropy | {' | '.join(f'{rank}' for rank in RANKS)} |",
        f"| --- | ---: |{' ---: |' * len(RANKS)}",
    ]
    for teacher, basis in known:
        left = " | ".join(f"{share:.4f}" for share in variance_left(teacher, basis, RANKS))
        lines.append(f"| {teacher.name} | {entropy(teacher.positions):.2f} | {left} |")
    return lines


def settings(known: Known) -> list[str]:
    """For the two recommended sizes, KL by k and fine on every teacher."""
    chosen = {}
    for budget, recommended in ((SMALL.bytes(), SMALL), (LARGE.bytes(), LARGE)):
        for each in candidates("lowrank", budget, len(known[-1][1]) - 1):
            if (budget > 64 or not each.encoding.fine) and each.encoding.k <= 16:
                chosen[each] = each == recommended
    lines = [
        f"Lowrank tails that fill {SMALL.bytes()} and {LARGE.bytes()} bytes with {CLASSES:,} classes "
        f"({SMALL.bytes(131_072)} and {LARGE.bytes(131_072)} with 131,072, {SMALL.bytes(50_257)} and {LARGE.bytes(50_257)} "
        "with 50,257): mean KL(exact || stored) at T = 1 / 2; bold: recommended.",
        "",
        f"| bytes | setting | {' | '.join(teacher.name for teacher, _ in known)} |",
        f"| ---: | --- |{' ---: |' * len(known)}",
    ]
    for setting, bold in chosen.items():
        found = [divergences(teacher, _fitting(setting, len(basis) - 1), basis) for teacher, basis in known]
        words = f"**{setting.words()}**" if bold else setting.words()
        lines.append(f"| {setting.bytes()} | {words} | {' | '.join(f'{kl[0]:.4f} / {kl[1]:.4f}' for kl in found)} |")
    return lines


def frontier_lines(found: dict[str, dict[int, Point]]) -> list[str]:
    """A line a budget and shape."""
    lines = [
        f"| bytes | tail | setting | {' | '.join(f'T = {t:g}' for t in TEMPERATURES)} |",
        f"| ---: | --- | --- |{' ---: |' * len(TEMPERATURES)}",
    ]
    for budget in sorted({budget for each in found.values() for budget in each}):
        for shape, points in found.items():
            if budget in points:
                point = points[budget]
                kl = " | ".join("infinite" if not np.isfinite(each) else f"{each:.4f}" for each in point.kl)
                lines.append(f"| {point.setting.bytes()} | {shape} | {point.setting.words()} | {kl} |")
    return lines


if __name__ == "__main__":
    main()
