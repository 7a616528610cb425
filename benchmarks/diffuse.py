"""One-step students of a diffusion sampler from stored pairs, beside plain torch on the exact pairs, and progressive halving.

    python -m benchmarks.diffuse --run=RUN [--halve=FOLDER] [--steps=64] [--seed=0]

RUN is a run of `train-student` with the recipe diffuse or diffuse_2d. Plain torch trains the same student with as many steps of
as many rows, on pairs that it makes with the live teacher. A line a student: mean square distance to the teacher's samples of
the test split's noise; the energy distance of its samples to the mixture itself (2-D, exact) or to the held-out digits; mean ±
standard deviation over the seeds. With --halve the denoiser of the recipe `denoise` is halved to one step too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from softlabels.jobs.watch import Watch
from softlabels.models import ModelConfig, build_model
from softlabels.recipes.diffusion import DiffusionSampler
from softlabels.recipes.halving import halve
from softlabels.recipes.mixture import MixtureSampler, energy_distance
from softlabels.recipes.noise import digits
from softlabels.student.optimizer import build_optimizer, build_scheduler
from softlabels.student.sweep import StudentTraining
from softlabels.student.trainer import WEIGHTS
from softlabels.teacher.config import MemberConfig
from softlabels.transfer import TransferSetConfig, load_transfer_set
from softlabels_stages.recipe import load
from softlabels_stages.schema import typed

_BLOCK = 1000  # rows a pass


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--halve", type=Path)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the order of the rows in halving")
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = World(yaml.safe_load((args.run / "config.yaml").read_text()))
    print("| samples | seeds | MSE to the teacher | energy distance |")
    print("| --- | ---: | ---: | ---: |")
    world.line("teacher", [world.teacher])
    world.line("one step, plain torch", [plain(world, seed) for seed in world.training.seeds])
    stored = sorted(args.run.glob(f"distilled*/{WEIGHTS}"))
    world.line("one step, from the store", [world.student(weights) for weights in stored])
    if args.halve is not None:
        untaught, training, rows = halving(args.seed)
        watch = Watch(say=partial(print, file=sys.stderr))
        for steps, denoiser in halve(untaught, rows, training, args.halve, steps=args.steps, watch=watch):
            world.line(f"{steps} steps, the denoiser's own", [sampler(untaught, steps)])
            world.line(f"{steps} steps, halved", [sampler(denoiser, steps)])


class World:
    """A recipe's teacher and noise, and how its samples are judged."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        self.recipe = recipe
        self.training = typed(StudentTraining, recipe["training"], where="training")
        rows = typed(TransferSetConfig, recipe["transfer_set"], where="transfer_set")
        self.noise = {
            split: torch.tensor(np.array(load_transfer_set(rows, split).inputs)) for split in ("train", "test")
        }
        member = typed(MemberConfig, recipe["teacher"]["members"][0], where="teacher.members")
        self.teacher = build_model(member.model).eval()
        self.samples = made(self.teacher, self.noise["test"])

    def student(self, weights: Path | None = None) -> nn.Module:
        """The recipe's student: a new one, or with such weights."""
        section = self.recipe["student"] | ({} if weights is None else {"weights": str(weights)})
        return build_model(typed(ModelConfig, section, where="student"))

    def line(self, name: str, models: Sequence[nn.Module]) -> None:
        """Print what models, one a seed, make of the test split's noise."""
        found = [made(model.eval(), self.noise["test"]) for model in models]
        errors = [float((samples - self.samples).square().mean()) for samples in found]
        print(
            f"| {name} | {len(models)} | {shown(errors)} | {shown([self.distance(each) for each in found])} |",
            flush=True,
        )

    def distance(self, samples: Tensor) -> float:
        """The energy distance of samples to what the teacher's own law is like."""
        if isinstance(self.teacher, MixtureSampler):
            return self.teacher.energy_distance(samples)
        return energy_distance(samples, torch.from_numpy(digits("test")))


def plain(world: World, seed: int) -> nn.Module:
    """The student trained as one would without softlabels, on the teacher's live samples."""
    training, noise = world.training, world.noise["train"]
    samples = made(world.teacher, noise)
    torch.manual_seed(seed)
    student = world.student().train()
    optimizer = build_optimizer(training.optimizer, student.parameters())
    steps = training.epochs * -(-len(noise) // training.batch_size)
    scheduler = build_scheduler(training.scheduler, optimizer, steps)
    for _ in range(training.epochs):
        for rows in torch.split(torch.randperm(len(noise)), training.batch_size):
            optimizer.zero_grad()
            torch.autograd.backward(functional.mse_loss(student(noise[rows]), samples[rows]))
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return student


def halving(seed: int) -> tuple[ModelConfig, StudentTraining, TransferSetConfig]:
    """What is halved, how its students are trained, and the noisy rows, as the recipe `denoise` says."""
    recipe = load("denoise")
    training = typed(StudentTraining, recipe["training"] | {"seeds": [seed], "seed": seed}, where="training")
    rows = typed(TransferSetConfig, recipe["transfer_set"], where="transfer_set")
    return typed(ModelConfig, recipe["student"], where="student"), training, rows


def sampler(denoiser: ModelConfig, steps: int) -> nn.Module:
    """A denoiser's sampler of so many steps."""
    found = DiffusionSampler(steps, **denoiser.init_args)
    found.load_state_dict(build_model(denoiser).state_dict())
    return found


@torch.inference_mode()
def made(model: nn.Module, noise: Tensor) -> Tensor:
    """A model's samples of noise (R, D), block by block."""
    return torch.cat([model(block) for block in torch.split(noise, _BLOCK)])


def shown(values: list[float]) -> str:
    """Mean, and where there are several, ± the sample standard deviation."""
    mean = f"{statistics.mean(values):.3g}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1g}"


if __name__ == "__main__":
    main()
