"""A model from its class path. Its weights file is `weights`'s business; training it is not done here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models.config import ModelConfig
from softlabels.models.spread import is_spread
from softlabels.models.weights import load_weights
from softlabels.objects import call_with

# Attributes by which a model whose class loads weights of its own, such as those of `hf`, says what it has loaded.
OWN_FACTS = ("untrained", "class_names")


def build_model(config: ModelConfig) -> nn.Module:
    """Build the model, on the CPU, and load its weights when the config names them.

    Raises:
        ConfigError: the class cannot be found, refuses its arguments, or is no `torch.nn.Module`.
        WeightsError: the weights do not fit.

    Example:
        >>> from softlabels.models import build_model
        >>> mlp = build_model(ModelConfig("softlabels.models.MLP", {"inputs": 6, "hidden": [16], "classes": 5}))
        >>> mlp(torch.zeros(2, 6)).shape
        torch.Size([2, 5])
    """
    return ready(made(config), config)


def made(config: ModelConfig) -> object:
    """What the class path makes of its arguments, whatever it is. Raises `ConfigError`."""
    make = call_with(config)
    try:
        return make()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{config.class_path} refused {config.init_args}: {type(error).__name__}: {error}",
            remedy="correct init_args",
        ) from error


def ready(model: object, config: ModelConfig) -> nn.Module:
    """What was `made`, with the weights that the config names. Raises as `build_model`."""
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{config.class_path} made a {type(model).__name__}, no torch.nn.Module", remedy="name a model class"
        )
    if config.weights is not None:
        if is_spread(model):
            raise ConfigError(
                f"{config.class_path} has a device_map, and weights: {config.weights}, which are for a model on one device",
                remedy="put them into the checkpoint that init_args.model names (softlabels export --formats=hf)",
            )
        load_weights(model, Path(config.weights))
        for name in OWN_FACTS:  # they were those of what the class itself had loaded
            if hasattr(model, name):
                setattr(model, name, None)
    return model


def untrained(model: nn.Module) -> tuple[str, ...] | None:
    """Names of the tensors to which the model's class gave no trained values; None where it does not say that it gave any.

    A class that loads weights of its own says so in an attribute `untrained`, empty where it lacks nothing.
    """
    names = getattr(model, "untrained", None)
    return tuple(map(str, names)) if isinstance(names, tuple | list) else None


def answer_of(model: nn.Module, inputs: Tensor, *, who: str, section: str, training: bool = False) -> object:
    """What the model (`who`), in evaluation mode or as in `training`, says of a batch of prepared inputs.

    Raises ConfigError where it cannot take them; the remedy names the recipe's `section` in which the model stands.
    """
    before = model.training
    try:
        with torch.inference_mode():
            return model.train(training)(inputs.clone())
    except (RuntimeError, IndexError, ValueError) as error:  # where shapes, dtypes or token ids do not fit
        raise ConfigError(
            f"{who} cannot take inputs of {inputs.dtype} and shape {list(inputs.shape)}{' in training' * training}: {error}",
            remedy=f"change {section}.init_args, or transfer_set.prepare"
            + "; softlabels.transfer.vector gives float32" * (inputs.dtype == torch.float64),
        ) from error
    finally:
        model.train(before)
