"""The benchmark runs from end to end, and no process reads more than its part."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import parts


@pytest.mark.slow
def test_the_page_has_every_world(tmp_path: Path) -> None:
    parts.main(["--rows=20000", "--rounds=1", f"--output={tmp_path / 'page.md'}"])
    lines = [line.split(" | ") for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| ")][2:]
    assert len(lines) == 2 * (1 + 3 + 3)
    shares = {(line[0], line[1]): float(line[4]) for line in lines if line[2] == parts.PARTS}
    assert len(shares) == 4
    assert all(share <= 1.2 / int(world) for (_, world), share in shares.items())
