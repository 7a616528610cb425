"""Milliseconds a row of several models, side by side on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

SIZES = (1, 32)  # rows of a batch: a device that answers one request, and one that answers many
_ROUNDS = 15
_SECONDS = 0.02  # of a model in a round, at least: far above what a clock resolves


Timed = tuple[Callable[[Tensor], object], Tensor]


def milliseconds(models: Mapping[str, Timed], sizes: Sequence[int] = SIZES) -> dict[str, list[float]]:
    """How long each model takes for a row, in batches of each size: the median of rounds in which all take turns.

    ::

        milliseconds({"student": (OnnxModel(data, threads=1), torch.zeros(32, 64))})["student"]    # in batches of 1, of 32

    Args:
        models: by name a function of a batch (B, ...), and its prepared inputs (R, ...), R >= 1, taken again where a batch
            needs more. Torch gets one thread here; whoever builds other runtimes gives them one.
        sizes: B of each batch.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            found = [_of_size(models, size) for size in sizes]
    finally:
        torch.set_num_threads(threads)
    return {name: [each[name] for each in found] for name in models}


def _of_size(models: Mapping[str, Timed], size: int) -> dict[str, float]:
    calls = {name: (model, rows[torch.arange(size) % len(rows)]) for name, (model, rows) in models.items()}
    times = {name: max(1, round(_SECONDS / _seconds(*call, times=3))) for name, call in calls.items()}
    seen: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            seen[name].append(_seconds(*call, times=times[name]))
    return {name: 1000 * median(each) / size for name, each in seen.items()}


def _seconds(model: Callable[[Tensor], object], batch: Tensor, *, times: int) -> float:
    """Of one call, the mean of so many."""
    began = time.perf_counter()
    for _ in range(times):
        model(batch)
    return (time.perf_counter() - began) / times
