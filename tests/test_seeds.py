"""The gate's random numbers are the same each time, whatever runs before a test; `--rng-seed` draws others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DRAWING = """
import json, os, pathlib, random
import hypothesis, numpy as np, pytest, torch

DRAWN = []

@pytest.fixture(scope="module")
def wide(rng_of):
    return rng_of("wide").random()

@hypothesis.given(hypothesis.strategies.integers(0, 2**60))
def test_examples(number):
    DRAWN.append(number)

def test_first():
    torch.rand(1), np.random.random(), random.random()

def test_drawn(rng, wide):
    numbers = [rng.random(), wide, random.random(), np.random.random(), torch.rand(1).item(), DRAWN[-20:]]
    pathlib.Path(os.environ["DRAWN"]).write_text(json.dumps(numbers))
"""


def drawn(folder: Path, *words: str) -> list[object]:
    """What a run of pytest with these words drew: by `rng`, for a module, by three global generators, as examples."""
    (folder / "test_drawing.py").write_text(DRAWING)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TESTS_RNG_SEED"))}
    environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "DRAWN": str(folder / "drawn.json")}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-p", "tests.conftest", "-p", "no:cacheprovider",
         f"--rootdir={folder}", f"--confcutdir={folder}", *words, str(folder)],
        cwd=ROOT, env=environ, check=True,
    )  # fmt: skip
    numbers: list[object] = json.loads((folder / "drawn.json").read_text())
    return numbers


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    return drawn(tmp_path_factory.mktemp("fixed"))


@pytest.mark.slow
def test_a_test_draws_the_same_whatever_runs_before_it(tmp_path: Path, fixed: list[object]) -> None:
    assert drawn(tmp_path, "--deselect=test_drawing.py::test_first") == fixed


@pytest.mark.slow
def test_fresh_numbers_are_printed_and_come_again(
    tmp_path: Path, fixed: list[object], capfd: pytest.CaptureFixture[str]
) -> None:
    fresh = drawn(tmp_path, "-v", "--rng-seed=fresh", "-n1")
    seed = capfd.readouterr().out.split("--rng-seed=")[1].split()[0]
    assert drawn(tmp_path, f"--rng-seed={seed}")[:5] == fresh[:5]  # but for hypothesis, which prints its own
    assert all(one != other for one, other in zip(fresh, fixed, strict=True))
