"""The device that a recipe's word for it means on this machine."""

from __future__ import annotations

import torch

from pipeline.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device that `auto` (cuda where there is one), `cpu`, `cuda` or `cuda:N` means here, else `ConfigError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}", remedy="choose auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name} and torch sees {torch.cuda.device_count()} CUDA devices", remedy="use --device=auto"
        )
    return device
