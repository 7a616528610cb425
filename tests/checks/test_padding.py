"""Outputs that depend on padding, or on the batch, at the doors that have a model; right values from transformers alone, each
text for itself and without padding, in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
import yaml
from torch import Tensor, nn

from softlabels.checks.dependence import Dependence, of_all_lengths, spread
from softlabels.errors import TeacherError
from softlabels.models import save_weights
from softlabels.models.hf import SequenceClassifier
from softlabels.store import open_store
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer.sequences import SequenceInfo
from softlabels.transfer.text import load_tokenizer
from softlabels_stages import evaluate, teacher_logits, train_student, verify
from tests.checks.samples import live
from tests.models.hf_samples import word_texts, word_tokenizer

TEXT = "softlabels.models.SequenceClassifier"
GPT2 = {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20, "num_labels": 4}
LENGTH = 16
STUDENT = "tests.checks.test_padding.Fixed"
IGNORES_THE_MASK = "tests.checks.test_padding.Pooled"


class Pooled(nn.Module):
    """Logits of tokens (B, 2, L), averaged over all places, padding among them."""

    def __init__(self, statistics: bool = False) -> None:
        super().__init__()
        weight = np.random.default_rng(2).normal(size=(64, 4)) * 4
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        self.statistics = statistics

    def forward(self, tokens: Tensor) -> Tensor:
        z = self.weight[tokens[:, 0].long()].mean(1)
        return z - z.mean(0) if self.statistics else z


class Fixed(Pooled):
    """Takes rows of 16 tokens only."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.reshape(-1, 2, LENGTH))


class Peeking(nn.Module):
    """A language model whose positions see what comes later, padding among it."""

    def __init__(self, masks: bool) -> None:
        super().__init__()
        self.weight, self.masks = Pooled().weight, masks

    def forward(self, tokens: Tensor) -> Tensor:
        z = self.weight[tokens[:, 0, :-1].long()].cumsum(1)
        padding = (tokens[:, 1, :-1] == 0).sum(1)
        return z if self.masks else z + padding[:, None, None] * torch.arange(4)


@pytest.fixture
def texts(work: Path, rng: np.random.Generator) -> list[str]:
    transformers.utils.logging.disable_progress_bar()
    found = word_texts(rng, 40)
    found[3] = " ".join(word_texts(rng, 1, LENGTH, LENGTH))
    for split, part in (("train", found), ("test", found[:20])):
        datasets.Dataset.from_dict({"text": part}).to_parquet(work / "texts" / f"{split}.parquet")
    return found


def gpt2(folder: str, **settings: Any) -> None:
    """A decoder that classifies by its last token, with weights so large that texts differ."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("gpt2", **GPT2, **settings)
    network = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(8 if weight.ndim == 2 else 1)
    network.save_pretrained(folder)


def write(teacher: Any, student: Any) -> None:
    prepare = {
        "class_path": "softlabels.transfer.tokenize",
        "init_args": {"tokenizer": "./teacher", "max_length": LENGTH},
    }
    sections = {
        "name": "padded",
        "transfer_set": {"source": "./texts", "inputs": ["text"], "label": None, "prepare": prepare},
        "teacher": {"members": [teacher], "batch_size": 8, "device": "cpu"},
        "labels": {"rows_per_shard": 16, "rows_per_chunk": 16},
        "student": student,
        "training": {"epochs": 1, "seeds": [0], "threads": 1, "device": "cpu", "baseline": False},
    }  # fmt: skip
    Path("recipe.yaml").write_text(yaml.safe_dump(sections))


def label(store: str = "s") -> int:
    return teacher_logits.main(["--config=recipe.yaml", f"--store={store}"])


def pretrained() -> dict[str, Any]:
    return {"class_path": TEXT, "init_args": {"model": "./teacher"}}


def expected(texts: list[str]) -> np.ndarray:
    """(R, C) float64."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained("teacher").double().eval()
    tokenizer = load_tokenizer("./teacher")
    with torch.no_grad():
        found = [
            network(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0].softmax(-1) for text in texts
        ]
    return np.stack([each.numpy() for each in found])


def farthest(texts: list[str], store: str) -> float:
    """The largest distance of a row's stored distribution from the right one."""
    found = np.exp(open_store(f"{store}/train").log_probs(range(len(texts)), temperature=1.0))
    return float(np.abs(found - expected(texts)).sum(1).max() / 2)


def test_what_is_found() -> None:
    found = Dependence(2, "float32")
    rows, apart = np.array([0, 0, 1, 2]), np.zeros((4, 2))
    apart[:2, 1], apart[3, 1] = 0.5, 2.0
    found.add(rows, apart, np.full((4, 2), 9.0))
    found.add(np.array([7]), np.array([[9e-4, 0.0]]), np.array([[9.0, 9.0]]))  # within a ten-thousandth of 1 + 9
    assert found.found() == [(1, 2, 2.0)]
    assert Dependence(1, "bfloat16").found() == []
    for total, count in ((5, 9), (64, 64), (1000, 64)):
        assert spread(total, count).tolist() == sorted({*spread(total, count).tolist()})
        assert len(spread(total, count)) == min(total, count)
    lengths = np.array([4, 4, 1, 9, 4, 4, 12])
    assert {2, 6} <= {*of_all_lengths(lengths, 3).tolist()}
    assert len(of_all_lengths(lengths, 64)) == 7


