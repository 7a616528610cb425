"""Making a run repeatable: one seed for every generator, their state as plain values, and deterministic arithmetic.

What a checkpoint does with the state is `checkpoint`'s business.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from softlabels.models.device import warm_up


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch on every device. Call it before the model is built, whose weights depend on it."""
    # cuBLAS reads it once, at its start; without it, its sums are not repeatable
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    warm_up()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # a user's model or prepare function may draw from the global one
    torch.manual_seed(seed)


@contextmanager
def deterministic(device: torch.device, threads: int | None) -> Iterator[None]:
    """Deterministic algorithms and `threads` CPU threads inside the block, what was set before after it.

    Torch would also fill each new tensor with NaN, which costs some percent of a step and changes no result of ours.

    On the CPU an operation without a deterministic form is an error; on CUDA, where common ones have none, it is a
    warning.
    """
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    filling: Any = torch.utils.deterministic  # its switch is known to the module's class only
    filled_before, threads_before = filling.fill_uninitialized_memory, torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    filling.fill_uninitialized_memory = False
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        filling.fill_uninitialized_memory = filled_before
        torch.set_num_threads(threads_before)


def rng_state() -> dict[str, Any]:
    """The state of every generator, as tensors and plain values that `torch.load(weights_only=True)` accepts."""
    name, words, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(words).tolist(), int(position), int(has_gauss), float(cached)),
        "torch": torch_rng(),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every generator back to where `rng_state` saw it."""
    random.setstate(state["python"])
    name, words, *rest = state["numpy"]
    np.random.set_state((name, np.array(words, np.uint32), *rest))
    set_torch_rng(state["torch"])


def torch_rng() -> list[Tensor]:
    """The state of torch's generators, the CPU's first: quick enough for every step."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_torch_rng(state: list[Tensor]) -> None:
    """Put torch's generators back; CUDA's only where there are as many devices as then."""
    torch.set_rng_state(state[0])
    if len(state) == 1 + torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state[1:])


def rng_of_rank(state: dict[str, Any], rank: int) -> dict[str, Any]:
    """What one of several processes draws from, where process 0 draws from `state`: other numbers, which follow from both."""
    if rank == 0:
        return state
    seed = _seed_of_rank(state["torch"], rank)
    name, words, position, has_gauss, cached = np.random.RandomState(seed % 2**32).get_state(legacy=True)
    return {
        "python": random.Random(seed).getstate(),  # noqa: S311  # nothing secret
        "numpy": (name, np.asarray(words).tolist(), int(position), int(has_gauss), float(cached)),
        "torch": torch_rng_of_rank(state["torch"], rank),
    }


def torch_rng_of_rank(state: list[Tensor], rank: int) -> list[Tensor]:
    """The same of torch's generators alone."""
    if rank == 0:
        return state
    seed = _seed_of_rank(state, rank)
    devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [torch.Generator(device).manual_seed(seed).get_state() for device in devices]


def _seed_of_rank(state: list[Tensor], rank: int) -> int:
    drawn = blake3(state[0].numpy().tobytes() + rank.to_bytes(4, "little")).digest(length=8)
    return int.from_bytes(drawn, "little") >> 1
