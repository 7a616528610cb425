"""The benchmark runs from end to end; what it measures is not looked at, but that every way was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import positions


@pytest.mark.slow
def test_it_runs_on_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "keep_freed_memory", lambda: None)  # which is for the life of the process
    positions.main(["--rows=16", "--read=48", "--rounds=0", f"--output={tmp_path / 'page.md'}"])
    page = (tmp_path / "page.md").read_text()
    rows = [
        line
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith(("| how", "| store |", "| ---"))
    ]
    assert [row.split(" | ")[0] for row in rows] == [
        "| plain torch, 1 in memory", "| store of 1, zarr", "| plain torch, 3 in memory", "| store of 3, zarr",
        "| store of 3, arrow", "| flat, zarr", "| positions, zarr", "| flat, arrow", "| positions, arrow",
    ]  # fmt: skip
    assert page.count(" in CPU time, ") == 3
