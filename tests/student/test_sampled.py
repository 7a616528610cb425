"""Positions that a step takes: by the rule that the module states, from step and seed alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from softlabels.errors import ConfigError
from softlabels.labels.encoding import SigmoidEncoding
from softlabels.labels.soft import SoftLabels
from softlabels.stream.batch import Batch, TargetBatch
from softlabels.student.config import TrainingConfig
from softlabels.student.heads import resolved
from softlabels.student.learner import Learner, Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.outputs import batch_loss
from softlabels.student.sampled import PositionSample, position_sample, sampled_positions
from tests.student import batches
from tests.student.loss_reference import soft_labels

ROWS, P, C, F = 9, 40, 4, 3
CPU = torch.device("cpu")


def splitmix64(state: int) -> Iterator[int]:
    """Steele, Lea, Flood 2014, in whole numbers of Python."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def drawn(mask: np.ndarray, counts: list[int], seed: int, step: int) -> np.ndarray:
    """The stated rule, a position at a time."""
    key = next(splitmix64(next(splitmix64(seed)) ^ step))
    outputs, found = splitmix64(key), np.zeros_like(mask)
    ranks = np.array([next(outputs) for _ in range(mask.size)], np.uint64).reshape(mask.shape)
    for row, count in enumerate(counts):
        places = np.flatnonzero(mask[row])
        found[row, places[np.argsort(ranks[row, places])][:count]] = True
    return found


