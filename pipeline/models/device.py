"""The device that a recipe's word for it means on this machine."""

from __future__ import annotations

import re

import torch

from pipeline.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device that `auto` (cuda where there is one), `cpu`, `cuda` or `cuda:N` means here, else `ConfigError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device is {name!r}", remedy="choose auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name} and torch sees {torch.cuda.device_count()} CUDA devices", remedy="use --device=auto"
        )
    return torch.device(name)
