"""A run that is killed, however often and wherever, ends with the weights and metrics of a run that was not: bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.student import runs

REPOSITORY = Path(__file__).parents[2]


class Server:
    """Starts runs in processes of their own; see `runs`."""

    def __init__(self) -> None:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.student.runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | threads | {"PYTHONPATH": str(REPOSITORY)},
        )

    def start(self, folder: Path, *, epochs: int = 4, sweep: bool = False, die_at: int | None = None) -> int:
        return self._ask(json.dumps({"folder": str(folder), "epochs": epochs, "sweep": sweep, "die_at": die_at}))

    def wait(self) -> int:
        return self._ask("")

    def run(self, folder: Path, *, epochs: int = 4, sweep: bool = False, die_at: int | None = None) -> int:
        self.start(folder, epochs=epochs, sweep=sweep, die_at=die_at)
        return self.wait()

    def _ask(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    server.process.stdin.close()
    server.process.wait(timeout=60)
    server.process.stdout.close()


@pytest.fixture(scope="module")
def unbroken(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert server.run(folder) == 0
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
    runs.run(tmp_path / "run", seed=1)
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", unbroken)


def test_killed_at_random_moments(tmp_path: Path, server: Server, unbroken: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    begun = time.monotonic()
    assert server.run(tmp_path / "timed") == 0
    took = time.monotonic() - begun
    for trial in range(8):
        folder, kills = tmp_path / f"run{trial}", 0
        for _ in range(5):
            pid = server.start(folder)
            time.sleep(draw.uniform(0.0, 0.6 * took))
            os.kill(pid, signal.SIGKILL)
            kills += server.wait() == -signal.SIGKILL
        assert server.run(folder) == 0
        assert kills > 0
        assert_same_run(folder, unbroken)


def test_killed_before_every_flush_and_rename(tmp_path: Path, server: Server) -> None:
    unbroken = tmp_path / "unbroken"
    assert server.run(unbroken, epochs=2) == 0
    for call in range(1, 1000):
        folder = tmp_path / f"run{call}"
        status = server.run(folder, epochs=2, die_at=call)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert server.run(folder, epochs=2) == 0
        assert_same_run(folder, unbroken)
    assert call > 15  # every checkpoint alone makes three such calls


def test_a_sweep_with_everything_on_killed_at_random_moments(tmp_path: Path, server: Server) -> None:
    """Four students side by side with moving averages, bfloat16, accumulation, clipping and schedules."""
    unbroken, names = tmp_path / "unbroken", [f"s{n}" for n in range(len(runs.SWEEP))]
    begun = time.monotonic()
    assert server.run(unbroken, sweep=True) == 0
    took = time.monotonic() - begun
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw, total = random.Random(seed), 0
    for trial in range(4):
        folder = tmp_path / f"run{trial}"
        for _ in range(4):
            pid = server.start(folder, sweep=True)
            time.sleep(draw.uniform(0.1, 0.7) * took)
            os.kill(pid, signal.SIGKILL)
            total += server.wait() == -signal.SIGKILL
        assert server.run(folder, sweep=True) == 0
        for name in names:
            assert_same_run(folder / name, unbroken / name)
    assert total > 0
    weights = [(unbroken / name / "weights.safetensors").read_bytes() for name in names]
    assert len(set(weights)) == len(weights)
