"""info, verify and convert from the outside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.store import open_store
from stages import convert, info, verify
from tests.stages.test_teacher_logits import label


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    return err


def test_info_says_what_a_store_is_in_ten_lines(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([str(store / "train")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    said = dict(line.split(maxsplit=1) for line in lines)
    assert said["digest"] == open_store(store / "train").digest
    assert said["teacher"].startswith("imaginary, 2 members")
    assert "kind 0, kind 1" in said["classes"]


def test_info_of_an_unfinished_store_says_so(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "train" / "manifest.json").unlink()
    assert info.main([str(store), "--split=train", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["sealed"], facts["digest"], facts["shards"], facts["shards_done"]) == (False, None, 3, 3)


@pytest.mark.parametrize("command", [info, verify, convert])
def test_a_path_without_a_store(command: object, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = [] if command is not convert else ["copy"]
    assert command.main(["nowhere", *target]) == 2  # type: ignore[attr-defined]
    assert "StorePathError: nowhere does not exist" in one_line(capsys)
    Path("file").write_text("")
    assert command.main(["file", *target]) == 2  # type: ignore[attr-defined]
    assert "StorePathError: file is a file; a store is a folder" in one_line(capsys)


def test_verify_passes_a_sound_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(store)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{store}: every byte is as it was sealed"


def test_verify_names_every_damaged_and_missing_chunk(
    store: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    damaged, missing = store / "train" / "logits" / "c.1.0.0", store / "train" / "shift" / "c.2.0"
    data = bytearray(damaged.read_bytes())
    at = int(rng.integers(32 * 2 * 5 * 2 + 4))  # a byte of the first chunk
    data[at] ^= 1
    damaged.write_bytes(data)
    missing.unlink()
    assert verify.main([str(store)]) == 3
    said = capsys.readouterr()
    assert "shard 1: logits/c.1.0.0: chunk 0 of column logits differs from its digest; get this file again" in said.err
    assert "shard 2: shift/c.2.0: shard 2 is missing" in said.err
    assert "2 problems" in said.out
    assert said.out.splitlines()[-1] == f"{store}: 2 problems"


def test_verify_of_an_unsealed_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "train" / "manifest.json").unlink()
    assert verify.main([str(store / "train")]) == 2
    assert "is unfinished: 3 of 3 shards are committed and it has no manifest.json; run the command" in one_line(capsys)


def test_verify_against_the_live_teacher(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store") == 0
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 0
    assert "against the live teacher: largest deviation of a logit " in capsys.readouterr().out
    text = Path("recipe.yaml").read_text()
    Path("recipe.yaml").write_text(
        text.replace("tests.stages.toy.points", "tests.stages.toy.points\n    init_args: {noise: 2}")
    )
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 2
    assert "UnlabelledRows: " in one_line(capsys)


@pytest.mark.parametrize("split", [None, "train"])
def test_convert_there_and_back(split: str | None, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = store if split is None else store / split
    assert convert.main([str(source), "arrow"]) == 0
    assert "(unchanged)" in capsys.readouterr().out
    assert convert.main(["arrow", "back", "--compression=zstd"]) == 0
    for each in ("train", "test") if split is None else (None,):
        stores = [open_store(path, split=each) for path in (source, "arrow", "back")]
        assert [one.layout for one in stores] == ["zarr", "arrow", "zarr"]
        assert len({one.content_digest for one in stores}) == 1
        assert len({one.digest for one in stores}) == 3
        assert len({one.manifest.fidelity["4"] for one in stores}) == 1
    assert verify.main(["back"]) == 0


def test_convert_refuses_a_damaged_source_and_a_taken_target(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(store, "taken")
    assert convert.main([str(store / "train"), "taken/test"]) == 2
    assert "SpecMismatch: taken/test was begun with another specification" in one_line(capsys)
    (store / "train" / "logits" / "c.0.0.0").write_bytes(b"")
    assert convert.main([str(store), "copy"]) == 3
    assert "DamagedShard: shard 0 is damaged: " in one_line(capsys)
    assert not Path("copy/train/manifest.json").exists()


def test_convert_does_not_write_into_its_source(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in (store / "sub", store / "train" / "sub"):
        assert convert.main([str(store), str(target)]) == 2
        assert "give a target beside the source" in one_line(capsys)
    assert convert.main([str(store / "train"), str(store / "train" / "sub")]) == 2
    assert "StorePathError: " in one_line(capsys)
    assert verify.main([str(store)]) == 0


def test_a_stopped_convert_says_how_to_go_on(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr(convert, "should_stop", lambda: next(answers))
    assert convert.main([str(store / "train"), "copy"]) == 75
    assert "Interrupted: 2 shards are left; run the same command again to go on" in capsys.readouterr().err
    monkeypatch.setattr(convert, "should_stop", lambda: False)
    assert convert.main([str(store / "train"), "copy"]) == 0
    assert open_store("copy").content_digest == open_store(store / "train").content_digest


def test_a_sample_of_no_rows_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(store), "--against-teacher=recipe.yaml", "--sample=0"]) == 2
    assert "ConfigError: --sample=0; give 1 row or more" in one_line(capsys)
