"""teacher-logits from the outside: what it stores and says, how it survives a stop and a full disk, what it refuses."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from softlabels.models import build_model, save_weights
from softlabels.store import open_store, store_splits
from softlabels.store.verify import verify
from softlabels.teacher.config import MemberConfig
from softlabels_stages import info, teacher_logits
from tests.stages import toy
from tests.stages.kills import digests

LAYOUTS = ("zarr", "arrow")
TOPK = {"encoding": "topk", "k": 2, "tail": "lowrank", "rank": 2}
Softlabels = Callable[..., subprocess.CompletedProcess[str]]


def write_recipe(path: Path, *, model: str = "Slow", seconds: float = 0.0, labels: Any = None, **changes: Any) -> Path:
    """A recipe with a teacher of two random models whose weights lie beside it."""
    members = []
    for number in range(2):
        member = {"class_path": f"tests.teacher.models.{model}", "init_args": {"features": 6, "classes": 5}}
        if model == "Slow":
            member["init_args"]["seconds"] = seconds
        weights = path.parent / f"member-{number}.safetensors"
        if not weights.exists():
            torch.manual_seed(number)
            save_weights(build_model(MemberConfig(**member).model), weights)
        members.append({**member, "weights": str(weights), "weight": number + 1})
    teacher = {"name": "pair", "members": members, "batch_size": 16, "device": "cpu"}
    cut = {"rows_per_shard": 32, "rows_per_chunk": 16}
    return toy.write_recipe(path, teacher=teacher, labels={**cut, **(labels or {})}, **changes)


def label(store: str, *words: str, **recipe: Any) -> int:
    write_recipe(Path("recipe.yaml"), **recipe)
    return teacher_logits.main(["--config", "recipe.yaml", f"--store={store}", *words])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_split_is_stored_and_described(layout: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store", labels={"layout": layout, "licence": "CC0"}) == 0
    out = capsys.readouterr().out
    assert "pair: 2 members in float32, 5 classes; points: test 80, train 160, validation 40 rows" in out
    assert "to write: 10 of 10 shards, " in out
    assert "test: first shard at " in out
    last = r"sealed: store \(look: \S*softlabels info store; train: \S*softlabels train-student --config=recipe.yaml --store=.*"
    assert re.fullmatch(last, out.splitlines()[-1])

    assert info.main(["store", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {split: each["rows"] for split, each in facts.items()} == {"train": 160, "validation": 40, "test": 80}
    train = facts["train"]
    assert (train["classes"], train["members"], train["layout"], train["sealed"]) == (5, 2, layout, True)
    assert set(train["fidelity"]["4"]) == {"kl_mean", "kl_max", "tail_mass_error", "top1_agreement"}
    assert train["fidelity"]["1"]["kl_max"] < 1e-5
    assert train["bytes_per_position"] == 2 * (5 * 2 + 4)
    assert [member["weight"] for member in train["teacher"]["members"]] == [1, 2]
    assert train["encoding"] == {"kind": "dense", "reduce": "none", "inputs": "reference"}
    assert all(not verify(path) for path in store_splits("store").values())

    card = Path("store/train/README.md").read_text()
    for words in ("**pair**", "**points**", "data: CC0", "5 classes (kind 0", "| 20 |", train["digest"]):
        assert words in card
    assert Path("store", "zarr.json" if layout == "zarr" else "dataset_dict.json").exists()


def test_a_sealed_store_is_left_as_it_is(work: Path) -> None:
    assert label("store") == 0
    before = {path: path.stat().st_mtime_ns for split in toy.ROWS for path in Path("store", split).rglob("*")}
    assert label("store") == 0
    assert {path: path.stat().st_mtime_ns for split in toy.ROWS for path in Path("store", split).rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"layout": "arrow"}}, 'labels.layout: "zarr" here, "arrow" in this run'),
        ({"labels": {"rows_per_shard": 64}}, "labels.rows_per_shard: 32 here, 64 in this run"),
        ({"words": ["--teacher.batch_size=8"]}, "teacher.batch_size: 16 here, 8 in this run"),
        ({"labels": TOPK}, '(labels.encoding, kind: "dense" here, "topk" in this run);'),
        ({"words": ["--teacher.name=other"]}, 'teacher.name: "pair" here, "other" in this run'),
    ],
)
def test_another_specification_is_refused_field_by_field(
    change: dict[str, Any], message: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label("store") == 0
    before = digests("store")
    assert label("store", *change.pop("words", []), **change) == 2
    assert message in capsys.readouterr().err
    assert digests("store") == before


def test_a_licence_that_changes_later_is_not_taken_silently(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store", labels={"licence": "CC0"}) == 0
    (Path("store") / "train" / "manifest.json").unlink()
    capsys.readouterr()
    assert label("store", "--teacher.licence=MIT", labels={"licence": "CC0"}) == 0
    said = "{} keeps the teacher licence that it was begun with ('', not 'MIT'); for another one, make the store anew"
    out = capsys.readouterr().out
    assert all(said.format(f"store/{split}") in out for split in toy.ROWS)
    assert "transfer licence" not in out
    assert open_store("store", split="train").manifest.about.teacher_licence == ""


def test_what_is_computed_from_a_recipe_is_named_by_the_keys_that_it_has(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label("store", labels=TOPK) == 0
    changed = TOPK | {"k": 3, "min_temperature": 0.5}
    assert label("store", labels=changed) == 2
    said = "(labels.k: 2 here, 3 in this run; labels.min_temperature: 1.0 here, 0.5 in this run); go on with"
    assert said in capsys.readouterr().err


def test_other_weights_are_another_specification(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store") == 0
    Path("member-1.safetensors").unlink()
    torch.manual_seed(99)
    save_weights(build_model(MemberConfig("tests.teacher.models.Slow").model), Path("member-1.safetensors"))
    assert label("store") == 2
    assert "teacher.members[1].weights: " in capsys.readouterr().err


def test_sigterm_finishes_the_shard_and_says_how_to_go_on(work: Path) -> None:
    write_recipe(Path("recipe.yaml"), seconds=0.015)
    command = [sys.executable, "-m", "softlabels_stages", "teacher-logits", "--config=recipe.yaml", "--store=store"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(Path("store").glob("*/commits/*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 75
    assert "Interrupted: stopped with" in err
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    assert label("store") == 0
    assert label("other") == 0
    assert digests("store") == digests("other")


@pytest.mark.parametrize("layout", [LAYOUTS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in LAYOUTS[1:])])
def test_a_full_disk_keeps_the_store_resumable(layout: str, work: Path, softlabels: Softlabels) -> None:
    """A file size limit stands for the disk; the file that exceeds it is a shard's."""
    recipe = {"labels": {"layout": layout, "inputs": "embed", "rows_per_shard": 96, "rows_per_chunk": 96}}
    assert label("unbroken", **recipe) == 0
    whole = max(
        path.stat().st_size for path in Path("unbroken").rglob("*") if path.is_file() and path.suffix != ".json"
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 1, before[1]))
    try:
        found = softlabels("teacher-logits", "--config=recipe.yaml", "--store=store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found.returncode == 75, found.stderr
    assert found.stderr.startswith("DiskFull: cannot write ")
    assert "make room and run the same command again" in found.stderr
    assert "Traceback" not in found.stderr
    visible = {path.name for path in Path("store/train").rglob("*") if "staging" not in path.parts}
    assert not visible - {"commits", "plan.json"}
    assert label("store", **recipe) == 0
    assert digests("store") == digests("unbroken")


def test_it_does_not_begin_where_the_disk_cannot_hold_the_store(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(work)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert label("store") == 75
    assert (
        "bytes and the disk has 1,000 free; make room, or give a store path on another disk" in capsys.readouterr().err
    )
    assert not list(Path("store").glob("*/commits/*"))


@pytest.mark.parametrize(
    ("words", "recipe", "code", "message"),
    [
        (["--store=recipe.yaml"], {}, 2, "StorePathError: recipe.yaml is a file; a store is a folder"),
        (
            ["--store=full"],
            {},
            2,
            "StorePathError: full holds other files (thesis.tex); give the path of a store or of",
        ),
        ([], {"model": "NanAt", "words": ["--teacher.members=[]"]}, 2, "ConfigError: "),
        ([], {"model": "BatchStatistics"}, 2, "TeacherError: member 0 (tests.teacher.models.BatchStatistics)"),
        ([], {"labels": {"rows_per_chunk": 24}}, 2, "multiple of 16"),
        ([], {"labels": {"rows_per_shard": 40}}, 2, "rows_per_shard=40 is no multiple of rows_per_chunk=16"),
        ([], {"labels": {"colour": "red"}}, 2, "unknown key 'colour'"),
        ([], {"labels": {"layout": "csv"}}, 2, "labels.layout is 'csv'"),
        ([], {"labels": {"layout": "arrow", "compression": "zstd"}}, 2, "zstd needs layout: zarr"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_touched(
    words: list[str], recipe: dict[str, Any], code: int, message: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("years of work")
    extra = recipe.pop("words", [])
    assert label("store", *words, *extra, **recipe) == code
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert Path("full/thesis.tex").read_text() == "years of work"
    assert [path.name for path in Path("full").iterdir()] == ["thesis.tex"]
    assert not list(Path().glob("store/*/commits/*"))


@pytest.mark.parametrize(
    "begun", [{"encoding": "dense"}, TOPK | {"tail": "uniform"}, TOPK | {"tail": "prior"}, TOPK | {"rank": 1}]
)
def test_other_tails_are_refused_before_the_pilot(
    begun: dict[str, Any], work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert label("store", labels=begun) == 0
    capsys.readouterr()
    assert label("store", labels=TOPK) == 2
    said = capsys.readouterr()
    assert "pilot: " not in said.out
    assert said.err.startswith("SpecMismatch: store/test was begun with another specification (labels.")


def test_a_stray_file_beside_the_splits_is_named_and_left(
    work: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert label("store") == 0
    (Path("store") / "train" / "manifest.json").unlink()
    (Path("store") / ".DS_Store").write_text("icons")
    assert label("store") == 0
    assert caplog.messages == ["store: warning: .DS_Store is not part of the store"]
    Path("store/README.md").write_text("# A project of its own")
    assert label("store") == 2
    assert "StorePathError: store holds other files (.DS_Store); give" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["pickle", "misfit", "missing"])
def test_weights_that_are_none(fault: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(Path("recipe.yaml"))
    if fault == "pickle":
        torch.save(build_model(MemberConfig("tests.teacher.models.Linear").model).state_dict(), "member-0.safetensors")
        message = "pickle"
    elif fault == "misfit":
        model = build_model(MemberConfig("tests.teacher.models.Linear", {"classes": 9}).model)
        save_weights(model, Path("member-0.safetensors"))
        message = "layer.weight"
    else:
        Path("member-0.safetensors").unlink()
        message = "softlabels train-teacher --config=recipe.yaml`, or name the file"
    assert teacher_logits.main(["--config=recipe.yaml", "--store=store"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("WeightsError: ")
    assert message in err
    assert not Path("store").exists()


def test_nan_logits_name_row_and_member(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store", model="NanAt") == 0
    shutil.rmtree("store")
    write_recipe(Path("recipe.yaml"), model="NanAt")
    words = ["--config=recipe.yaml", "--store=store", "--teacher.batch_size=16"]
    inputs = toy.points("train")["x"]
    bound = float(np.sort(inputs[64:, 0])[-1]) - 1e-6
    row = 64 + int(inputs[64:, 0].argmax())
    text = Path("recipe.yaml").read_text().replace("features: 6", f"features: 6\n      bound: {bound}", 1)
    Path("recipe.yaml").write_text(text)
    assert teacher_logits.main(words) == 2
    assert f"NanLogits: logits are NaN (row {row}, member 0)" in capsys.readouterr().err


def test_a_sealed_store_that_lost_files_is_not_called_sealed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store") == 0
    (Path("store") / "train" / "commits" / "00000.json").rename("record")
    assert label("store") == 3
    assert "DamagedManifest: the commit record of shard 0 is gone" in capsys.readouterr().err
    Path("record").rename(Path("store") / "train" / "commits" / "00000.json")
    (Path("store") / "test" / "logits" / "c.1.0.0").unlink()
    assert label("store") == 3
    said = capsys.readouterr().err
    assert "MissingShard: shard 1 is missing: store/test/logits/c.1.0.0 is gone" in said
    # what the remedy says, done: the store is whole again, with the same digest
    before = json.loads(Path("store/test/manifest.json").read_text())["digest"]
    Path("store/test/manifest.json").unlink()
    Path("store/test/commits/00001.json").unlink()
    assert label("store") == 0
    assert open_store("store", split="test").digest == before
    assert not verify(Path("store/test"))


def test_a_start_that_committed_nothing_binds_nobody(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(work)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        assert label("store") == 75
    assert label("store", labels={"layout": "arrow"}) == 0
    assert open_store("store", split="test").layout == "arrow"


def test_asking_again_for_a_sealed_store_writes_nothing(work: Path) -> None:
    assert label("store") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("store").rglob("*")}
    assert label("store") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("store").rglob("*")} == before


def test_the_digest_does_not_say_where_the_data_lies(work: Path) -> None:
    for folder in ("here", "elsewhere/deep"):
        target = Path(folder, "points")
        target.mkdir(parents=True)
        for split in ("train", "test"):
            table = pa.table({"x": toy.points(split)["x"].tolist(), "label": toy.points(split)["label"]})
            pq.write_table(table, target / f"{split}.parquet")
        recipe = write_recipe(Path(f"{target.parent.name}.yaml"))
        text = yaml.safe_load(recipe.read_text())
        text["transfer_set"] = {"source": f"./{target}", "inputs": ["x"], "prepare": text["transfer_set"]["prepare"]}
        recipe.write_text(yaml.safe_dump(text))
        assert teacher_logits.main([f"--config={recipe}", f"--store=store-{target.parent.name}"]) == 0
    assert digests("store-here") == digests("store-deep")
    assert open_store("store-here", split="train").spec.transfer_set.name == "points"
