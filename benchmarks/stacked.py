"""What a sweep would gain by stacking its students: one model of five times the parameters (torch.func) against five.

    python -m benchmarks.stacked

Perceptrons at five temperatures, Adam, one thread, plain torch on both sides, in turns; CPU time, the least of some rounds.
The trainer does not stack: docs/training.md says why.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from benchmarks.page import machine
from softlabels.models.mlp import MLP

TEMPERATURES, CLASSES, HARD = (1.0, 2.0, 4.0, 8.0, 20.0), 10, 0.1
SHAPES = ((64, (32,), 100), (784, (30, 30), 50), (784, (100, 100), 30), (784, (800, 800), 10))  # the first: README's
Weights = list[dict[str, Tensor]]  # a student each


class Steps:
    """The same batches and teacher for both sides: inputs (S, B, I), labels (S, B), teacher's logits (S, B, C)."""

    def __init__(self, inputs: int, steps: int, rows: int) -> None:
        torch.manual_seed(0)
        self.inputs, self.teacher = torch.rand(steps, rows, inputs), torch.randn(steps, rows, CLASSES) * 3
        self.labels = torch.randint(CLASSES, (steps, rows))
        self.p = torch.stack([torch.softmax(self.teacher / t, -1) for t in TEMPERATURES], dim=1)  # (S, M, B, C)


def loss(z: Tensor, p: Tensor, labels: Tensor, t: Tensor) -> Tensor:
    """Of one student, or (M,) of several stacked: z and p (..., B, C), t () or (M,)."""
    log_q = torch.log_softmax(z / t[..., None, None], dim=-1)
    soft = (p * (p.log() - log_q)).sum(dim=(-1, -2)) * t.square() / z.shape[-2]
    every = labels.expand(z.shape[:-1]).flatten()
    hard = functional.cross_entropy(z.flatten(0, -2), every, reduction="none").view(z.shape[:-1]).mean(dim=-1)
    return HARD * hard + soft


def apart(models: Sequence[nn.Module], steps: Steps) -> Weights:
    """One student's step after the other's."""
    own = [copy.deepcopy(model) for model in models]
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in own]
    temperatures = torch.tensor(TEMPERATURES)
    for x, y, each in zip(steps.inputs, steps.labels, steps.p, strict=True):
        for model, optimizer, p, t in zip(own, optimizers, each, temperatures, strict=True):
            value = loss(model(x), p, y, t)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            value.item()
    return [dict(model.named_parameters()) for model in own]


def stacked(models: Sequence[nn.Module], steps: Steps) -> Weights:
    """All in one step."""
    found, _ = stack_module_state(list(models))
    weights = {name: each.detach().clone().requires_grad_() for name, each in found.items()}
    optimizer, shell = torch.optim.Adam(weights.values(), lr=1e-3), copy.deepcopy(models[0]).to("meta")
    answers = vmap(lambda own, x: functional_call(shell, own, (x,)), in_dims=(0, None))
    temperatures = torch.tensor(TEMPERATURES)
    for x, y, p in zip(steps.inputs, steps.labels, steps.p, strict=True):
        values = loss(answers(weights, x), p, y, temperatures)
        values.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        values.tolist()
    return [{name: each[number] for name, each in weights.items()} for number in range(len(models))]


def timed(act: Callable[[], Weights]) -> tuple[float, Weights]:
    """CPU seconds, and what came out."""
    began = time.process_time()
    found = act()
    return time.process_time() - began, found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=128, help="of a batch")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{machine('torch')}\n")
    print("| student | five apart, ms a step | stacked | apart / stacked | weights differ by up to |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for inputs, hidden, count in SHAPES:
        steps, took = Steps(inputs, count, options.rows), []
        models = [MLP(inputs, hidden, CLASSES) for _ in TEMPERATURES]
        for _ in range(options.rounds + 1):
            one, weights = timed(lambda m=models, s=steps: apart(m, s))  # type: ignore[misc]
            other, others = timed(lambda m=models, s=steps: stacked(m, s))  # type: ignore[misc]
            took.append((one, other))
        pairs = [(a[name], b[name]) for a, b in zip(weights, others, strict=True) for name in a]
        gap = max((a - b).abs().max().item() for a, b in pairs)
        each, together = (min(found[side] for found in took) / count * 1e3 for side in (0, 1))
        name = "-".join(map(str, (inputs, *hidden, CLASSES)))
        print(f"| {name} | {each:.2f} | {together:.2f} | {each / together:.2f} | {gap:.0e} |")


if __name__ == "__main__":
    main()
