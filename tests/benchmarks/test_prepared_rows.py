"""The benchmark of opening prepared rows runs from end to end; what it measures is not looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import prepared_rows


@pytest.mark.slow
def test_the_page_has_both_kinds_of_pictures(tmp_path: Path) -> None:
    prepared_rows.main(["--rows=80", "--photographs=5", "--rounds=1", f"--output={tmp_path / 'page.md'}"])
    rows = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith(("| 80 ", "| 5 "))]
    assert [row.split(" of ")[0] for row in rows] == ["| 80 PNG", "| 5 JPEG"]
