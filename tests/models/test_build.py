from __future__ import annotations

from pathlib import Path

import pytest
import torch

from softlabels.errors import ConfigError, WeightsError
from softlabels.models import ModelConfig, build_model, save_weights, weights_digest

MLP = "softlabels.models.MLP"
ARGS = {"inputs": 6, "hidden": [5], "classes": 3}


def test_a_model_is_built_and_takes_its_weights(tmp_path: Path) -> None:
    trained = build_model(ModelConfig(MLP, ARGS))
    save_weights(trained, tmp_path / "trained.safetensors")
    again = build_model(ModelConfig(MLP, ARGS, weights=str(tmp_path / "trained.safetensors")))
    assert weights_digest(again) == weights_digest(trained) != weights_digest(build_model(ModelConfig(MLP, ARGS)))
    inputs = torch.randn(4, 6)
    torch.testing.assert_close(again(inputs), trained(inputs), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ModelConfig("softlabels.models.mlp.Mlp"), "has no 'Mlp'"),
        (ModelConfig(MLP, {"inputs": 6, "hidden": []}), "classes"),
        (ModelConfig(MLP, {**ARGS, "widht": 3}), "widht"),
        (ModelConfig(MLP, {**ARGS, "hidden": ["wide"]}), "refused"),
        (ModelConfig(MLP, {**ARGS, "dropout": 1.5}), "refused.*dropout"),
        (ModelConfig("softlabels.models.ConvNet", {"channels": [], "classes": 2}), "at least one width"),
        (ModelConfig("collections.OrderedDict"), "no torch.nn.Module"),
    ],
)
def test_what_makes_no_model_is_refused(config: ModelConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_model(config)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is nothing"):
        build_model(ModelConfig(MLP, ARGS, weights=str(tmp_path / "none.safetensors")))