@pytest.mark.parametrize("token", [0, 2])
def test_another_padding_token_than_the_tokenizers(texts: list[str], token: int) -> None:
    """GPT-2 finds the last token by it, and one text fills the row."""
    gpt2("teacher", pad_token_id=token)
    word_tokenizer(Path("teacher"))
    write(pretrained(), pretrained())
    assert label() == 0
    assert farthest(texts, "s") < 2e-3


def test_padding_on_the_left_with_absolute_positions(
    texts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpt2("teacher", pad_token_id=0)
    word_tokenizer(Path("teacher"), padding_side="left")
    write(pretrained(), pretrained())
    assert label() == 2
    said = capsys.readouterr().err
    assert (
        "other logits in batches of another size" in said
        or "other logits alone, without padding, than in a batch" in said
    )
    assert 'padding on the left moves absolute positions ("padding_side": "right" in tokenizer_config.json)' in said
    assert not Path("s").exists()
    with monkeypatch.context() as patch:  # as an earlier version did
        for name in ("require_same_in_batches", "require_same_alone"):
            patch.setattr(f"softlabels.teacher.sentinels._Sentinels.{name}", lambda *_: None)
        assert label("wrong") == 0
    assert farthest(texts, "wrong") > 0.2
    capsys.readouterr()
    assert verify.main(["wrong", "--against_teacher=recipe.yaml"]) == 2
    assert "padding must not count" in capsys.readouterr().err
    save_weights(SequenceClassifier("./teacher"), Path("weights.safetensors"))
    recipe = ["--config=recipe.yaml", "--store=wrong"]
    for main, words in ((train_student.main, recipe), (evaluate.main, ["weights.safetensors", *recipe])):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"{TEXT} gives" in said
        assert "rows other logits one at a time than in a batch" in said
        assert "padding must not count" in said
    assert not Path("runs").exists()
    word_tokenizer(Path("teacher"))
    assert label("right") == 0
    assert farthest(texts, "right") < 2e-3


@pytest.mark.parametrize("alike", [False, True])
def test_a_mask_that_does_not_reach_the_network(
    texts: list[str], alike: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says the same in any batch, since all rows are as long; one that was trained so says so, and may."""
    word_tokenizer(Path("teacher"))
    save_weights(Pooled(), Path("t.safetensors"))
    write({"class_path": IGNORES_THE_MASK, "weights": "t.safetensors"}, {"class_path": IGNORES_THE_MASK})
    if alike:
        monkeypatch.setattr(Pooled, "trained_with_padding", True, raising=False)
        assert label() == 0
        assert verify.main(["s", "--against_teacher=recipe.yaml"]) == 0
        assert train_student.main(["--config=recipe.yaml", "--store=s", "--out=run"]) == 0
        return
    assert label() == 2
    said = capsys.readouterr().err
    assert (
        f"member 0 ({IGNORES_THE_MASK}) gives 39 of 40 rows other logits alone, without padding, than in a batch"
        in said
    )
    assert "padding must not count: the mask must reach the network" in said
    assert "trained_with_padding = True" in said
    assert not Path("s").exists()


def test_models_of_rows_of_one_length() -> None:
    """They cannot be asked without padding, and are asked with it."""
    rows = np.stack([np.stack([np.arange(LENGTH) + n, np.arange(LENGTH) < 1 + n % LENGTH]) for n in range(40)]).astype(
        np.int32
    )
    assert check_sentinels(live(Fixed()), rows, padded=True) == {"": 4}
    with pytest.raises(TeacherError, match="gives 40 of 40 rows other logits"):
        check_sentinels(live(Fixed(statistics=True)), rows, padded=True)
    with pytest.raises(TeacherError, match=r"gives 38 of 38 rows other logits alone, without padding"):
        check_sentinels(live(Pooled()), rows[np.arange(40) % LENGTH != 15], padded=True)


@pytest.mark.parametrize("masks", [True, False])
def test_language_models(rng: np.random.Generator, masks: bool) -> None:
    rows = np.zeros((20, 2, 10), np.int32)
    for number, row in enumerate(rows):
        row[0, : 2 + number % 9], row[1, : 2 + number % 9] = rng.integers(1, 64, 2 + number % 9), 1
    ensemble = live(Peeking(masks))
    ensemble.expect(SequenceInfo(10, 4, ""))
    if masks:
        assert check_sentinels(ensemble, rows) == {"": 4}
        return
    with pytest.raises(TeacherError, match=r"gives 6 of 8 rows other logits alone, without padding"):
        check_sentinels(ensemble, rows)


def test_students_whose_rows_depend_on_others(texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    word_tokenizer(Path("teacher"))
    save_weights(Fixed(), Path("t.safetensors"))
    teacher = {"class_path": STUDENT, "weights": "t.safetensors"}
    write(teacher, {"class_path": IGNORES_THE_MASK, "init_args": {"statistics": True}})
    assert label() == 0
    assert train_student.main(["--config=recipe.yaml", "--store=s"]) == 2
    said = capsys.readouterr().err
    assert (
        f"{IGNORES_THE_MASK} gives 16 of 16 rows other logits one at a time than in a batch: they differ by up to"
        in said
    )
    assert "its forward must not drop out, sample or use batch statistics in evaluation mode" in said
    write(teacher, {"class_path": IGNORES_THE_MASK})  # a student may learn from padding that it always sees
    assert train_student.main(["--config=recipe.yaml", "--store=s"]) == 0
