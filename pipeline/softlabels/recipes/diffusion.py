"""Diffusion samplers as teachers and students (recipe `diffuse`): a denoiser, its deterministic sampler, two steps in one.

Time t runs from 1 (noise) to 0 (data) on the cosine schedule: z_t = cos(pi t / 2) x + sin(pi t / 2) noise. A denoiser says the
velocity v = cos(pi t / 2) noise - sin(pi t / 2) x at (z, t), from which both x and noise follow (Salimans, Ho 2022, arXiv
2202.00512, appendix D). A step of DDIM goes from z_t to z_s along what the denoiser says at t. All classes here keep their
weights under the same names, so one file serves them all. B batch, D numbers of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError

_FREQUENCIES = 16
Velocity = Callable[[Tensor, Tensor], Tensor]  # (B, D), (B, 1) -> (B, D)


def stepped(z: Tensor, v: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """z_s of z_t and its velocity: in the plane of x and noise a turn by pi (t - s) / 2."""
    turn = (t - s) * (math.pi / 2)
    return turn.cos() * z - turn.sin() * v


def sampled(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Samples (B, D) of noise (B, D), in so many deterministic steps of one length."""
    z, times = noise, torch.linspace(1, 0, steps + 1, dtype=noise.dtype).tolist()
    for now, then in pairwise(times):
        t = z.new_full((len(z), 1), now)
        z = stepped(z, velocity(z, t), t, z.new_full((len(z), 1), then))
    return z


def halved(velocity: Velocity, z: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """The velocity at (z, t) that takes one step of length 2 `step` to where two steps of `velocity` go: (B, D)."""
    middle = stepped(z, velocity(z, t), t, t - step)
    end = stepped(middle, velocity(middle, t - step), t - step, t - 2 * step)
    turn = step * math.pi
    return (turn.cos() * z - end) / turn.sin()


class _Network(nn.Module):
    """A residual perceptron; the arguments are those of `Denoiser`."""

    def __init__(self, size: int, width: int = 256, blocks: int = 3) -> None:
        super().__init__()
        self.size = size
        self.first = nn.Linear(size + 2 * _FREQUENCIES, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """(B, D) of noisy samples (B, D) at times (B, 1)."""
        angles = t * torch.logspace(0, 2, _FREQUENCIES, dtype=z.dtype, device=z.device)
        hidden = self.first(torch.cat([z, angles.cos(), angles.sin()], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        found: Tensor = self.last(hidden)
        return found


class Denoiser(_Network):
    """Velocities of noisy samples.

    Args:
        size: D.
        width: of its hidden layers.
        blocks: how many of them.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Velocities (B, D) of rows (B, D + 1): a noisy sample and its time."""
        z, t = _apart(inputs, self.size)
        return self.velocity(z, t)


class TwoSteps(_Network):
    """What a denoiser of half the steps is to say: two steps of this one in one (progressive distillation).

    Args:
        steps: of this one's sampler.
        size, width, blocks: as of `Denoiser`.
    """

    def __init__(self, steps: int, size: int, width: int = 256, blocks: int = 3) -> None:
        super().__init__(size, width, blocks)
        if steps < 2:
            raise ConfigError(f"a sampler of {steps} steps has no half", remedy="give steps >= 2")
        self.steps = steps

    def forward(self, inputs: Tensor) -> Tensor:
        """Velocities (B, D) of rows (B, D + 1): a noisy sample and its time, at least two steps from 0."""
        z, t = _apart(inputs, self.size)
        return halved(self.velocity, z, t, torch.full_like(t, 1 / self.steps))


class DiffusionSampler(_Network):
    """Samples of noise, by deterministic steps.

    Args:
        steps: how many.
        size, width, blocks: as of `Denoiser`.
    """

    def __init__(self, steps: int, size: int, width: int = 256, blocks: int = 3) -> None:
        super().__init__(size, width, blocks)
        self.steps = steps

    def forward(self, inputs: Tensor) -> Tensor:
        """Samples (B, D) of noise (B, D)."""
        return sampled(self.velocity, inputs, self.steps)


def _apart(inputs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    if inputs.shape[1:] != (size + 1,):
        raise ConfigError(
            f"a denoiser of {size} numbers is given rows of shape {[*inputs.shape[1:]]}",
            remedy="give a noisy sample and its time",
        )
    return inputs[:, :size], inputs[:, size:]
