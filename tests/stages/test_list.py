"""Which stores lie at an address, on a disk; tests/jobs/test_share.py lists a bucket."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from softlabels.store import open_store
from softlabels_stages.__main__ import main


def test_every_store_below_is_a_line(store: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(store, work / "team" / "deep" / "toy")
    (work / "team" / "deep" / "toy" / "test" / "manifest.json").unlink()
    (work / "team" / "bad").mkdir()
    (work / "team" / "bad" / "plan.json").write_text("{}")
    (work / "team" / "toy" / "set_aside" / "1").mkdir(parents=True)
    shutil.copy(store / "train" / "plan.json", work / "team" / "toy" / "set_aside" / "1")
    assert main(["list", "team"]) == 0
    out, err = capsys.readouterr()
    digest, size = open_store(store / "train").digest, open_store(store / "train").manifest.bytes
    assert out.splitlines() == [
        "team/deep/toy/test: imaginary (2 members), points, test, 80 rows, dense, zarr, UNFINISHED",
        f"team/deep/toy/train: imaginary (2 members), points, train, 160 rows, dense, zarr, {size:,} bytes, digest {digest}",
    ]
    assert "DamagedManifest: team/bad/plan.json does not fit the format" in err


def test_whether_a_pass_is_done(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads((store / "train" / "manifest.json").read_bytes())
    assert main(["list", str(store), "--data=points", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["split"] for each in found] == ["test", "train"]
    keys = plan["spec"]["transfer_set"]["content_keys"]
    assert found[1]["content_keys"] == keys
    assert main(["list", str(store), f"--data={keys[:12]}"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    for words, what in (
        ([f"--data={keys[:4]}"], "no finished store of this teacher and these rows"),
        (["--teacher_digest=00000000"], "no finished store of"),
        (["--teacher_digest=xyz"], "give 8 hexadecimal digits or more"),
    ):
        assert main(["list", str(store), *words]) == 2
        assert what.partition(" .*")[0] in capsys.readouterr().err
    assert main(["list", "nowhere"]) == 2
    assert "StorePathError: nowhere holds no store" in capsys.readouterr().err
    assert main(["list"]) == 2
