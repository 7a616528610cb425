"""The two plots: KL against bytes, and what labels say of other temperatures than 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.any_temperature.frontier import (
    GHOST,
    ONCE,
    Point,
    Setting,
    kept_mass,
    kl,
    others_log_probs,
    stored,
)
from benchmarks.any_temperature.logits import Teacher
from softlabels.labels.encoding import TopkEncoding
from softlabels.report.figure import figure_in, legend_below, line_style

WIDTH = 8.0
DRAWN = (ONCE, GHOST, "uniform", "prior", "lowrank")
_T = tuple(float(t) for t in np.geomspace(1, 20, 25).round(3))


def bytes_plot(found: dict[str, dict[int, Point]], path: Path) -> None:
    """KL at T = 1 and 2 against bytes a position, a line a tail."""
    with figure_in(path, width=WIDTH, height=3.2) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for at, (axes, temperature) in enumerate(zip(panels, (1, 2), strict=True)):
            handles = []
            for number, shape in enumerate(DRAWN):
                points = [(p.setting.bytes(), p.kl[at]) for p in found[shape].values()]
                handles += axes.plot(*zip(*points, strict=True), label=shape, **line_style(number, len(DRAWN)))
            axes.set(xscale="log", yscale="log", xlabel="bytes a position", title=f"T = {temperature}")
            ticks = sorted({p.setting.bytes() for p in found["lowrank"].values()})
            axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
            axes.set_xticks([], minor=True)
        panels[0].set_ylabel("mean KL(exact || stored), nats")
        legend_below(figure, dict(zip(DRAWN, handles, strict=True)))


def temperature_plot(teacher: Teacher, setting: Setting, basis: NDArray[np.float16], path: Path) -> None:
    """What labels of the same bytes say of the tail's mass over T, and their KL."""
    curves = _curves(teacher.positions, setting, torch.from_numpy(basis[: 1 + setting.encoding.rank]))
    names = list(curves)
    with figure_in(path, width=WIDTH, height=3.2) as figure:
        mass, loss = figure.subplots(1, 2)
        handles = []
        for number, (tail, divergence) in enumerate(curves.values()):
            style: dict[str, Any] = line_style(number, len(names)) | {"markevery": 3, "markersize": 4}
            handles += mass.plot(_T, tail, **style)
            if divergence is not None:
                loss.plot(_T, divergence, **style)
        for axes in (mass, loss):
            axes.set(xscale="log", xlabel="T")
            axes.set_xticks([1, 2, 4, 8, 20], ["1", "2", "4", "8", "20"])
            axes.set_xticks([], minor=True)
        k = setting.encoding.k
        mass.set(title=f"mean mass outside of the {k} largest classes")
        loss.set(yscale="log", title="mean KL(exact || stored), nats")
        legend_below(figure, dict(zip(names, handles, strict=True)))


def _curves(z: Tensor, setting: Setting, vectors: Tensor) -> dict[str, tuple[list[float], list[float] | None]]:
    """Name to mean tail mass and mean KL at each temperature, all with the setting's k."""
    k, nodes = setting.encoding.k, setting.encoding.nodes
    ways = {
        ONCE: lambda t: others_log_probs(z.double(), k, t, ghost=False),
        GHOST: lambda t: others_log_probs(z.double(), k, t, ghost=True),
        "uniform": stored(z, Setting("uniform", TopkEncoding(k=k, nodes=nodes, tail="uniform")), vectors),
        "lowrank": stored(z, setting, vectors),
    }
    top = z.topk(k, dim=-1).indices
    curves: dict[str, tuple[list[float], list[float] | None]] = {
        "exact": ([1 - kept_mass(z, k, t).mean().item() for t in _T], None),
        "renormalised": ([0.0] * len(_T), None),
    }
    for name, log_q in ways.items():
        tail, divergence = [], []
        for t in _T:
            found = log_q(t)
            tail.append(1 - found.gather(1, top).exp().sum(dim=-1).mean().item())
            divergence.append(kl(torch.log_softmax(z.double() / t, dim=-1), found).mean().item())
        curves[name] = (tail, divergence)
    return curves
