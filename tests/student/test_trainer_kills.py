"""A run that is killed before any of its flushes or renames ends as one that was not: the same weights and metrics in bits.

Kills at other moments, often: tests/faults/trials_training.py.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.student import runs
from tests.student.runs import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("tests.student.runs")
    yield server
    server.close()


@pytest.fixture(scope="module")
def unbroken(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert server.run(folder=str(folder), epochs=2, die_at=None) == 0
    return folder


def assert_same_run(folder: Path, unbroken: Path) -> None:
    assert (folder / "weights.safetensors").read_bytes() == (unbroken / "weights.safetensors").read_bytes()
    assert lines(folder) == lines(unbroken)
    visible = [{path.name for path in run.iterdir() if path.name[0] != "."} for run in (folder, unbroken)]
    assert visible[0] == visible[1]


def lines(folder: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("times", None)
    return found


def test_the_comparison_notices_another_run(tmp_path: Path, unbroken: Path) -> None:
    runs.run(tmp_path / "run", epochs=2, seed=1)
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", unbroken)


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_every_flush_and_rename(step: int, tmp_path: Path, server: Server, unbroken: Path) -> None:
    for call in range(1, 1000, step):
        folder = tmp_path / f"run{call}"
        status = server.run(folder=str(folder), epochs=2, die_at=call)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert server.run(folder=str(folder), epochs=2, die_at=None) == 0
        assert_same_run(folder, unbroken)
    assert call > 15  # every checkpoint alone makes three such calls
