"""The benchmark runs from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import workers


@pytest.mark.slow
@pytest.mark.slow
def test_it_runs_on_few_rows(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    sizes = ["--shards=4", "--batches=1", "--classes=10", "--hidden=8", "--seconds=0.01", "--rounds=1"]
    workers.main([*sizes, f"--output={out}"])
    page = out.read_text()
    assert all(page.count(f"| {kind} | {count} |") == 1 for kind in ("computes", "waits") for count in workers.COUNTS)
