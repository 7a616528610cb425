"""The benchmark runs from end to end, and both ways give the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import zarr_encoding


@pytest.mark.slow
def test_both_ways_give_the_same_bytes(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    zarr_encoding.main(["--classes", "10", "--rounds", "1", "--rows-per-shard", "512", f"--output={out}"])
    lines = [line for line in out.read_text().splitlines() if line.startswith("| 10 |")]
    assert len(lines) == 8
    assert all(line.endswith("| yes |") for line in lines)
