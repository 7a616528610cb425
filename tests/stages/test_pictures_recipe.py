"""The recipe for pictures, on a folder as people have it: sizes, formats and colours mixed, a file that is no picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from softlabels import open_store
from softlabels.transfer import resize
from softlabels_stages import teacher_logits, train_student, train_teacher
from softlabels_stages.recipe import load


def draw(folder: Path, rng: np.random.Generator, pictures: int) -> None:
    """Dark cats and bright dogs."""
    for name, brightness in (("cat", 60), ("dog", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(pictures):
            mode, form = [("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "gif")][number % 4]
            shape = rng.integers(9, 30, 2)
            pixels = rng.normal(brightness, 20, shape).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.{form}")
        (folder / name / "Thumbs.db").write_bytes(b"none")


def test_a_folder_of_pictures_to_a_student(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    draw(work / "pictures/train", rng, 20)
    draw(work / "pictures/test", rng, 8)
    recipe = load("pictures")
    recipe["transfer_set"]["prepare"]["init_args"]["size"] = 8
    recipe["teacher"]["members"] = recipe["teacher"]["members"][:1]
    for net in (recipe["teacher"]["members"][0], recipe["student"]):
        net["init_args"] |= {"channels": [4]}
    recipe["teacher_training"] |= {"epochs": 2, "batch_size": 8}
    recipe["training"] |= {"epochs": 2, "batch_size": 8, "seeds": [0], "baseline": False}
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    assert train_teacher.main(["--config=mine.yaml"]) == 0
    assert "Downloading" not in capsys.readouterr().err  # files that are here
    assert teacher_logits.main(["--config=mine.yaml", "--store=store"]) == 0
    store = open_store("store/test")
    assert store.class_names == ("cat", "dog")
    assert store.rows == 16
    first = np.asarray(Image.open("pictures/test/cat/0.jpg"))
    np.testing.assert_array_equal(store.gather("input", [0])[0], resize([first], size=8)[0])
    assert train_student.main(["--config=mine.yaml", "--store=store", "--out=run"]) == 0
    assert Path("run/results.json").is_file()
    Path("pictures/train/dog/8.jpg").write_bytes(b"\xff\xd8\xff none")
    assert teacher_logits.main(["--config=mine.yaml", "--store=other"]) == 2
    assert "pictures/train/dog/8.jpg): this image does not decode" in capsys.readouterr().err
