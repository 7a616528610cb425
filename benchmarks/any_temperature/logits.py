"""Logits to measure at: made-up distributions of known shapes, made-up teachers of known spectra, and a dense store's.

n positions, C classes. Logits are z - max z.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softlabels.store import Store, open_store, store_splits
from softlabels.teacher.reencode import DensePilot

VOCABULARIES = (32_000, 50_257, 131_072, 151_936)
TEMPERATURES = (1.0, 1.3, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)
_BLOCK = 256  # positions


@dataclass(frozen=True)
class Teacher:
    """Logits of one teacher.

    Attributes:
        name: in tables.
        pilot: blocks (n, 1, C), from which a basis is found.
        positions: (n, C) float32, others than the pilot's.
    """

    name: str
    pilot: Iterable[Tensor]
    positions: Tensor


def below_peak(z: Tensor) -> Tensor:
    """Z - max z of each position."""
    return z - z.amax(dim=-1, keepdim=True)


def shapes(classes: int, count: int) -> Iterator[tuple[str, str, Tensor]]:
    """Name of the shape, its strength, and (`count`, C) float32: what a softmax over many classes can look like at T = 1.

    A class's logit is Gaussian noise around the shape; classes stand in a random order.
    """
    draw = torch.Generator().manual_seed(classes)
    noise = torch.randn(count, classes, generator=draw)
    order = torch.randperm(classes, generator=draw)
    for deviation in (1.0, 2.0, 4.0):
        yield "Gaussian", f"deviation {deviation:g}", below_peak(noise * deviation)
    ranks = -torch.log(torch.arange(1.0, classes + 1))[order]
    for power in (1.0, 1.5, 2.5):
        yield "Zipf", f"power {power:g}, noise 0.5", below_peak(power * ranks + 0.5 * noise)
    for deviation, height in ((1.0, 10.0), (1.0, 20.0), (3.0, 20.0), (3.0, 30.0)):
        z = noise * deviation
        z[:, order[0]] += height
        yield "one-peaked", f"{height:g} above, deviation {deviation:g}", below_peak(z)
    for deviation in (0.0, 0.01, 0.1):
        yield "flat", f"deviation {deviation:g}", below_peak(noise * deviation)
    for many, height, deviation in (
        (20, 8.0, 1.0),
        (20, 12.0, 1.0),
        (classes // 200, 4.0, 2.0),
        (classes // 200, 8.0, 2.0),
    ):
        z = noise * deviation
        z[:, order[:many]] += height
        few = "20" if many == 20 else "0.5% of the"
        yield "two-peaked", f"{few} classes {height:g} above, deviation {deviation:g}", below_peak(z)


def made_up(classes: int, width: int, power: float, *, pilot: int, count: int) -> Teacher:
    """Hidden states times an output matrix, the variance along direction j of `width` in proportion to j^-`power`, and the
    frequencies of words as prior: a teacher of high rank.
    """
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(classes, width, generator=draw)
    scale = torch.arange(1.0, width + 1) ** (-power / 2)
    scale *= 3.5 / scale.norm()
    prior = -torch.log(torch.arange(1.0, classes + 1) + 10)[torch.randperm(classes, generator=draw)]

    def block(size: int) -> Tensor:
        z = (torch.randn(size, width, generator=draw) * scale) @ matrix.t()
        return below_peak(z.add_(prior))

    sizes = [min(_BLOCK, pilot - start) for start in range(0, pilot, _BLOCK)]
    blocks = [block(size).half()[:, None] for size in sizes]
    return Teacher(f"made up, variance j^-{power:g}", blocks, block(count))


def stored(path: Path, count: int) -> list[Teacher]:
    """`count` positions of each split of the dense store at `path`, and the pilot of its first (train, where there is one)."""
    stores = {split: open_store(part) for split, part in store_splits(path).items()}
    first = "train" if "train" in stores else next(iter(stores))
    pilot = DensePilot(stores[first], torch.device("cpu"))
    ordered = sorted(stores, key=lambda split: split != first)
    return [Teacher(f"real, {split}", pilot, spread(stores[split], count)) for split in ordered]


def spread(store: Store, count: int) -> Tensor:
    """`count` positions (n, C) float32 that count, about 8 a row, evenly spread over rows that are not a pilot's (if any)."""
    every, used = np.arange(store.rows), DensePilot(store, torch.device("cpu")).rows
    rows = every if len(used) == len(every) else np.setdiff1d(every, used)
    wanted = -(-count // min(store.positions or 1, 8))
    found = [
        positions(store, row)
        for row in rows[np.linspace(0, len(rows) - 1, min(len(rows), wanted)).astype(int)].tolist()
    ]
    thinned = torch.cat([row[:: max(1, len(row) // 8)] for row in found])
    return thinned[np.linspace(0, len(thinned) - 1, min(count, len(thinned))).astype(int)].float()


def positions(store: Store, row: int) -> Tensor:
    """The positions of a row that count, (n, C) float16, of the first member."""
    chunk, inside = divmod(row, store.rows_per_chunk)
    logits = np.array(store.read_chunk("logits", chunk)[inside])
    if store.positions is None:
        return torch.from_numpy(logits[:1])
    return torch.from_numpy(logits[store.read_chunk("position_mask", chunk)[inside] == 1, 0])


def entropy(z: Tensor) -> float:
    """Mean entropy in nats at T = 1."""
    log_p = torch.log_softmax(z.double(), dim=-1)
    return -(log_p.exp() * log_p.clamp_min(-1e4)).sum(dim=-1).mean().item()


def variance_left(teacher: Teacher, basis: np.ndarray, ranks: Sequence[int]) -> list[float]:
    """Share of the positions' variance around the prior that the first r vectors of a basis (1 + R, C) leave."""
    wide = torch.from_numpy(basis).double()
    left = teacher.positions.double() - wide[0]
    left -= left.mean(dim=-1, keepdim=True)
    directions = torch.linalg.qr(wide[1:].t()).Q
    caught = ((left @ directions) ** 2).sum(dim=0).cumsum(0) / (left**2).sum()
    return [1 - caught[r - 1].item() if r <= len(caught) else math.nan for r in ranks]
