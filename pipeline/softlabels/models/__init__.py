"""Models for teachers and students alike: built from a class path (`build`), with safetensors weights (`weights`).

Models that ship: `MLP` and `ConvNet`, for the digits and for tests; `SequenceClassifier`, `ImageClassifier` and `CausalLM` hold
a Hugging Face model. Anything else is a user's own class. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softlabels.lazy import exports

if TYPE_CHECKING:
    from softlabels.models.build import build_model as build_model
    from softlabels.models.causal_lm import CausalLM as CausalLM
    from softlabels.models.cnn import ConvNet as ConvNet
    from softlabels.models.config import ModelConfig as ModelConfig
    from softlabels.models.hf import ImageClassifier as ImageClassifier
    from softlabels.models.hf import SequenceClassifier as SequenceClassifier
    from softlabels.models.mlp import MLP as MLP
    from softlabels.models.narrow import narrowed as narrowed
    from softlabels.models.weights import load_weights as load_weights
    from softlabels.models.weights import save_weights as save_weights
    from softlabels.models.weights import weights_digest as weights_digest

if not TYPE_CHECKING:  # a type checker that knew of it would take every name for one that is there
    __getattr__ = exports(__name__)
