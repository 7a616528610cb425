"""A mixture of Gaussians in the plane, for which all that a diffusion model learns is known (recipe `diffuse`): the velocity at
any time, and the exact energy distance of any points to it.

K components of equal weight and one standard deviation, on a ring. B batch, N points. The schedule is that of `diffusion`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from softlabels.recipes.diffusion import sampled


class MixtureSampler(nn.Module):
    """Samples of noise by deterministic steps along the mixture's exact velocity: a teacher without weights.

    Args:
        steps: how many.
        components: K.
        radius: of the ring.
        deviation: of each component, in both directions.
    """

    untrained = ()  # it needs no weights

    def __init__(self, steps: int, components: int = 8, radius: float = 2.0, deviation: float = 0.3) -> None:
        super().__init__()
        self.steps, self.deviation = steps, deviation
        angles = torch.arange(components, dtype=torch.float64) * (2 * math.pi / components)
        self.means: Tensor
        self.register_buffer("means", (radius * torch.stack([angles.cos(), angles.sin()], dim=1)).float())

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """The mean of cos(pi t / 2) noise - sin(pi t / 2) x over all x and noise that make z (B, 2) at times t > 0, (B, 1)."""
        alpha, sigma = (t * (math.pi / 2)).cos(), (t * (math.pi / 2)).sin()
        means_K2 = self.means.to(z.dtype)
        variance = alpha.square() * self.deviation**2 + sigma.square()
        off_BK2 = z[:, None] - alpha[:, None] * means_K2
        share_BK = (off_BK2.square().sum(-1) / (-2 * variance)).softmax(dim=1)
        x_BK2 = means_K2 + (alpha * self.deviation**2 / variance)[:, None] * off_BK2
        x = (share_BK[..., None] * x_BK2).sum(dim=1)
        return alpha * (z - alpha * x) / sigma - sigma * x

    def forward(self, inputs: Tensor) -> Tensor:
        """Samples (B, 2) of noise (B, 2)."""
        return sampled(self.velocity, inputs, self.steps)

    def energy_distance(self, points: Tensor) -> float:
        """2 E|X - y| - E|X - X'| - E|y - y'| of the mixture's X and the points y (N, 2), in float64.

        The means over X are exact; that over pairs of points leaves out each point with itself, so that points of the
        mixture itself give 0 in the mean.
        """
        points, means = points.double(), self.means.double()
        to_points = _mean_norm(torch.cdist(points, means), self.deviation).mean()
        inside = _mean_norm(torch.cdist(means, means), math.sqrt(2) * self.deviation).mean()
        return float(2 * to_points - inside - _mean_distance(points))


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| of points (N, D) and (N', D), 0 in the mean where both are of one law."""
    a, b = a.double(), b.double()
    return float(2 * torch.cdist(a, b).mean() - _mean_distance(a) - _mean_distance(b))


def _mean_distance(points: Tensor) -> Tensor:
    """Mean distance of two different points."""
    return torch.cdist(points, points).sum() / (len(points) * (len(points) - 1))


def _mean_norm(distance: Tensor, deviation: float) -> Tensor:
    """E|X| of a Gaussian in the plane whose mean has norm `distance`: the mean of Rice's distribution."""
    q = distance.square() / (4 * deviation**2)
    mean: Tensor = (1 + 2 * q) * torch.special.i0e(q) + 2 * q * torch.special.i1e(q)
    return deviation * math.sqrt(math.pi / 2) * mean
