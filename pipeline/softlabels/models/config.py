"""What a recipe says of a model; nothing is built here, and no torch is imported. Neighbour: `build` makes it."""

from __future__ import annotations

from dataclasses import dataclass

from softlabels.objects import ObjectSpec


@dataclass(frozen=True)
class ModelConfig(ObjectSpec):
    """A model: dotted path of its class (or of a function that returns it), keyword arguments, safetensors file of weights.

    Attributes:
        class_path: dotted path of its class, or of a function that returns it.
        init_args: its keyword arguments.
        weights: a safetensors file of weights to start from.

    Example:
        >>> mlp = ModelConfig("softlabels.models.MLP", {"inputs": 6, "hidden": [16], "classes": 5})
    """

    weights: str | None = None
