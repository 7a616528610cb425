"""A working folder of its own for every command that a test runs, with its own cache of prepared inputs."""

from __future__ import annotations

import os
import shutil
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


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy store, and with the cache of its prepared rows."""
    folder = tmp_path_factory.mktemp("toy")
    toy.write_store(folder / "store")
    return folder


@pytest.fixture
def store(work: Path, toy_store: Path) -> Path:
    """A copy of the toy store with the splits train and test."""
    shutil.copytree(toy_store, work, dirs_exist_ok=True)
    return work / "store"


@pytest.fixture
def softlabels(work: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as a user does, in a process of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "softlabels_stages", *words]
        return subprocess.run(command, cwd=work, env=os.environ, capture_output=True, text=True, timeout=200)

    return run
