"""The benchmark runs from end to end, and what it takes away can be taken away."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import checks


@pytest.mark.slow
def test_it_runs_on_few_rows(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    sizes = ["--rows=600", "--labelled=512", "--classes=10", "--hidden=8", "--rounds=1"]
    checks.main([*sizes, f"--output={out}"])
    page = out.read_text()
    assert all(page.count(f"| {way} |") == 1 for way in checks.WAYS)
    assert page.count("| zarr, check: first |") == page.count("| arrow, check: never |") == 4
