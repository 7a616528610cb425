"""The same numbers each time: one CPU thread in every test and in every process that it starts, and seeds made of names."""

from __future__ import annotations

import gc
import hashlib
import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
os.environ["SOFTLABELS_REPORT"] = "0"  # page and pictures cost more than most runs of tests; they have own tests

import random
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

FIXED = "0"
MEMORY = Path("/dev/shm")  # where there is much room, tests write there, and no flush waits for a disk
ROOM = 8 << 30  # bytes: several times what all tests write
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "a number that every test's seed is made of, with the test's name; fresh: a new one, which is printed"
    parser.addoption("--rng-seed", default=FIXED, help=told)
    parser.addoption(
        "--golden-update", action="store_true", help="write tests/messages.txt as the code has the messages now"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.rng_seed == "fresh":  # the environment, since workers (-n) are given the same words
        config.option.rng_seed = os.environ.setdefault("TESTS_RNG_SEED", str(secrets.randbits(32)))
    by_time = hypothesis.HealthCheck.too_slow
    hypothesis.settings.register_profile(
        "tests", derandomize=config.option.rng_seed == FIXED, deadline=None,
        suppress_health_check=[by_time, hypothesis.HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    hypothesis.settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Modules and tests are there to the end: no search for garbage goes through them, now, later, or in a fork."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_report_header(config: pytest.Config) -> str:
    return f"--rng-seed={config.option.rng_seed}"


@pytest.fixture(scope="session")
def rng_of(pytestconfig: pytest.Config) -> Callable[[str], np.random.Generator]:
    """Random numbers that a name and `--rng-seed` decide, in every process and on every machine."""

    def make(name: str) -> np.random.Generator:
        words = f"{pytestconfig.option.rng_seed} {name}"
        return np.random.default_rng(list(hashlib.sha256(words.encode()).digest()))

    return make


@pytest.fixture
def rng(request: pytest.FixtureRequest, rng_of: Callable[[str], np.random.Generator]) -> np.random.Generator:
    """The test's own random numbers; where it fails, the option that gives them again is printed."""
    print(f"--rng-seed={request.config.option.rng_seed}")
    return rng_of(request.node.nodeid)


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Records of the runs that tests make: none of them is the user's."""
    os.environ["SOFTLABELS_STATE"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def _plots(pytestconfig: pytest.Config) -> Iterator[None]:
    """The script of plots takes seconds to make: it is made once for all processes, now and the next time."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("plots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softlabels.pages.bundle.default_cache", lambda: folder)
        yield


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest, rng_of: Callable[[str], np.random.Generator]) -> None:
    """The global generators begin each test alike, whichever ran before it."""
    seed = int(rng_of(f"global {request.node.nodeid}").integers(1 << 32))
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` formats the stack for each device that is not there
