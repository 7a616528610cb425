"""The students under which `far_reading.py` reads: what a training step does with a batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from softlabels.stream.batch import Batch
from softlabels.student.losses import distillation_loss

Step = Callable[[Batch], object]


def alone(batch: Batch) -> None:
    """No student."""


def paused(seconds: float) -> Step:
    """One on another device, which leaves the processor free."""
    return lambda batch: time.sleep(seconds)


def trained(student: nn.Module, shape: tuple[int, ...]) -> Step:
    """A step of distillation from the batch's labels; the inputs (B, *shape) are always the same."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    inputs = torch.randn(512, *shape)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        target = batch.targets[""]
        loss = distillation_loss(
            student(inputs[: len(batch)]), target.soft, target.labels, temperature=4.0, hard_weight=0.0, soft_weight=1.0
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def mlp(classes: int) -> Step:
    """784-800-800 and the classes."""
    layers = [nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU(), nn.Linear(800, classes)]
    return trained(nn.Sequential(*layers), (784,))


def resnet(classes: int) -> Step:
    """Two residual blocks of 16 channels over 28 x 28 pixels."""
    return trained(nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), _Block(), _Block(), _Head(classes)), (1, 28, 28))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.inner(x))


class _Head(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(x.mean(dim=(2, 3)))
        return found
