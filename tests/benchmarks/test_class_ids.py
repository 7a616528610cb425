"""The benchmark runs from end to end; each way gives back the ids, which it asserts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import class_ids


@pytest.mark.slow
def test_it_runs_on_few_positions(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    class_ids.main(
        ["--classes", "300", "70000", "--stored", "4", "--positions", "70", "--rounds", "1", f"--output={out}"]
    )
    page = out.read_text()
    assert all(page.count(f"| {name} |") == 2 for name, _ in class_ids.WAYS)
