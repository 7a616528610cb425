"""Rows that diffusion models are given (recipe `diffuse`): noise, and digits with noise in them. Factories of transfer sets.

Each split has random numbers of its own. R rows, D numbers a sample.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferSetConfig, load_transfer_set

_HALF = ObjectSpec("softlabels.transfer.scale", {"divisor": 8})  # pixels run from 0 to 16


def noise(*, split: str, size: int, rows: Mapping[str, int], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Normal noise, from which samplers begin: the column noise (R, D); `rows` says R of each split."""
    return {"noise": _random(split, seed).standard_normal((rows[split], size), np.float32)}


def noisy_digits(
    *, split: str, rows: Mapping[str, int], steps: int | None = None, source: str = "./data/digits", seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Digits of the split with noise in them, at random times, on the schedule of `softlabels.recipes.diffusion`.

    Args:
        split: train or test, of the digits too.
        rows: R of each split; each row a digit, noise and time of its own.
        steps: times are those at which a sampler of so many steps asks its denoiser; None: any from 0 to 1.
        source: the folder of the digits.
        seed: of digits, noise and times.

    Returns:
        noisy (R, 65), the noisy digit from -1 to 1 and its time; velocity (R, 64), what a denoiser learns to say of it.
    """
    x, random = digits(split, source), _random(split, seed)
    count = rows[split]
    x = x[random.integers(len(x), size=count)]
    t = random.random((count, 1)) if steps is None else random.integers(1, steps + 1, (count, 1)) / steps
    e = random.standard_normal(x.shape)
    cosine, sine = np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)
    noisy = np.hstack([cosine * x + sine * e, t])
    return {"noisy": noisy.astype(np.float32), "velocity": (cosine * e - sine * x).astype(np.float32)}


def digits(split: str, source: str = "./data/digits") -> NDArray[np.float32]:
    """The digits of a split, their pixels from -1 to 1: (R, 64)."""
    config = TransferSetConfig(name="digits", source=source, inputs=("image",), label=None, prepare=_HALF)
    images = np.asarray(load_transfer_set(config, split).inputs, np.float32)
    return images.reshape(len(images), -1) - np.float32(1)


def _random(split: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *split.encode()])
