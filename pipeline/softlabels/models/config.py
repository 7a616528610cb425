"""What a recipe says of a model; nothing is built here, and no torch is imported. Neighbour: `build` makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from softlabels.objects import canonical


@dataclass(frozen=True)
class ModelConfig:
    """A model: dotted path of its class (or of a function that returns it), keyword arguments, safetensors file of weights."""

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)  # its keyword arguments
    weights: str | None = None  # a safetensors file of weights to start from

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_path", canonical(self.class_path))
