"""What a training config accepts, refuses, and means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from softlabels.errors import ConfigError
from softlabels.objects import ObjectSpec
from softlabels.student.config import TrainingConfig


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({}, (0.1, 0.9)),
        ({"alpha": 0.0}, (1.0, 0.0)),
        ({"alpha": 1.0}, (0.0, 1.0)),
        ({"alpha": 0.25}, (0.75, 0.25)),
        ({"hard_weight": 1.0, "soft_weight": 1.0}, (1.0, 1.0)),
        ({"hard_weight": 0.0, "soft_weight": 9.0}, (0.0, 9.0)),
    ],
)
def test_alpha_is_short_for_two_weights(given: dict[str, float], weights: tuple[float, float]) -> None:
    loss = TrainingConfig(**given).loss_at(0.5)  # type: ignore[arg-type]
    assert (loss.hard_weight, loss.soft_weight) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 0.5, "soft_weight": 1.0}, "both set the weights.*alpha=null"),
        ({"alpha": 0.5, "hard_weight": 0.5, "soft_weight": 0.5}, "both set the weights"),
        ({"hard_weight": 1.0}, "soft_weight=None: one of the two is missing"),
        ({"soft_weight": 1.0}, "hard_weight=None .* one of the two is missing"),
        ({"hard_weight": 0.0, "soft_weight": 0.0}, "not both 0"),
        ({"hard_weight": -1.0, "soft_weight": 1.0}, ">= 0"),
        ({"hard_weight": 1.0, "soft_weight": math.inf}, "finite"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], not 1.5"),
        ({"alpha": math.nan}, "alpha must lie"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0, not 0.0"),
        ({"temperature": math.inf}, "temperature"),
        ({"loss": "kl"}, "'kl'.*forward_kl, reverse_kl, .*dist"),
        ({"mean": "median"}, "'median'.*arithmetic, geometric, tempered"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"micro_batch": 0}, "micro_batch must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"validation": 1.0}, "validation must be >= 0 and < 1"),
        ({"validation": -0.1}, "validation must be"),
        ({"hard_label_fraction": 1.5}, "hard_label_fraction must lie"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"device": "gpu"}, "device is 'gpu'.*cuda:N"),
    ],
)
def test_what_is_impossible_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**given)


def test_the_defaults_are_a_whole_config_and_are_not_shared() -> None:
    one, other = TrainingConfig(), TrainingConfig()
    assert one == other
    assert one.optimizer == ObjectSpec("torch.optim.AdamW", {"lr": 1e-3})
    one.optimizer.init_args["lr"] = 1.0
    assert other.optimizer.init_args["lr"] == 1e-3
    assert replace(other, alpha=0.3).loss_at(0.0).soft_weight == 0.3
