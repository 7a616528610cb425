"""How many positions a second one thread encodes and decodes.

CPU time of the process, since a machine may be shared. C classes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from benchmarks.any_temperature.frontier import Setting
from softlabels.labels.topk_soft import TopkMembers

ENCODED, DECODED = 32, 4096  # positions a call
_ROUNDS = 3


def table(settings: Iterable[Setting], vocabularies: Iterable[int], *, quick: bool) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| classes | setting | encode, with its fidelity | stored classes and tail mass at a T | all classes at a T |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for classes in vocabularies:
        z = torch.randn(ENCODED, 1, classes, generator=torch.Generator().manual_seed(0)) * 3
        for setting in settings:
            cells = " | ".join(f"{rate:,.0f}" for rate in _rates(z, setting, quick=quick))
            lines.append(f"| {classes:,} | {setting.words()} | {cells} |")
    return lines


def _rates(z: Tensor, setting: Setting, *, quick: bool) -> list[float]:
    """Positions a second: encoded, stored classes, all classes."""
    encoding, classes = setting.encoding, z.shape[-1]
    basis = torch.randn(1 + encoding.rank, classes, generator=torch.Generator().manual_seed(1)).half()
    columns, _ = encoding.encode(z, basis=basis)
    few = TopkMembers.of(columns, encoding=encoding, classes=classes, basis=basis)
    many = few[torch.arange(DECODED) % ENCODED]
    rounds = 1 if quick else _ROUNDS
    return [
        ENCODED / seconds(lambda: encoding.encode(z, basis=basis), rounds),
        DECODED / seconds(lambda: many.stored(2.0), rounds),
        ENCODED / seconds(lambda: few.log_probs(0, 2.0), rounds),
    ]


def seconds(work: Callable[[], object], rounds: int) -> float:
    """CPU seconds a call, the median of the rounds, after one that does not count."""
    work()
    took = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)
