"""Models for teachers and students alike: built from a class path (`build`), with safetensors weights (`weights`).

Models that ship: `MLP` and `ConvNet`, for the digits and for tests; `SequenceClassifier`, `ImageClassifier` and `CausalLM` hold
a Hugging Face model. Anything else is a user's own class. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softlabels.lazy import exports

if TYPE_CHECKING:
    from softlabels.models.build import build_model
    from softlabels.models.causal_lm import CausalLM
    from softlabels.models.cnn import ConvNet
    from softlabels.models.config import ModelConfig
    from softlabels.models.hf import ImageClassifier, SequenceClassifier
    from softlabels.models.mlp import MLP
    from softlabels.models.weights import load_weights, save_weights, weights_digest

__all__ = [
    "MLP",
    "CausalLM",
    "ConvNet",
    "ImageClassifier",
    "ModelConfig",
    "SequenceClassifier",
    "build_model",
    "load_weights",
    "save_weights",
    "weights_digest",
]

if not TYPE_CHECKING:  # a type checker that knew of it would take every name for one that is there
    __getattr__ = exports(__name__)
