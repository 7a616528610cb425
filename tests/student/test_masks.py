"""Masks: what is deleted is 0 after every step, whatever optimizer, weight decay, momentum and average would do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from softlabels.errors import ConfigError
from softlabels.objects import ObjectSpec
from softlabels.student.config import TrainingConfig
from softlabels.student.deletion import best_units, least_weights, require_share, widths
from softlabels.student.learner import Learner, Student
from softlabels.student.masks import Masks, prunable
from softlabels.student.trainer import Trainer
from softlabels.student.units import chains_of
from tests.student.runs import EVERYTHING, MemoryBatches, examples, net

OPTIMIZERS = {
    "adam": ObjectSpec("torch.optim.AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    "momentum": ObjectSpec("torch.optim.SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "restless": ObjectSpec(f"{__name__}.Restless", {"lr": 0.01}),
}


class Restless(torch.optim.SGD):
    """Moves weights without a gradient too."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    weight += 0.01


def half(model: nn.Module) -> Masks:
    return Masks({name: torch.rand_like(weight) < 0.5 for name, weight in prunable(model).items()})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_deleted_weights_are_0_after_every_step(
    optimizer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = TrainingConfig(
        epochs=2, batch_size=32, threads=1, device="cpu", optimizer=OPTIMIZERS[optimizer], **EVERYTHING
    )
    student = Student.begin("s", config, net)
    masks = half(student.model)
    deleted, seen = masks.count(), []
    plain = Learner.step

    def watched(self: Learner, *args: Any) -> float:
        loss = plain(self, *args)
        for model in (self.model, self.judged):
            weights = dict(model.named_parameters())
            seen.append(all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.left.items()))
        return loss

    monkeypatch.setattr(Learner, "step", watched)
    student = Student("s", student.model, config, None, student.rng, masks)
    trainer = Trainer([student], MemoryBatches(examples(), 32), MemoryBatches(examples(1), 50), tmp_path, {})
    trainer.run()
    assert len(seen) == 20
    assert all(seen)
    assert masks.count() == deleted > 0
    weights = prunable(student.model)
    assert all(bool((weights[name][mask] != 0).all()) for name, mask in masks.left.items())


def test_a_checkpoint_brings_its_masks_back(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=1, batch_size=32, threads=1, device="cpu")

    def trainer(masks: Masks) -> Trainer:
        student = Student.begin("s", config, net, masks=masks)
        return Trainer([student], MemoryBatches(examples(), 32), None, tmp_path, {})

    first, other = half(net()), Masks.whole(net())
    trainer(first).run()
    trainer(other).run()
    assert all(torch.equal(other.left[name], mask) for name, mask in first.left.items())


def test_the_least_go_first_and_stay_gone() -> None:
    masks = Masks({"a": torch.tensor([[True, False], [True, True]])})
    scores = {"a": torch.tensor([[3.0, 9.0], [1.0, 1.0]])}
    assert least_weights(scores, masks, 2).left["a"].tolist() == [[True, False], [False, True]]
    assert least_weights(scores, masks, 1).left["a"].tolist() == [[True, False], [True, True]]
    model = nn.Linear(10, 10)
    with pytest.raises(ConfigError, match=r"keep=0.05 of 110 parameters, and 10 of them"):
        require_share(model, [], 0.05)


def test_widths_are_alike_for_all_students(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    chains = chains_of(model, torch.rand(3, 4))
    scores = [
        [torch.tensor([5.0, 4, 0, 0, 0, 0]), torch.tensor([1.0, 1, 1, 1, 1, 1])],
        [torch.tensor([0.0, 0, 0, 0, 50, 40]), torch.tensor([10.0, 10, 10, 10, 10, 10])],
    ]
    width = widths(model, chains, scores, 0.6)
    assert width == [2, 6]
    whole = [torch.ones(6, dtype=torch.bool)] * 2
    assert [units.tolist() for units in best_units(scores[1], width, whole)] == [[False] * 4 + [True] * 2, [True] * 6]
    gone = torch.tensor([False, True, True, True, True, True])  # a dead unit scores no more than a deleted one
    assert best_units([torch.zeros(6)], [5], [gone])[0].tolist() == gone.tolist()
