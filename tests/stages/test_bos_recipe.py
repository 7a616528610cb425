"""Language models that know how texts begin, and tokenizers with tokens that they have no output for, through the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
import yaml

from softlabels.store import open_store
from softlabels.store.verify import verify
from softlabels.transfer.text import load_tokenizer
from softlabels.transfer.vocabulary import Vocabulary
from softlabels_stages import teacher_logits, train_student
from softlabels_stages import verify as verify_stage
from softlabels_stages.run import should_stop
from tests.models.hf_samples import SIXTY, word_texts, word_tokenizer
from tests.models.lm_samples import LLAMA, saved_lm
from tests.stages.lm import CLASS

WORDS = ["--config=recipe.yaml", "--store=store"]
NET = LLAMA | {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(autouse=True)
def texts(work: Path, rng: np.random.Generator) -> list[str]:
    transformers.utils.logging.disable_progress_bar()
    found = word_texts(rng, 40, longest=30)
    for split, part in (("train", found), ("test", found[:10])):
        datasets.Dataset.from_dict({"text": part}).to_parquet(work / "texts" / f"{split}.parquet")
    return found


def write(**sequences: Any) -> None:
    """A recipe of a teacher in ./teacher, with a student of fewer layers."""
    sections = {
        "name": "beginnings",
        "transfer_set": {
            "source": "./texts", "inputs": ["text"], "label": None,
            "sequences": {"tokenizer": "./teacher", "length": 12} | sequences,
        },
        "teacher": {"members": [{"class_path": CLASS, "init_args": {"model": "./teacher"}}], "batch_size": 8, "device": "cpu"},
        "labels": {"encoding": "dense", "rows_per_shard": 16, "rows_per_chunk": 16},
        "student": {"class_path": CLASS, "init_args": {"config": NET | {"num_hidden_layers": 1}}},
        "training": {"epochs": 1, "batch_size": 16, "seeds": [0], "threads": 1, "device": "cpu", "temperature": 2},
    }  # fmt: skip
    Path("recipe.yaml").write_text(yaml.safe_dump(sections))


def test_labels_are_those_of_texts_as_the_model_knows_them(
    texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each text alone, as the tokenizer gives it, through transformers in float64."""
    word_tokenizer(saved_lm(Path("teacher"), NET), bos=True)
    write(pack=False, length=40)
    assert teacher_logits.main(WORDS) == 0
    assert "begins with '<bos>' (transfer_set.sequences.bos)" in capsys.readouterr().out
    store, tokenizer = open_store("store/train"), load_tokenizer("./teacher")
    model = transformers.AutoModelForCausalLM.from_pretrained("teacher").double().eval()
    for row, text in enumerate(texts):
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids[:-1]])).logits[0].log_softmax(-1).numpy()
        found = store.log_probs([row], temperature=1.0)[0]
        assert store.column("position_mask")[row].sum() == len(ids) - 1  # the first word among them
        np.testing.assert_allclose(np.exp(found[: len(ids) - 1]), np.exp(expected), atol=2e-3)


@pytest.mark.slow
def test_a_store_that_was_begun_without_goes_on_and_teaches_without(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as one from before there was a bos: nothing in its specification tells the two apart."""
    word_tokenizer(saved_lm(Path("teacher"), NET), bos=True)
    write(bos="none")
    asked = iter([False] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(teacher_logits, "should_stop", lambda: next(asked, True))
        assert teacher_logits.main(WORDS) == 75
    assert "bos" not in json.loads((work / "store/train/plan.json").read_text())["spec"]["preprocessing"]["arguments"]
    write()
    for _ in range(2):  # resumed, then seen to be sealed
        assert teacher_logits.main(WORDS) == 0
    assert not should_stop()
    assert verify_stage.main(["store", "--against_teacher=recipe.yaml"]) == 0
    assert train_student.main([*WORDS, "--out=run"]) == 0
    out = capsys.readouterr()
    assert "<bos>" not in out.out
    write(bos="<bos>")
    assert teacher_logits.main(WORDS) == 2
    assert "transfer_set.sequences.bos" in capsys.readouterr().err
    assert train_student.main([*WORDS, "--out=other"]) == 2
    assert (
        "begin with '<bos>', those of store/test without a bos: no row would find its labels" in capsys.readouterr().err
    )
    write(bos="auto")
    assert teacher_logits.main(["--config=recipe.yaml", "--store=new"]) == 0
    assert train_student.main(["--config=recipe.yaml", "--store=new", "--out=new-run"]) == 0
    assert verify_stage.main(["new", "--against_teacher=recipe.yaml"]) == 0
    assert open_store("new/train").spec.preprocessing.arguments["bos"] == "<bos>"
    assert verify("new/train") == []


@pytest.mark.slow
def test_a_token_more_than_outputs_may_exist_and_must_not_occur(
    work: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = word_tokenizer(saved_lm(Path("teacher"), NET), added=("<image>",))
    write()
    assert teacher_logits.main(WORDS) == 0
    store = open_store("store/train")
    assert store.classes == 64
    words = Vocabulary(load_tokenizer(str(tokenizer)))
    assert store.spec.label_space.vocabulary == words.digest(64) != words.digest()
    model = transformers.AutoModelForCausalLM.from_pretrained("teacher").double().eval()
    ids = [*load_tokenizer("./teacher")(texts[0])["input_ids"], 2][:12]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids[:-1]])).logits[0].softmax(-1).numpy()
    np.testing.assert_allclose(np.exp(store.log_probs([0], temperature=1.0)[0][: len(ids) - 1]), expected, atol=2e-3)
    assert train_student.main([*WORDS, "--out=run"]) == 0
    assert verify_stage.main(["store", "--against_teacher=recipe.yaml"]) == 0
    word_tokenizer(saved_lm(Path("student"), NET, seed=1))  # a student whose tokenizer was given no such token
    assert train_student.main([*WORDS, "--out=other", "--student.init_args={model: ./student}"]) == 0
    datasets.Dataset.from_dict({"text": [*texts, "w1 <image>"]}).to_parquet(work / "texts" / "train.parquet")
    capsys.readouterr()
    assert teacher_logits.main(["--config=recipe.yaml", "--store=new"]) == 2
    assert "holds token 64 ('<image>') at place" in capsys.readouterr().err
    assert not Path("new").exists()


def test_the_tokenizer_beside_a_checkpoint_is_asked_at_each_door(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word_tokenizer(Path("words"))
    saved_lm(Path("teacher"), NET)
    write(tokenizer="./words")
    assert teacher_logits.main(WORDS) == 0
    word_tokenizer(Path("teacher"), words=SIXTY[::-1])
    capsys.readouterr()
    student = "--student.init_args={model: ./teacher}"
    for ask in (
        lambda: teacher_logits.main(["--config=recipe.yaml", "--store=new"]),
        lambda: train_student.main([*WORDS, "--out=run", student]),
        lambda: verify_stage.main(["store", "--against_teacher=recipe.yaml"]),
    ):
        assert ask() == 2
        assert "has a tokenizer of another vocabulary" in capsys.readouterr().err
    assert not Path("new").exists()
    assert not Path("run").exists()
