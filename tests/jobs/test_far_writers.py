"""Stores that are written where they will lie: on a real S3 server by workers that are killed, and where a server lies or an
answer is lost.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import obstore
import pytest

from softlabels import open_store
from softlabels.store.verify import verify
from softlabels.system.urls import depot_of
from tests.jobs.test_jobs import work
from tests.jobs.test_workers import DENSE, SHARDS, whole

__all__ = ["work"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kills", "seed"), [(2, 1), pytest.param(20, 2, marks=pytest.mark.slow)])
def test_workers_that_are_killed_write_the_store_of_one_on_a_disk(
    kills: int, seed: int, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "tests.jobs.killed", s3, str(kills), str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    expected = whole(DENSE)
    for number in range(int(ended.stdout)):
        place = f"{s3}/{number}"
        assert {split: open_store(place, split=split).digest for split in SHARDS} == expected
        assert all(verify(f"{place}/{split}") == [] for split in SHARDS)
        assert [name for name in depot_of(place).list() if "staging" in name] == []
