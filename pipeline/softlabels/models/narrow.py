"""A model whose layers are narrower than its class makes them: what is left of a network when hidden units were removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models.build import build_model
from softlabels.models.config import ModelConfig

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Sizes = Mapping[str, Sequence[int]]


def narrowed(model: str, model_args: Mapping[str, Any], sizes: Sizes) -> nn.Module:
    """The model with layers of these sizes, drawn anew.

    Args:
        model: its class, by its dotted path.
        model_args: what the class is built with.
        sizes: of linear layers and convolutions by the names of the modules, [inputs, outputs]; of batch norms [units].

    Raises:
        ConfigError: a module that is not there, or has no such size.
    """
    built = build_model(ModelConfig(model, dict(model_args)))
    modules = dict(built.named_modules())
    for name, size in sizes.items():
        if name not in modules or not _resized(modules[name], list(size)):
            raise ConfigError(
                f"{model} has no module {name!r} of size {list(size)}",
                remedy="name linear layers and convolutions with [inputs, outputs], batch norms with [units]",
            )
    return built


def _resized(module: nn.Module, size: list[int]) -> bool:
    """Whether the module has the size now, its weights drawn anew."""
    if any(not isinstance(number, int) or number < 1 for number in size):
        return False
    if isinstance(module, LAYERS) and len(size) == 2:
        names = ("in_features", "out_features") if isinstance(module, nn.Linear) else ("in_channels", "out_channels")
        for name, number in zip(names, size, strict=True):
            setattr(module, name, number)
        inputs, outputs = size
        module.weight = nn.Parameter(module.weight.new_empty(outputs, inputs, *module.weight.shape[2:]))
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias.new_empty(outputs))
    elif isinstance(module, NORMS) and len(size) == 1:
        [module.num_features] = size
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.ndim == 1:
                of_size: Tensor = tensor.new_empty(size)
                setattr(module, name, nn.Parameter(of_size) if isinstance(tensor, nn.Parameter) else of_size)
    else:
        return False
    module.reset_parameters()
    return True
