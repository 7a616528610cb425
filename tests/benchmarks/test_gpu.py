"""The script for a GPU runs on a CPU, at small sizes, and its page says so; a question that fails does not hide the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import encode, fidelity

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def run(page: Path, seconds: str) -> int:
    given = {"PYTHON": sys.executable, "DEVICE": "cpu", "SIZE": "small", "OUTPUT": str(page), "SECONDS_EACH": seconds}
    return subprocess.run(["sh", str(SCRIPT)], env=os.environ | given, capture_output=True).returncode


@pytest.mark.slow
def test_every_question_has_its_section(tmp_path: Path) -> None:
    assert run(tmp_path / "page.md", "600") == 0
    page = (tmp_path / "page.md").read_text()
    assert "No GPU was at hand" in page
    sections = ["The same labels", "Encoding", "Teacher stage", "Fused loss", "A student's step"]
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == sections
    assert "Liger, fused linear forward KL | left out" in page


@pytest.mark.slow
def test_a_question_that_takes_too_long_is_said(tmp_path: Path) -> None:
    assert run(tmp_path / "page.md", "0.01") == 1
    assert (tmp_path / "page.md").read_text().count("Not answered: exit code 124") == 5


def test_one_question_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for question in (fidelity, encode):
        question.main(["--device=cpu", "--size=small"])
    said = capsys.readouterr().out
    assert "- dense, bytes that differ: logits 0.0e+00, shift 0.0e+00" in said
    assert said.count("| topk, lowrank | ") == 5 + 1
