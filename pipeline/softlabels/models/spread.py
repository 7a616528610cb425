"""Models that fit no single device: their layers lie on several, in memory or on disk, by transformers' `device_map`. Extra
`[hf]`.

The package accelerate hooks their modules: each fetches its tensors and its inputs when it is called, and the network gives its
output where its input was. Tensors that lie elsewhere meanwhile are on torch's device `meta`. Only a teacher can be spread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.objects import require_extra

_HOOK = "_hf_hook"  # accelerate's name for what it hangs on a module


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate moves what its modules need."""
    return any(hasattr(module, _HOOK) for module in model.modules())


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device; one that is spread stays as it is.

    Raises:
        ConfigError: it computes on devices of another kind, in whose arithmetic nobody would put it.
    """
    if not is_spread(model):
        return model.to(device)
    if (kinds := _computing(model)) != {device.type}:
        raise ConfigError(
            f"by its device_map {type(model).__name__} computes on {' and '.join(sorted(kinds))}, and the teacher's device is "
            f"{device}",
            remedy="set teacher.device to that kind, or change device_map",
        )
    return model


def values_of(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """The values of a tensor of the state dict, fetched where they lie elsewhere; on any device."""
    if not tensor.is_meta:
        return tensor
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    with require_extra("accelerate.utils", extra="hf").align_module_device(module, "cpu"):
        fetched: Tensor = getattr(module, own).detach().clone()
    return fetched


def is_elsewhere(model: nn.Module, name: str) -> bool:
    """Whether accelerate fetches the tensor of this name when it is needed."""
    hook: Any = getattr(model.get_submodule(name.rpartition(".")[0]), _HOOK, None)
    return bool(getattr(hook, "offload", False))


def _computing(model: nn.Module) -> set[str]:
    """The kinds of the devices on which its modules compute."""
    hooks = (getattr(module, _HOOK, None) for module in model.modules())
    found = {device for hook in hooks if (device := getattr(hook, "execution_device", None)) is not None}
    return {"cuda" if isinstance(device, int) else torch.device(device).type for device in found}
