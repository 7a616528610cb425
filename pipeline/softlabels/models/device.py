"""The device that a recipe's word for it means on this machine, and its arithmetic."""

from __future__ import annotations

import functools
import os
import re

import torch

from softlabels.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """The device that `auto` (cuda where there is one), `cpu`, `cuda` or `cuda:N` means here, else `ConfigError`. In a process
    that torchrun started, `auto` is the GPU of its `$LOCAL_RANK`.
    """
    if name == "auto":
        rank = os.environ.get("LOCAL_RANK", "")
        if rank.isdecimal() and torch.cuda.is_available():
            return torch.device("cuda", int(rank) % torch.cuda.device_count())
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device is {name!r}", remedy="choose auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name}, and torch finds {torch.cuda.device_count()} CUDA devices", remedy="use --device=auto"
        )
    return torch.device(name)


def arithmetic(device: torch.device, precision: str) -> torch.autocast:
    """A context in which a model computes in float32, or in the mixed precision called "bfloat16" or "float16"."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@functools.cache
def warm_up() -> None:
    """Call the vectorised math functions once in this process, in one thread: before the first of several threads.

    Their first call sets them up, and under several threads that is a race after which about one process in a hundred
    computes other last bits (seen with torch 2.13).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.linspace(0.1, 0.9, 4096, dtype=dtype)
        for function in (torch.exp, torch.expm1, torch.log, torch.log1p, torch.sqrt, torch.rsqrt, torch.sin, torch.cos):
            function(x)
        for function in (torch.tanh, torch.sigmoid, torch.erf, torch.erfinv, torch.lgamma):
            function(x)
        torch.pow(x, x)
        torch.log_softmax(x.view(64, 64), dim=-1)
        torch.softmax(x.view(64, 64), dim=-1)
        torch.nn.functional.gelu(x)
    torch.set_num_threads(threads)
