"""A trained model as a folder: transformers opens it with nothing of ours and gives the same logits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from softlabels.errors import ConfigError, StorageError
from softlabels.models.hf import ImageClassifier, SequenceClassifier
from softlabels.models.hf_folder import save_hf
from softlabels.models.mlp import MLP
from softlabels.objects import ObjectSpec
from softlabels.transfer.text import load_tokenizer, tokenize
from softlabels.transfer.vision import process
from tests.models.hf_samples import CLASSES, DISTILBERT, NAMES, VIT, checkpoint, processor, sentences, train_tokenizer


@pytest.fixture(autouse=True)
def no_bars() -> None:
    transformers.utils.logging.disable_progress_bar()


def test_a_text_model_is_handed_on_with_its_tokenizer(tmp_path: Path, rng: np.random.Generator) -> None:
    tokenizer = str(train_tokenizer(tmp_path / "tokenizer", rng))
    prepare = ObjectSpec("softlabels.transfer.tokenize", {"tokenizer": tokenizer, "max_length": 9})
    texts = sentences(rng, 20)["text"]
    student = SequenceClassifier(config=DISTILBERT, classes=CLASSES).eval()
    folder = tmp_path / "deep" / "student"
    for _ in range(2):  # what stands there gives way
        save_hf(student, folder, class_names=NAMES, prepare=prepare)
    assert [path.name for path in folder.parent.iterdir()] == ["student"]
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = student(torch.from_numpy(tokenize(texts, tokenizer=tokenizer, max_length=9)))
        given = theirs(**words(texts, padding=True, truncation=True, return_tensors="pt")).logits
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
    assert theirs.config.id2label == dict(enumerate(NAMES))
    again = SequenceClassifier(str(folder)).eval()
    assert again.class_names == NAMES
    assert again.untrained == ()
    assert load_tokenizer(tokenizer).model_max_length == 32


def test_an_image_model_is_handed_on_with_its_processor(tmp_path: Path, rng: np.random.Generator) -> None:
    original = processor(checkpoint(tmp_path / "model", VIT, auto="AutoModelForImageClassification"))
    student = ImageClassifier(str(original)).eval()
    prepare = ObjectSpec("softlabels.transfer.vision.process", {"processor": str(original)})
    save_hf(student, tmp_path / "student", prepare=prepare)
    images = [rng.integers(0, 256, (15, 9, 3), dtype=np.uint8) for _ in range(4)]
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "student").eval()
    pixels = process(images, processor=str(tmp_path / "student"))
    np.testing.assert_array_equal(pixels, process(images, processor=str(original)))
    with torch.no_grad():
        torch.testing.assert_close(theirs(torch.from_numpy(pixels)).logits, student(torch.from_numpy(pixels)))


def test_a_folder_without_preparation_holds_the_model_alone(tmp_path: Path) -> None:
    student = SequenceClassifier(config=DISTILBERT, classes=CLASSES)
    save_hf(student, tmp_path / "student", prepare=ObjectSpec("softlabels.transfer.stack"))
    assert {path.name for path in (tmp_path / "student").iterdir()} == {"config.json", "model.safetensors"}


def test_what_cannot_be_handed_on_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MLP is no Hugging Face model"):
        save_hf(MLP(3, [], 2), tmp_path / "student")
    student = SequenceClassifier(config=DISTILBERT, classes=CLASSES)
    with pytest.raises(ConfigError, match="2 class names for 3 classes"):
        save_hf(student, tmp_path / "student", class_names=("a", "b"))
    missing = ObjectSpec("softlabels.transfer.tokenize", {"tokenizer": str(tmp_path / "gone")})
    with pytest.raises(ConfigError, match="no folder"):
        save_hf(student, tmp_path / "student", prepare=missing)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something that is no Hugging Face model, and would be lost"):
        save_hf(SequenceClassifier(config=DISTILBERT, classes=CLASSES), tmp_path / "hf")
    assert (tmp_path / "hf" / "thesis.tex").read_text() == "years of work"


def test_what_stood_there_stays_where_the_new_folder_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, real = SequenceClassifier(config=DISTILBERT, classes=CLASSES), os.rename
    save_hf(student, tmp_path / "hf")

    def rename(name: str, target: str, **folders: int) -> None:
        if ".part-" in name:
            raise OSError(5, "no")
        real(name, target, **folders)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StorageError):
        save_hf(student, tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    assert (tmp_path / "hf" / "model.safetensors").is_file()


def test_an_exported_graph_takes_other_batches(rng: np.random.Generator) -> None:
    model = SequenceClassifier(config=DISTILBERT, classes=CLASSES).eval()
    rows = torch.zeros(7, 2, 12, dtype=torch.int32)
    for row, count in zip(rows, rng.integers(2, 8, 7), strict=True):
        row[0, :count], row[1, :count] = torch.from_numpy(rng.integers(5, 90, count)), 1
    batch = torch.export.Dim("batch", min=1, max=64)
    graph = torch.export.export(model, (rows[:3],), dynamic_shapes=({0: batch},)).module()
    with torch.no_grad():
        torch.testing.assert_close(graph(rows), model(rows), rtol=1e-5, atol=1e-6)
