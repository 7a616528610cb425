"""The recipe `detect` in small: a detection set in, teachers, store, students and their AP50 out, by the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from softlabels.recipes import detect_score
from softlabels.store import open_store
from softlabels_stages import teacher_logits, train_student, train_teacher
from tests.recipes.test_detect import write_cells

ROWS = {"train": 24, "validation": 6, "test": 8}


def test_from_images_to_ap50(work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    for split, rows in ROWS.items():
        write_cells(work / "cells", rng, rows, split=split)
    small = ["--transfer_set.factory.init_args.source=./cells", "--transfer_set.factory.init_args.size=[48,64]"]
    small += ["--transfer_set.positions=48"]
    words = ["--config=detect", *small]
    assert train_teacher.main([*words, "--teacher_training.epochs=1"]) == 0
    assert teacher_logits.main([*words, "--store=stores/detect"]) == 0
    store = open_store("stores/detect", split="train")
    assert (store.targets, store.positions, len(store)) == (("class", "box"), 48, 24)
    training = ["--training.epochs=2", "--training.seeds=[0,1]"]
    assert train_student.main([*words, "--store=stores/detect", *training]) == 0
    [run] = (work / "runs").glob("detect-*")
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["hard_label_fraction"] == 0.1
    capsys.readouterr()

    assert detect_score.main([str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["AP50,", "test", "mean", "RBC", "WBC", "Platelets"]
    names = [" ".join(line.split("  ")[0].split()) for line in said[2:8]]
    assert names == ["teacher 0", "teacher 1", "teacher 2", "ensemble", "student, hard", "student, distilled"]
    assert said[-1].startswith("student, distilled - student, hard: ")
    assert said[-1].endswith("(paired over 2 seeds)")

    write_cells(work / "cells", rng, ROWS["test"], split="test")
    assert detect_score.main([str(run)]) == 2
    assert "has no labels for image 0 of 8; give the source that the store was made of" in capsys.readouterr().err
    assert detect_score.main(["runs"]) == 2
    assert capsys.readouterr().err == (
        "ConfigError: runs is no finished run; name the folder that train-student printed\n"
    )
