"""One CPU thread in every test and in every process that a test starts: the same numbers each time, and no crowding."""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh random input every time; a failure prints the seed, and `--rng-seed` gives it again."""
    given = request.config.getoption("--rng-seed")
    seed = np.random.SeedSequence().entropy if given is None else int(given)
    print(f"--rng-seed={seed}")
    return np.random.default_rng(seed)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rng-seed", default=None, help="seed of the `rng` fixture, as a failed test printed it")
