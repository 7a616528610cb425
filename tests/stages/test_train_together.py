"""`train-student` by several processes: one run folder, one voice, the weights of one process; what is wrong is said once.

The command's own launcher, and torchrun, take seconds to start: marked slow. What is trained: tests/student/test_ranks.py.
"""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from softlabels_stages import train_student
from tests.stages.conftest import ROOT
from tests.stages.golden_order.make import COMMAND, HERE
from tests.student.runs import Server, server

WEIGHTS = "distilled-seed0/weights.safetensors"
WORDS = [word.replace("dropout: 0.1", "dropout: 0") for word in (*COMMAND, "--divide=batches")]
LONG = [word.replace("epochs=3", "epochs=40") for word in WORDS]


@pytest.fixture(scope="module")
def ranks() -> Server:
    return server("tests.student.rank_runs")


@pytest.fixture
def stored(work: Path) -> Path:
    """The current folder, with a store and nothing else."""
    return Path(shutil.copytree(HERE / "work" / "stores", work / "stores")).parent


def run(ranks: Server, work: Path, words: list[str], **more: Any) -> int:
    return ranks.run(world=2, folder=str(work), words=words, **more)


def said(work: Path) -> list[tuple[str, str]]:
    return [tuple((work / f"rank{rank}.{name}").read_text() for name in ("out", "err")) for rank in range(2)]  # type: ignore[misc]


def files_of(run: str) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in Path(run).rglob("*.*") if "tfevents" not in path.name)


def assert_near(one: str, other: str) -> None:
    ours, theirs = load_file(f"{one}/{WEIGHTS}"), load_file(f"{other}/{WEIGHTS}")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)


def test_two_processes_make_one_run(stored: Path, ranks: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_student.main([*WORDS, "--out=one"]) == 0
    assert run(ranks, stored, [*WORDS, "--out=two"]) == 0
    assert_near("one", "two")
    assert files_of("one") == files_of("two")
    (out, _), silent = said(stored)
    assert silent == ("", "")
    assert "2 processes, each with its part of every batch\n" in out
    shown = capsys.readouterr().out
    assert [line for line in out.splitlines() if " left" not in line][-6:-1] == shown.splitlines()[-6:-1]
    assert run(ranks, stored, [*WORDS, "--out=two"]) == 0  # shown again
    assert said(stored)[0][0].splitlines()[-1] == out.splitlines()[-1]
    assert said(stored)[1] == ("", "")


@pytest.mark.slow
def test_students_in_pieces_make_the_same_run(stored: Path, ranks: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_student.main([*WORDS, "--out=one"]) == 0
    assert run(ranks, stored, [*WORDS, "--shard=true", "--out=two"]) == 0
    assert_near("one", "two")
    assert files_of("one") == files_of("two")
    out, shown = said(stored)[0][0], capsys.readouterr().out
    assert [line for line in out.splitlines() if " left" not in line][-6:-1] == shown.splitlines()[-6:-1]
    assert said(stored)[1] == ("", "")


def test_what_is_wrong_is_said_once(stored: Path, ranks: Server) -> None:
    assert run(ranks, stored, [word.replace("size=32", "size=1") for word in WORDS]) == 2
    assert sorted(err for _, err in said(stored)) == [
        "",
        "ConfigError: batch_size is 1, and each of 2 processes needs a row of every batch; start fewer processes, or give "
        "another batch_size, such as 2\n",
    ]
    assert run(ranks, stored, WORDS, words_of={"1": ["--loss=js"]}) == 2
    [error] = [err for _, err in said(stored) if err]
    assert error.startswith(
        "SpecMismatch: rank 1 of 2 would train something else than rank 0: training.distilled-seed0.loss: "
    )
    assert run(ranks, stored, WORDS, words_of={"1": ["--config=nowhere"]}) == 2
    assert [err.partition(":")[0] for _, err in said(stored)] == ["", "ConfigError"]
    assert run(ranks, stored, [*WORDS, "--processes=3"]) == 2
    [error] = [err for _, err in said(stored) if err]
    assert "--processes=3, and 2 processes were started together" in error
    assert not Path("runs").exists()


def command(*words: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **more,
    )


@pytest.mark.slow
def test_processes_and_torchrun_start_them(stored: Path) -> None:
    assert train_student.main([*WORDS, "--out=one"]) == 0
    launched = command("-m", "softlabels_stages", "train-student", *WORDS, "--out=two", "--processes=2")
    out, err = launched.communicate(timeout=120)
    assert launched.returncode == 0, err
    assert out.count("run two; try next") == 1
    assert_near("one", "two")
    by_torch = ("-m", "torch.distributed.run", "--nproc-per-node=3", "-m", "softlabels_stages.train_student")
    launched = command(*by_torch, *WORDS, "--out=three")
    out, err = launched.communicate(timeout=120)
    assert launched.returncode == 0, err
    assert_near("one", "three")


def await_first_epoch(launched: subprocess.Popen[str]) -> None:
    while not Path("two/distilled-seed0/metrics.jsonl").exists():
        assert launched.poll() is None, launched.communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_nothing_that_a_neighbour_sends_is_unpickled(stored: Path) -> None:
    launched = command("-m", "softlabels_stages", "train-student", *LONG, "--out=two", "--processes=2")
    await_first_epoch(launched)
    ports = listening(launched.pid)
    assert ports
    for port in ports:
        board = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=10))
        board.set(f"torch.rendezvous.softlabels-{launched.pid}", base64.b64encode(pickle.dumps(Touches())).decode())
    time.sleep(6)  # torch's rendezvous looks every 5 seconds
    launched.send_signal(signal.SIGTERM)
    _, err = launched.communicate(timeout=120)
    assert launched.returncode == 75, err
    assert not Path("touched").exists()


def listening(pid: int) -> set[int]:
    """The ports at which a process listens."""
    sockets = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    tables = (Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


class Touches:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("touched"),)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_at_one_step_and_the_command_goes_on(
    stored: Path, ranks: Server, number: signal.Signals
) -> None:
    words = ["-m", "softlabels_stages", "train-student", *LONG, "--out=two", "--processes=2"]
    launched = command(*words)
    await_first_epoch(launched)
    launched.send_signal(number)
    _, err = launched.communicate(timeout=120)
    assert launched.returncode == 75, err
    assert err.count("Interrupted: stopped in epoch ") == 1
    again = command(*words)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert run(ranks, stored, [*LONG, "--out=whole"]) == 0
    assert Path(f"two/{WEIGHTS}").read_bytes() == Path(f"whole/{WEIGHTS}").read_bytes()
