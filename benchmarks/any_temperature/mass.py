"""How right the mass of the tail and the stored classes' log-probabilities are, against float64 from the logits themselves.

n positions, C classes, K stored classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from benchmarks.any_temperature.frontier import LARGE, SMALL
from benchmarks.any_temperature.logits import TEMPERATURES, Teacher, shapes
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.topk_soft import TopkMembers

# Mass and stored classes do not depend on the tail's shape. Beside the two that are recommended, more classes.
ENCODINGS = (
    TopkEncoding(k=16, tail="uniform"),
    TopkEncoding(k=LARGE.encoding.k, nodes=LARGE.encoding.nodes, tail="uniform"),
    TopkEncoding(k=SMALL.encoding.k, nodes=SMALL.encoding.nodes, tail="uniform"),
)
NONE = -1.0  # no stored class is there
GRID = tuple(1 / beta for beta in np.linspace(1, 0.05, 39).tolist())  # between the nodes too
BANDS = ("within 8", "8 to 16", "beyond 16")  # below the largest logit


@dataclass
class Errors:
    """The largest absolute errors: of the tail's mass by temperature and on `GRID`, of stored log-probabilities by band."""

    mass: dict[float, float] = field(default_factory=dict)
    grid: float = 0.0
    log_p: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BANDS, NONE))

    def join(self, other: Errors) -> None:
        """The larger of each."""
        for temperature, error in other.mass.items():
            self.mass[temperature] = max(self.mass.get(temperature, 0.0), error)
        self.grid = max(self.grid, other.grid)
        for band, error in other.log_p.items():
            self.log_p[band] = max(self.log_p[band], error)


def errors(z: Tensor, encoding: TopkEncoding) -> Errors:
    """Of (n, C) float32, encoded, and decoded in torch as a student's loss does it."""
    found = Errors()
    for block in torch.split(z, max(1, (1 << 22) // z.shape[1])):
        columns, _ = encoding.encode(block[:, None])
        found.join(_compared(block.double(), TopkMembers.of(columns, encoding=encoding, classes=z.shape[1])))
    return found


def _compared(exact: Tensor, members: TopkMembers) -> Errors:
    """Of a block (n, C) float64."""
    ids, found = members.ids()[:, 0], Errors()
    depth = -exact.gather(1, ids)
    bands = dict(zip(BANDS, (depth <= 8, (depth > 8) & (depth <= 16), depth > 16), strict=True))
    for temperature in (*TEMPERATURES, *GRID):
        p = torch.softmax(exact / temperature, dim=-1)
        log_p, log_tail = members.stored(temperature)
        gap = (log_p[:, 0].double() - p.gather(1, ids).log()).abs()
        mass = p.scatter(1, ids, 0.0).sum(dim=-1)
        error = (log_tail[:, 0].double().exp() - mass).abs().max().item()
        if temperature in TEMPERATURES:
            found.mass[temperature] = error
        found.grid = max(found.grid, error)
        for band, chosen in bands.items():
            found.log_p[band] = max(found.log_p[band], gap[chosen].max().item() if chosen.any() else NONE)
    return found


def table(teachers: Sequence[Teacher], count: int, vocabularies: Sequence[int]) -> list[str]:
    """Lines of Markdown: for each shape the worst over vocabularies, `count` positions each, and strengths."""
    lines = [
        f"| k | nodes | logits | worst at | {' | '.join(f'T = {t:g}' for t in TEMPERATURES)} | any T | "
        + " | ".join(f"log p {band}" for band in BANDS)
        + " |",
        f"| ---: | ---: | --- | --- |{' ---: |' * (len(TEMPERATURES) + 1 + len(BANDS))}",
    ]
    for encoding in ENCODINGS:
        for name, (place, found) in _worst(encoding, teachers, count, vocabularies).items():
            cells = [
                "none" if error == NONE else f"{error:.1e}"
                for error in (*found.mass.values(), found.grid, *found.log_p.values())
            ]
            lines.append(f"| {encoding.k} | {encoding.nodes} | {name} | {place} | {' | '.join(cells)} |")
    return lines


def _worst(
    encoding: TopkEncoding, teachers: Sequence[Teacher], count: int, vocabularies: Sequence[int]
) -> dict[str, tuple[str, Errors]]:
    """Shape or teacher to where the mass is worst, and its errors."""
    places: dict[str, tuple[float, str]] = {}
    joined: dict[str, Errors] = {}
    for classes in vocabularies:
        for shape, strength, z in shapes(classes, count):
            found = errors(z, encoding)
            joined.setdefault(shape, Errors()).join(found)
            here = (found.grid, f"{strength}, C = {classes:,}")
            places[shape] = max(places.get(shape, (-1.0, "")), here)
    for teacher in teachers:
        joined[teacher.name] = errors(teacher.positions, encoding)
        places[teacher.name] = (0.0, f"{len(teacher.positions):,} positions")
    return {name: (places[name][1], found) for name, found in joined.items()}
