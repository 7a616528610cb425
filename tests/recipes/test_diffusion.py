"""Samplers of the recipe `diffuse`, against the mixture for which all is known; halving by stores and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.models import ModelConfig, build_model, save_weights
from softlabels.objects import ObjectSpec
from softlabels.recipes.diffusion import Denoiser, DiffusionSampler, TwoSteps, halved, sampled, stepped
from softlabels.recipes.halving import halve
from softlabels.recipes.mixture import MixtureSampler, energy_distance
from softlabels.recipes.noise import noise
from softlabels.student.sweep import StudentTraining
from softlabels.transfer import TransferSetConfig

SIZES = {"size": 2, "width": 16, "blocks": 1}


def drawn(mixture: MixtureSampler, rows: int, rng: np.random.Generator) -> torch.Tensor:
    """Points of the mixture itself."""
    means = mixture.means.double().numpy()
    which = rng.integers(len(means), size=rows)
    return torch.from_numpy(means[which] + mixture.deviation * rng.normal(size=(rows, 2)))


def test_the_velocity_is_the_mean_of_that_of_all_pairs(rng: np.random.Generator) -> None:
    """By importance sampling: x is drawn from the mixture, noise is what makes z of it, weighted by its density."""
    mixture = MixtureSampler(1, components=3)
    z, t = torch.tensor([[0.4, -0.9]], dtype=torch.float64), torch.full((1, 1), 0.55, dtype=torch.float64)
    alpha, sigma = np.cos(0.55 * np.pi / 2), np.sin(0.55 * np.pi / 2)
    x = drawn(mixture, 100_000, rng).numpy()
    e = (z.numpy() - alpha * x) / sigma
    weights = np.exp(-(e**2).sum(1) / 2)
    wanted = ((alpha * e - sigma * x) * weights[:, None]).sum(0) / weights.sum()
    np.testing.assert_allclose(mixture.velocity(z, t)[0], wanted, atol=0.03)


def test_the_energy_distance_is_exact(rng: np.random.Generator) -> None:
    mixture = MixtureSampler(1, components=3)
    points = torch.tensor([[0.0, 0.0], [2.0, 0.1], [-1.0, 3.0]])
    x, y = drawn(mixture, 100_000, rng), drawn(mixture, 100_000, rng)
    pairs = [(points[a] - points[b]).norm() for a in range(3) for b in range(3) if a != b]
    sampled_means = (
        2 * torch.stack([(x - point).norm(dim=1).mean() for point in points]).mean() - (x - y).norm(dim=1).mean()
    )
    assert mixture.energy_distance(points) == pytest.approx(float(sampled_means - sum(pairs) / 6), abs=0.02)
    own = drawn(mixture, 3000, rng)
    assert abs(mixture.energy_distance(own)) < 0.01
    assert abs(energy_distance(own, drawn(mixture, 3000, rng))) < 0.01
    assert mixture.energy_distance(own + 1) == pytest.approx(
        energy_distance(own + 1, drawn(mixture, 3000, rng)), rel=0.1
    )


def test_more_steps_come_closer_to_the_mixture() -> None:
    start = torch.from_numpy(noise(split="test", size=2, rows={"test": 3000})["noise"])
    distances = [MixtureSampler(steps).energy_distance(MixtureSampler(steps)(start)) for steps in (1, 4, 50)]
    assert distances[0] > 10 * distances[1] > 100 * abs(distances[2])


def test_one_step_along_the_halved_velocity_is_two_steps() -> None:
    mixture = MixtureSampler(8).double()
    z = torch.randn(20, 2, dtype=torch.float64)
    t, step = torch.ones(20, 1, dtype=torch.float64), torch.full((20, 1), 1 / 8, dtype=torch.float64)
    first = stepped(z, mixture.velocity(z, t), t, t - step)
    second = stepped(first, mixture.velocity(first, t - step), t - step, t - 2 * step)
    found = stepped(z, halved(mixture.velocity, z, t, step), t, t - 2 * step)
    torch.testing.assert_close(found, second, rtol=1e-12, atol=1e-12)

    def halves(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return halved(mixture.velocity, z, t, torch.full_like(t, 1 / 8))

    torch.testing.assert_close(sampled(halves, z, 4), sampled(mixture.velocity, z, 8), rtol=1e-9, atol=1e-9)


def test_one_file_serves_denoiser_sampler_and_teacher(tmp_path: Path) -> None:
    save_weights(Denoiser(**SIZES), tmp_path / "w.safetensors")
    for name, more in (("DiffusionSampler", {"steps": 3}), ("TwoSteps", {"steps": 4})):
        build_model(ModelConfig(f"softlabels.models.{name}", SIZES | more, str(tmp_path / "w.safetensors")))
    with pytest.raises(ConfigError, match=r"a sampler of 1 steps has no half"):
        TwoSteps(1, **SIZES)
    with pytest.raises(ConfigError, match=r"rows of shape \[2\]; give a noisy sample and its time"):
        Denoiser(**SIZES)(torch.zeros(1, 2))


def noisy(*, split: str, steps: int | None = None) -> dict[str, NDArray[np.float32]]:
    """A factory: points of the mixture with noise in them."""
    rng = np.random.default_rng([len(split), steps or 0])
    x = drawn(MixtureSampler(1), 600, rng).numpy()
    t = rng.integers(1, (steps or 100) + 1, (600, 1)) / (steps or 100)
    z = np.cos(t * np.pi / 2) * x + np.sin(t * np.pi / 2) * rng.normal(size=x.shape)
    return {"noisy": np.hstack([z, t]).astype(np.float32)}


def test_halving_ends_at_one_step_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(1)
    save_weights(Denoiser(**SIZES), tmp_path / "w.safetensors")
    denoiser = ModelConfig("softlabels.models.Denoiser", SIZES, str(tmp_path / "w.safetensors"))
    rows = TransferSetConfig(factory=ObjectSpec("tests.recipes.test_diffusion.noisy"), inputs=("noisy",), label=None)
    training = StudentTraining(
        loss="mse", alpha=1, epochs=5, batch_size=50, validation=0, threads=1, device="cpu", baseline=False,
        optimizer=ObjectSpec("torch.optim.Adam", {"lr": 3e-3}),
    )  # fmt: skip
    rounds = list(halve(denoiser, rows, training, tmp_path / "halved", steps=4))
    assert [steps for steps, _ in rounds] == [2, 1]
    start = torch.randn(200, 2)
    slow = DiffusionSampler(4, **SIZES)
    slow.load_state_dict(build_model(denoiser).state_dict())
    one, untaught = DiffusionSampler(1, **SIZES), DiffusionSampler(1, **SIZES)
    one.load_state_dict(build_model(rounds[-1][1]).state_dict())
    untaught.load_state_dict(slow.state_dict())
    errors = [float((model(start) - slow(start)).detach().square().mean()) for model in (one, untaught)]
    assert errors[0] < errors[1] / 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "halved").rglob("weights.safetensors")}
    assert list(halve(denoiser, rows, training, tmp_path / "halved", steps=4)) == rounds
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(ConfigError, match=r"6 steps cannot be halved to one; give a power of two"):
        next(halve(denoiser, rows, training, tmp_path / "halved", steps=6))
