"""The benchmark runs from end to end; what it measures is not looked at, but that it measured every variant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import student


def test_it_runs_on_made_up_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student, "TEACHER", (12, 12))
    monkeypatch.setattr(student, "STUDENT", (9, 9))
    student.main(["--quick", f"--output={tmp_path / 'page.md'}"])
    page = (tmp_path / "page.md").read_text()
    numbers = r"(?:[\d.e+]+ \| ){2}(?:1 \| 1|[\d.]+ \([\d.]+ to [\d.]+\) \| [\d.]+ \([\d.]+ to [\d.]+\)) \|"
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith(("| how", "| ---"))]
    assert all(re.fullmatch(r"\| [^|]+ \| " + numbers, row) for row in rows)
    assert len(rows) == 2 + 2 * 8 + 2 * 2
    assert page.count("## ") == 5
    assert page.startswith("# ")
    assert "Made-up rows" in page


def test_it_asks_for_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTLABELS_DATA", raising=False)
    with pytest.raises(SystemExit, match="rows of MNIST"):
        student.main([])
