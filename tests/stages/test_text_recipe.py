"""A text recipe from end to end: its own tokenizer, Hugging Face models as teacher and student, through the stages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
import yaml

from softlabels.models import ModelConfig, build_model
from softlabels.store import open_store
from softlabels.student.sweep import StudentTraining
from softlabels.teacher.config import TeacherConfig
from softlabels.transfer import TransferSetConfig, load_transfer_set
from softlabels_stages import export, teacher_logits, train_student, train_teacher
from softlabels_stages.recipe import load
from softlabels_stages.run import should_stop
from softlabels_stages.schema import typed
from tests.models.hf_samples import BERT, CLASSES, DISTILBERT, NAMES, checkpoint, sentences
from tests.stages import toy

TEXT = "softlabels.models.SequenceClassifier"
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}


@pytest.fixture(autouse=True)
def recipe(work: Path) -> dict[str, Any]:
    """A recipe in recipe.yaml, and its texts beside it; the test split has words that the training split lacks."""
    transformers.utils.logging.disable_progress_bar()
    rng = np.random.default_rng(3)
    (work / "things").mkdir()
    for split, rows in (("train", 160), ("test", 60)):
        columns = sentences(rng, rows)
        columns["text"] = [f"{text} {'zzzz' * (split == 'test')}" for text in columns["text"]]
        datasets.Dataset.from_dict(columns).to_parquet(work / "things" / f"{split}.parquet")
    sections: dict[str, Any] = {
        "name": "things",
        "transfer_set": {
            "source": "./things",
            "inputs": ["text"],
            "classes": list(NAMES),
            "prepare": {
                "class_path": "softlabels.transfer.tokenize",
                "init_args": {"tokenizer": "own/tokenizer", "max_length": 30},
            },
        },
        "tokenizer": {"vocab_size": 90},
        "teacher": {
            "members": [
                {"class_path": TEXT, "init_args": {"config": BERT, "classes": CLASSES}, "weights": "own/0.safetensors"}
            ],
            "batch_size": 32,
        },
        "teacher_training": {"epochs": 4, "batch_size": 16, "threads": 1, "device": "cpu", "optimizer": OPTIMIZER},
        "student": {"class_path": TEXT, "init_args": {"config": DISTILBERT, "classes": CLASSES}},
        "training": {
            "epochs": 2, "batch_size": 16, "threads": 1, "device": "cpu", "optimizer": OPTIMIZER, "seeds": [0],
        },
    }  # fmt: skip
    return write(sections)


def write(sections: dict[str, Any]) -> dict[str, Any]:
    Path("recipe.yaml").write_text(yaml.safe_dump(sections))
    return sections


def test_from_texts_to_students(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    out = capsys.readouterr().out
    assert "tokenizer: trained on the training rows, own/tokenizer" in out
    assert "zzzz" not in json.loads(Path("own/tokenizer/tokenizer.json").read_text())["model"]["vocab"]
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert "tokenizer" not in capsys.readouterr().out
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    Path("own").rename("moved")  # the same tokenizer and weights elsewhere make the same store
    recipe["transfer_set"]["prepare"]["init_args"]["tokenizer"] = "moved/tokenizer"
    recipe["teacher"]["members"][0]["weights"] = "moved/0.safetensors"
    write(recipe)
    assert teacher_logits.main(["--config=recipe.yaml", "again"]) == 0
    for split in ("train", "test"):
        assert open_store("store", split=split).digest == open_store("again", split=split).digest
    assert train_student.main(["--config=recipe.yaml", "store", "--out=whole"]) == 0
    results = json.loads(Path("whole/results.json").read_text())
    assert results["teacher"]["ensemble"][0]["accuracy"] > 0.6  # the words say most

    asked = 0

    def after_eleven() -> bool:
        nonlocal asked
        asked += 1
        return asked > 11

    monkeypatch.setattr(train_student, "should_stop", after_eleven)
    assert train_student.main(["--config=recipe.yaml", "store", "--out=stopped"]) == 75
    monkeypatch.setattr(train_student, "should_stop", should_stop)
    assert train_student.main(["--config=recipe.yaml", "store", "--out=stopped"]) == 0
    for kind in ("hard", "distilled"):
        weights = f"{kind}-seed0/weights.safetensors"
        assert Path("stopped", weights).read_bytes() == Path("whole", weights).read_bytes()


def test_a_whole_checkpoint_is_a_teacher_as_it_is(recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    names = dict(enumerate(NAMES))
    folder = checkpoint(Path("given"), BERT, auto="AutoModelForSequenceClassification", id2label=names)
    recipe["teacher"] = {"members": [{"class_path": TEXT, "init_args": {"model": str(folder)}}]}
    del recipe["teacher_training"]
    write(recipe)
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert f"teacher 0: {TEXT} exists and is kept" in capsys.readouterr().out
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    turned = dict(zip(range(CLASSES), reversed(NAMES), strict=True))
    checkpoint(Path("turned"), BERT, auto="AutoModelForSequenceClassification", id2label=turned)
    recipe["teacher"]["members"][0]["init_args"]["model"] = "turned"
    write(recipe)
    capsys.readouterr()
    assert teacher_logits.main(["--config=recipe.yaml", "other"]) == 2
    assert "OtherLabels: member 0" in capsys.readouterr().err
    assert not Path("other/train/plan.json").exists()


def test_a_teacher_of_more_classes_than_there_are_is_not_trained(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe["transfer_set"]["splits"] = {"train": "train", "test": "tset"}
    write(recipe)
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    assert "no split 'tset'" in capsys.readouterr().err
    assert not Path("own").exists()  # no tokenizer is made of what may not be the rows
    del recipe["transfer_set"]["splits"]
    recipe["teacher"]["members"][0]["init_args"]["classes"] = CLASSES + 1
    write(recipe)
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"gives {CLASSES + 1} logits, and things has {CLASSES} classes: " in said
    assert f"write classes: {CLASSES} in its init_args" in said
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    assert "tokenizer: own/tokenizer exists and is kept" in capsys.readouterr().out


def test_what_the_hub_is_asked_for_is_said_and_no_tokenizer_of_a_pretrained_model_is_trained(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe["teacher"]["members"][0]["init_args"]["model"] = "someone/model"
    recipe["transfer_set"]["prepare"]["init_args"]["tokenizer"] = "someone/model"
    write(recipe)
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    assert "trains one, and the teacher someone/model comes with its own; drop the section" in capsys.readouterr().err
    del recipe["tokenizer"]
    write(recipe)
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("someone/model is no folder here: asking the Hugging Face hub; without a network, ")
    assert "the Hugging Face hub does not give it" in said.err


def test_a_checkpoint_without_a_head_is_fine_tuned_first(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(Path("base"), BERT, auto="AutoModel")
    member = {"class_path": TEXT, "init_args": {"model": "base", "classes": CLASSES}}
    recipe["teacher"]["members"] = [member]
    write(recipe)
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    assert "names no weights" in capsys.readouterr().err
    recipe["teacher"]["members"] = [member | {"weights": "tuned.safetensors"}]
    recipe["teacher_training"]["epochs"] = 1
    write(recipe)
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0


def test_the_news_recipe_has_a_student_of_at_most_a_fifth() -> None:
    recipe = load("ag_news")
    student = typed(ModelConfig, recipe["student"], where="student")
    teacher = typed(TeacherConfig, recipe["teacher"], where="teacher")
    training = typed(StudentTraining, recipe["training"], where="training")
    size = parameters(student)
    assert all(5 * size <= parameters(dataclasses.replace(each.model, weights=None)) for each in teacher.members)
    assert recipe["transfer_set"]["splits"] == {"train": "train", "test": "test"}
    assert training.validation > 0  # no choice is made on the test split
    assert len(training.seeds) == 3


def parameters(model: ModelConfig) -> int:
    return sum(tensor.numel() for tensor in build_model(model).parameters())


def test_a_student_is_handed_on_as_a_folder_of_transformers(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    words = ["--config=recipe.yaml", "store", "--out=run", "--baseline=false", "--epochs=1"]
    assert train_student.main(words) == 0
    capsys.readouterr()
    assert export.main(["run", "--formats=hf"]) == 0
    folder = Path("run/distilled-seed0/hf")
    assert f"{folder}: " in capsys.readouterr().out

    texts = [row["text"] for row in datasets.Dataset.from_parquet("things/test.parquet").select(range(9))]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert list(plain.config.id2label.values()) == list(NAMES)
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    student = build_model(
        typed(ModelConfig, recipe["student"] | {"weights": str(folder.parent / "weights.safetensors")}, where="")
    )
    rows = load_transfer_set(typed(TransferSetConfig, recipe["transfer_set"], where=""), "test")
    with torch.no_grad():
        expected = student.eval()(torch.from_numpy(np.array(rows.inputs[:9])))
        torch.testing.assert_close(plain(**tokens).logits, expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_model_of_transformers_is_refused_as_such(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.write_recipe(Path("toy.yaml"))
    assert train_student.main(["--config=toy.yaml", "--store=store", "--out=run", "--epochs=1", "--seeds=0"]) == 0
    assert export.main(["run", "--formats=hf"]) == 2
    assert "is no Hugging Face model" in capsys.readouterr().err
