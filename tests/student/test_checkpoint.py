"""A checkpoint knows where its run was, and a resume elsewhere says so before it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from softlabels.errors import Interrupted
from softlabels.student import checkpoint
from tests.student import runs


def stopped(folder: Path) -> None:
    """A run that was stopped after five steps."""
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        runs.run(folder, lambda: next(asked) == 5, epochs=2)


def test_a_resume_elsewhere_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path / "run")
    here = checkpoint.environment()
    monkeypatch.setattr(checkpoint, "environment", lambda: here | {"torch": "9.9", "threads": 99})
    runs.run(tmp_path / "run", epochs=2)
    [said] = caplog.messages
    assert "resumes in another environment, and its last bits may differ: " in said
    assert f"threads: {here['threads']} before, 99 now; torch: " in said
    assert '"9.9" now' in said
    assert "processor" not in said


def test_a_resume_in_the_same_place_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stopped(tmp_path / "run")
    runs.run(tmp_path / "run", epochs=2)
    assert not caplog.messages


def test_what_decides_the_last_bits_is_recorded() -> None:
    found = checkpoint.environment()
    assert {"torch", "numpy", "python", "processor", "cpu_capability", "gpu", "threads"} <= found.keys()
    assert found["processor"]
