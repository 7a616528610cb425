"""merge, concat and select as commands, killed too; and students of a merged store."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from softlabels import open_store
from softlabels.store.verify import verify
from softlabels_stages import concat, evaluate, export, info, merge, select, train_student
from tests.stages import toy
from tests.stages.kills import digests


@pytest.fixture
def embedded(work: Path) -> Path:
    """The toy store with its inputs."""
    return toy.write_store(work / "embedded", embed=True)


def test_a_store_taken_apart_and_merged(embedded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for member in (0, 1):
        assert select.main(["embedded", f"--members={member}", f"--out=m{member}"]) == 0
    for split in ("train", "test"):  # in another order of rows
        rows = {"train": "::2,1::2", "test": "79,::3,1:79:3,2::3"}[split]
        assert select.main([f"m1/{split}", f"--rows={rows}", f"--out=other/{split}"]) == 0
    assert merge.main(["m0", "other", "--out=out", "--weights=1,3"]) == 0
    said = capsys.readouterr().out
    assert "sealed: out (look: " in said
    merged = {split: open_store(f"out/{split}") for split in ("train", "test")}
    for split, store in merged.items():
        assert store.content_digest == open_store(embedded / split).content_digest
        assert verify(f"out/{split}") == []
        np.testing.assert_array_equal(store.member_weights, [0.25, 0.75])
    assert info.main(["out"]) == 0
    shown = capsys.readouterr().out
    assert f"made of       merged {open_store('m0/train').digest[:16]}, merged " in shown
    assert "fidelity      unknown" in shown
    assert select.main(["out", "--splits=test", "--rows=:40", "--out=a"]) == 0
    assert select.main(["out", "--splits=test", "--rows=40:", "--out=b"]) == 0
    assert concat.main(["a", "b", "--out=both"]) == 0
    assert open_store("both/test").content_digest == merged["test"].content_digest


@pytest.mark.slow
def test_students_of_a_list_of_stores(embedded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named in a recipe; and what the run knows of them is enough for whoever goes on with it."""
    for member in (0, 1):
        select.main([f"embedded/{'train'}", f"--members={member}", f"--out=m,{member}/train", f"--rows={member}:"])
    stores, training = [f"m,{member}" for member in (0, 1)], {"epochs": 1, "batch_size": 32, "seeds": [0], "threads": 1}
    sections = {"name": "toy", "student": toy.recipe()["student"], "training": training | {"device": "cpu"}}
    Path("mine.yaml").write_text(yaml.safe_dump(sections | {"store": stores}))
    assert train_student.main(["--config=mine.yaml", "--out=run"]) == 2
    assert "lacks 1 of the 160 rows of m,0/train, and has 0 others; say missing=skip" in capsys.readouterr().err
    assert train_student.main(["--config=mine.yaml", "--missing=skip", "--out=run"]) == 0
    said = capsys.readouterr()
    assert "train: 1 of 160 rows of m,0/train are not in all stores" in said.err
    assert """'--store=["m,0", "m,1"]' --missing=skip""" in said.out
    assert yaml.safe_load(Path("run/config.yaml").read_text())["store"] == stores
    assert evaluate.main(["run/distilled-seed0", "--split=train", "--json"]) == 0
    assert export.main(["run/distilled-seed0", "--formats=onnx"]) == 0
    digests = [open_store(f"{each}/train").digest for each in stores]
    [facts] = [
        p.value for p in onnx.load("run/distilled-seed0/student.onnx").metadata_props if p.key == "softlabels.store"
    ]
    assert json.loads(facts) == {"split": "train", "digest": digests}
    assert train_student.main(["--config=run/config.yaml", "--missing=skip", "--out=run"]) == 0
    assert train_student.main(["m,1", "m,0", "--config=mine.yaml", "--missing=skip", "--out=run"]) == 2
    assert "RunExists: run holds another run: stores.train[0]: " in capsys.readouterr().err
    found = json.loads(Path("run/results.json").read_text())
    assert (found["store"], found["digests"], found["several"]) == (stores, {"train": digests}, {"missing": "skip"})
    for wrong in (["m,0", 3], [], {"a": 1}):
        Path("run/results.json").write_text(json.dumps(found | {"store": wrong}))
        assert evaluate.main(["run/distilled-seed0", "--split=train"]) == 2
        assert "DamagedRun: run/results.json does not name the run's store" in capsys.readouterr().err


REFUSED = [
    (merge, "", "stores and a target are needed; write softlabels merge A B --out=STORE"),
    (merge, "store --out=c", "one store cannot be merged; name two stores or more"),
    (merge, "store store --out=store", "one is inside the other; give a target beside the source"),
    (merge, "store none --out=c", "none does not exist"),
    (merge, "store store --weights=1,2 --out=c", "hold the same labels; name each store once"),
    (merge, "store store/test --out=c", "store/test is one split, and store a folder of splits"),
    (concat, "store --out=", "stores and a target are needed"),
    (concat, "store store --out=c", "80 rows of store/test, the first of them row 0, have content keys"),
    (select, "store", "a target is needed; write softlabels select STORE --out=STORE"),
    (select, "store --out=c", "nothing is selected; choose rows, members, targets or splits"),
    (select, "store --rows=1 --out=c", "rows are selected from 2 splits (test, train); choose one: --splits=test"),
    (select, "store --splits=train,dev --out=c", "store has the splits test, train, and these are wanted: train, dev"),
]


def test_what_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, words, said in REFUSED:
        assert command.main(words.split()) == 2
        assert said in capsys.readouterr().err
        assert not Path("c").exists()


@pytest.mark.slow
def test_killed_at_any_moment(embedded: Path) -> None:
    for member in (0, 1):
        select.main(["embedded", f"--members={member}", f"--out=m{member}"])
    words = ["m0", "m1", "--out=out"]
    assert merge.main([*words[:2], "--out=whole"]) == 0
    processes, kills = multiprocessing.get_context("forkserver"), 0
    processes.set_forkserver_preload(["softlabels_stages.merge"])
    while kills < 20:
        child = processes.Process(target=_merge, args=(words,))
        child.start()
        child.join(random.uniform(0.02, 0.3))
        if child.exitcode == 0:
            assert digests("out") == digests("whole")
            shutil.rmtree("out")
            continue
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    assert merge.main(words) == 0
    assert digests("out") == digests("whole")


def _merge(words: list[str]) -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(merge.main(words))
