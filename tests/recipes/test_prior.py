"""Correction for other shares of the classes: against Bayes' rule on a world whose distributions are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from softlabels.errors import ConfigError
from softlabels.models import build_model
from softlabels.models.config import ModelConfig
from softlabels.recipes.biased import Biased
from softlabels.recipes.prior import class_shares, matched_bias, ratio_bias, target_shares
from tests.student.runs import MemoryBatches, examples


def test_bayes_rule_in_a_world_of_discrete_inputs(rng: np.random.Generator) -> None:
    """p(x | class) is the same in both worlds; the corrected posterior is that of the world with the other shares."""
    likelihood = rng.dirichlet(np.ones(40), size=6)  # (classes, inputs)
    here, there = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))

    def posterior(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joint = likelihood * shares[:, None]
        return (joint / joint.sum(0)).T, joint.sum(0)  # (inputs, classes), (inputs,)

    p_here, inputs_here = posterior(here)
    shares = torch.tensor(p_here.T @ inputs_here)  # mean posterior over the inputs
    np.testing.assert_allclose(shares, here, atol=1e-12)
    corrected = torch.softmax(torch.tensor(np.log(p_here)) + ratio_bias(target_shares(list(there), 6), shares), dim=-1)
    np.testing.assert_allclose(corrected, posterior(there)[0], atol=1e-9)


def test_shares_are_the_mean_of_the_teachers_probabilities(rng: np.random.Generator) -> None:
    data = examples(seed=int(rng.integers(1000)))
    assert data.soft is not None
    z = data.soft.members.logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    for size in (7, 150):
        found = class_shares(MemoryBatches(data, size, seed=None), mean="arithmetic")
        np.testing.assert_allclose(found, p.mean((0, 1)), atol=1e-6)
    assert torch.allclose(
        ratio_bias(target_shares("uniform", 5), found).exp() * found, torch.full((5,), 0.2, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("target", "shares", "words"),
    [
        ([0.5, 0.5], [0.2, 0.3, 0.5], "2 numbers.*for 3 classes"),
        ([0.5, 0.5, 0.0], [0.2, 0.3, 0.5], "above 0"),
        ([0.5, 0.5, float("nan")], [0.2, 0.3, 0.5], "above 0"),
        ("even", [0.5, 0.5], "class_prior is 'even'; give uniform"),
        ("uniform", [1.0, 0.0], "class 1 no probability"),
    ],
)
def test_what_cannot_be_corrected_is_refused(target: list[float] | str, shares: list[float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ratio_bias(target_shares(target, len(shares)), torch.tensor(shares, dtype=torch.float64))


def test_a_biased_model_adds_its_bias_and_keeps_it_with_its_weights() -> None:
    given = {"model": "torch.nn.Linear", "model_args": {"in_features": 3, "out_features": 2}, "classes": 2}
    config = ModelConfig("softlabels.models.Biased", given)
    model = build_model(config)
    assert isinstance(model, Biased)
    x = torch.randn(4, 3)
    torch.testing.assert_close(model(x), model.model(x))
    model.bias.copy_(torch.tensor([1.0, -2.0]))
    assert isinstance(model.model, nn.Linear)
    torch.testing.assert_close(model(x), model.model(x) + torch.tensor([1.0, -2.0]))
    assert set(model.state_dict()) == {"bias", "model.weight", "model.bias"}


def test_a_matched_bias_gives_the_rare_classes_their_share(rng: np.random.Generator) -> None:
    logits = torch.tensor(rng.normal(0, 6, size=(500, 5)))
    target = target_shares([1, 1, 2, 3, 3], 5)
    shares = torch.tensor([0.001, 0.3, 0.002, 0.3, 0.397], dtype=torch.float64)
    bias = matched_bias(target, shares, logits)
    assert bias[1] == bias[3] == bias[4] == 0
    assert bias[0] == bias[2] != 0
    p = torch.softmax(logits + bias, dim=-1).mean(0)
    assert p[[0, 2]].sum().item() == pytest.approx(0.3, abs=1e-9)


@pytest.mark.parametrize("shares", [[0.2, 0.8], [0.5, 0.5], [0.01, 0.01]])
def test_without_a_rare_class_there_is_nothing_to_match(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match="leave --rows out"):
        matched_bias(target_shares("uniform", 2), torch.tensor(shares, dtype=torch.float64), torch.zeros(3, 2))
