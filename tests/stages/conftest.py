"""A working folder of its own for every command that a test runs, with its own cache of prepared inputs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages import toy

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder while the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture
def store(work: Path) -> Path:
    """The toy store with the splits train and test."""
    return toy.write_store(work / "store")


@pytest.fixture
def softlabels(work: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as a user does, in a process of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "softlabels_stages", *words]
        return subprocess.run(command, cwd=work, env=os.environ, capture_output=True, text=True, timeout=200)

    return run
