"""Processes that a command starts together: their exit codes and signals, without training; a shell stands in for Python."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from softlabels.errors import Interrupted, RankLost
from softlabels_stages import processes, run
from softlabels_stages.processes import end_with_launcher, launch


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is run is the script in the first of the words."""
    program = tmp_path / "shell"
    program.write_text('#!/bin/sh\neval "$3"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("test $RANK = 1 || exit 75; exit 2", 2),
        ("test $RANK = 0 || sleep .2; exit $((75 - 73 * $RANK))", 2),
        ("exit 75", 75),
    ],
)
def test_the_exit_code_is_that_of_what_failed(shell: Path, script: str, code: int) -> None:
    assert launch("x", [script], 2) == code


def test_each_is_told_its_place(shell: Path) -> None:
    assert launch("x", ["echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE > $RANK; test -n $MASTER_PORT"], 3) == 0
    assert [(shell / str(rank)).read_text() for rank in range(3)] == [f"{rank} {rank} 3 3\n" for rank in range(3)]


def test_one_that_is_killed_is_named_and_the_others_are_ended(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.2)
    with pytest.raises(RankLost, match="process 1 of 2 was ended by SIGKILL; run the same command again"):
        launch("x", ["echo $$ > $RANK; test $RANK = 1 || exec sleep 60; kill -9 $$"], 2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((shell / "0").read_text()), 0)


def test_a_signal_is_handed_on_once_and_also_where_it_came_early(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "should_stop", lambda: True)
    with pytest.raises(Interrupted, match="stopped before anything was trained"):
        launch("x", ["exec sleep 60"], 2)
    monkeypatch.setattr(processes, "should_stop", lambda: (shell / "0").exists() and (shell / "1").exists())
    waiting = (
        "trap 'echo >> got$RANK' TERM; echo > $RANK; while ! test -s got$RANK; do sleep .02; done; sleep .3; exit 75"
    )
    assert launch("x", [waiting], 2) == 75
    assert (shell / "got0").read_text() == (shell / "got1").read_text() == "\n"


def test_the_system_ends_those_whose_command_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (command := os.fork()) == 0:
        monkeypatch.setenv(run.LAUNCHER, str(os.getpid()))
        if (started := os.fork()) == 0:
            end_with_launcher()
            (tmp_path / "on").touch()
            signal.pause()
        while not (tmp_path / "on").exists():
            time.sleep(0.01)
        (tmp_path / "pid").write_text(str(started))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(command, 0)
    state = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    with suppress(FileNotFoundError, ProcessLookupError):  # once it is gone
        while " Z " not in state.read_text():  # which its new parent may not have asked about
            time.sleep(0.01)
