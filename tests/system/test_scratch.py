"""The folder of a command that works: it goes with the command, and what a killed one left goes with the next."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from softlabels.system.scratch import scratch

PREFIX = "softlabels-mine-"


@pytest.fixture
def above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed(above: Path) -> Path:
    """The folder of a process that was killed while it worked."""
    child = os.fork()
    if not child:
        with scratch(PREFIX) as folder:
            (folder / "pass").mkdir()
            (folder / "pass" / "chunk").write_bytes(bytes(100))
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    [left] = [folder for folder in above.glob(f"{PREFIX}*") if (folder / "pass").exists()]
    return left


def test_it_goes_with_its_block(above: Path) -> None:
    with scratch(PREFIX) as folder:
        (folder / "chunk").write_bytes(b"1")
        assert folder.stat().st_mode & 0o077 == 0  # nobody else's
    assert list(above.iterdir()) == []


def test_the_next_one_removes_what_a_killed_one_left_and_nothing_else(
    above: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (above / "kept").mkdir()
    (above / f"{PREFIX}link").symlink_to(above / "kept")
    (above / f"{PREFIX}file").write_text("a user's")
    (above / "softlabels-other-1").mkdir()
    before = set(above.iterdir())
    left = killed(above)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with scratch(PREFIX):
            assert left.exists()  # it is another user's
    with scratch(PREFIX) as folder, scratch(PREFIX) as beside:
        assert set(above.iterdir()) - before == {folder, beside}  # the first is alive
        assert not left.exists()
    assert set(above.iterdir()) == before
