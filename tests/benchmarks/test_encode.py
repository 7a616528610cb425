"""The benchmark runs from end to end; both sides give labels of one content digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import encode


@pytest.mark.slow
def test_it_runs_on_few_rows(tmp_path: Path) -> None:
    out, own = tmp_path / "page.md", Path(encode.__file__).parents[1]
    encode.main(["--part", "64", "--rounds", "1", "--cases", "dense", "wide", f"--beside={own}", f"--output={out}"])
    page = out.read_text()
    assert page.count("| equal |") == 4
    assert "DIFFERENT" not in page
