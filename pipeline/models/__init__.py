"""Models for teachers and students alike: built from a class path (`build`), with safetensors weights (`weights`).

Two small models ship, for the digits and for tests: `mlp` and `cnn`. Anything else is a user's own class.
"""

from pipeline.models.build import ModelConfig, build_model
from pipeline.models.weights import load_weights, save_weights, weights_digest

__all__ = ["ModelConfig", "build_model", "load_weights", "save_weights", "weights_digest"]