@pytest.fixture
def mask(rng: np.random.Generator) -> np.ndarray:
    found = rng.random((ROWS, P)) < 0.7
    found[0, 1:] = False  # a row of fewer than are asked for
    found[0, 0] = True
    return found


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (0, 7), (5, 7)])
def test_the_rule(mask: np.ndarray, rng: np.random.Generator, seed: int, step: int) -> None:
    for count in (1, 6, 0.25):
        counts = [min(count, n) if isinstance(count, int) else -(-n // 4) for n in mask.sum(axis=1).tolist()]
        found = sampled_positions(mask, PositionSample(count), None, seed=seed, step=step)
        assert np.array_equal(found, drawn(mask, counts, seed, step))
    labels = np.where(mask, rng.integers(-1, C, mask.shape), -1)
    for background in (-1, 2):
        sample = position_sample({"background": 5, "class": None if background < 0 else background})
        assert sample is not None
        found = sampled_positions(mask, sample, labels, seed=seed, step=step)
        foreground = mask & (labels >= 0) & (labels != background)
        assert (found[foreground]).all()
        rest = drawn(mask & ~foreground, [5] * ROWS, seed, step)
        assert np.array_equal(found & ~foreground, rest)


def test_a_part_of_a_batch_takes_what_the_whole_takes_of_it(mask: np.ndarray) -> None:
    whole = sampled_positions(mask, PositionSample(4), None, seed=3, step=2)
    parts = [
        sampled_positions(mask[at], PositionSample(4), None, seed=3, step=2, first=at.start)
        for at in (slice(0, 2), slice(2, 5), slice(5, ROWS))
    ]
    assert np.array_equal(np.concatenate(parts), whole)


def test_every_position_has_its_turn(mask: np.ndarray) -> None:
    times = sum(sampled_positions(mask, PositionSample(5), None, seed=1, step=step) for step in range(400))
    assert (times[~mask] == 0).all()
    share = times[1:][mask[1:]] / np.repeat(5 / mask[1:].sum(axis=1), mask[1:].sum(axis=1)) / 400
    assert 0.5 < share.min() < share.max() < 1.5


def batch_of(rng: np.random.Generator, mask: np.ndarray) -> Batch:
    labels = np.where(mask, rng.integers(-1, C, mask.shape), -1)
    soft = soft_labels(rng.normal(0, 2, (mask.size, 2, C)))
    inputs = torch.tensor(rng.normal(size=(*mask.shape, F))).float()
    return batches.plain(inputs, torch.tensor(labels), soft, np.arange(len(mask)), torch.tensor(mask))


def learner(**changes: Any) -> Learner:
    given: dict[str, Any] = {"alpha": 0.6, "device": "cpu", "seed": 3}
    return begun(TrainingConfig(**given | changes))


def begun(config: TrainingConfig, labelled: np.ndarray | None = None) -> Learner:
    student = Student.begin("", config, lambda: nn.Linear(F, C), labelled=labelled)
    return Learner(student, device=CPU, total_steps=9, augment=None)


@pytest.mark.parametrize("positions", [6, 0.25, {"background": 4}])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_step_is_that_of_the_positions_it_takes(
    rng: np.random.Generator, mask: np.ndarray, positions: Any, micro_batch: int | None
) -> None:
    batch, sample = batch_of(rng, mask), position_sample(positions)
    one = learner(positions=positions, micro_batch=micro_batch)
    assert sample is not None
    for step in range(3):
        taken = sampled_positions(mask, sample, batch.labels.numpy(), seed=3, step=step)
        labels = batch.labels.masked_fill(~torch.tensor(taken), -1)
        small = batches.plain(batch.inputs, labels, batch.soft, batch.rows, torch.tensor(taken))
        want = batch_loss(batches.outputs_of(one.model.eval(), small), small, LossSpec(4.0, 0.4, 0.6))
        assert one.step(batch, batch, step) == pytest.approx(want.item(), rel=1e-5)
    assert 0 < one.standing.labelled[""] <= 3 * int((batch.labels >= 0).sum())


def test_labels_that_may_not_be_used_do_not_say_what_is_background(rng: np.random.Generator, mask: np.ndarray) -> None:
    batch, labelled = batch_of(rng, mask), np.arange(ROWS) % 2 > 0
    config = TrainingConfig(alpha=0.6, device="cpu", seed=3, positions={"background": 4, "class": 2})
    labels = batch.labels.masked_fill(~torch.tensor(labelled)[:, None], -1)
    hidden = batches.plain(batch.inputs, labels, batch.soft, batch.rows, batch.mask)
    assert begun(config, labelled).step(batch, batch, 0) == begun(config).step(hidden, hidden, 0)


def test_other_students_and_the_rest_of_a_run_do_not_change_it(rng: np.random.Generator, mask: np.ndarray) -> None:
    batch = batch_of(rng, mask)
    first, second = learner(positions=6), learner(positions=6)
    for step in range(4):
        if step == 2:
            second.load(copy.deepcopy(first.state()))
        first.step(batch, batch, step)
    for step in (2, 3):
        second.step(batch, batch, step)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_of_several_targets_one_says_what_is_background(rng: np.random.Generator, mask: np.ndarray) -> None:
    batch = batch_of(rng, mask)
    flags = SoftLabels(SigmoidEncoding().members({"logits": torch.zeros(mask.size, 1, 2)}, 2), torch.ones(1))
    targets = {"kind": batch.target, "tag": TargetBatch(torch.full((*mask.shape, 2), -1, dtype=torch.int8), flags)}
    several = dataclasses.replace(batch, targets=targets)
    config = TrainingConfig(positions={"background": 4}, alpha=1.0)
    student = Student.begin("", resolved(config, {"kind": "softmax", "tag": "sigmoid"}), lambda: _Two())
    taught = Learner(student, device=CPU, total_steps=3, augment=None)
    assert np.isfinite(taught.step(several, several, 0))


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kind, self.tag = nn.Linear(F, C), nn.Linear(F, 2)

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"kind": self.kind(inputs), "tag": self.tag(inputs)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "training.positions is 0; give a whole number of positions a row, or a share between 0 and 1"),
        (1.5, "training.positions is 1.5"),
        (True, "training.positions is True"),
        ({"background": 0.0}, r"training.positions.background is 0.0"),
        ({}, "training.positions.background is None"),
        ({"background": 3, "class": -1}, "training.positions.class is -1"),
        ({"background": 3, "clas": 1}, "unknown key 'clas'; known keys: background, class, target"),
        ({"background": 3, "target": "box"}, r"samples the background of 'box' of the targets with classes \(''\)"),
    ],
)
def test_what_cannot_be_meant(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learner(positions=given)


def test_rows_without_positions(rng: np.random.Generator) -> None:
    batch = batches.plain(torch.zeros(2, F), torch.zeros(2).long(), None, np.arange(2))
    with pytest.raises(ConfigError, match=r"training.positions is given, and rows have no positions"):
        learner(positions=3, alpha=0.0).step(batch, batch, 0)
