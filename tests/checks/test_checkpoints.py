"""What a checkpoint says beside its tensors, at the doors that open one; tests/models/test_hf_facts.py has each kind."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from softlabels.models import save_weights
from softlabels.models.hf import SequenceClassifier
from softlabels.store import open_store
from softlabels_stages import evaluate, teacher_logits, train_student, train_teacher, verify
from tests.checks.test_padding import GPT2, write
from tests.models.hf_samples import checkpoint, word_texts, word_tokenizer

AUTO, CLASS = "AutoModelForSequenceClassification", "softlabels.models.SequenceClassifier"
RECIPE = ["--config=recipe.yaml", "--store=s"]
SETTINGS = GPT2 | {"model_type": "gpt2", "pad_token_id": 0}
HARMS = {
    "several labels a row": "problem_type is multi_label_classification, and labels are stored of one softmax",
    "an adapter beside": "holds an adapter (adapter_config.json), and adapters are not applied here",
    "quantized": "are quantized (config.json says so: quantization_config of gptq)",
    "wrapped": "have the prefix 'module.', of a model that was saved inside",
}


def harm(folder: Path, kind: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if kind == "several labels a row":
        config["problem_type"] = "multi_label_classification"
    elif kind == "an adapter beside":
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    elif kind == "quantized":
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    else:
        file = folder / "model.safetensors"
        save_file({f"module.{name}": t for name, t in load_file(file).items()}, file, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def test_a_head_of_several_labels_a_row_is_stored_as_what_it_is(
    work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers.utils.logging.disable_progress_bar()
    texts = word_texts(rng, 24)
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"text": texts}).to_parquet(work / "texts" / f"{split}.parquet")
    word_tokenizer(checkpoint(Path("teacher"), SETTINGS, auto=AUTO))
    harm(Path("teacher"), "several labels a row")
    model = {"class_path": CLASS, "init_args": {"model": "./teacher"}}
    write(model, model)
    assert teacher_logits.main([*RECIPE, "--labels.kind=sigmoid"]) == 0
    own = transformers.AutoModelForSequenceClassification.from_pretrained("teacher").double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("teacher")
    with torch.no_grad():
        z = torch.cat([own(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits for text in texts])
    found = open_store("s/train").probabilities(range(len(texts)), temperature=2.0)
    np.testing.assert_allclose(found, (z / 2).sigmoid().numpy(), atol=1e-3)
    assert verify.main(["s", "--against_teacher=recipe.yaml"]) == 0
    assert "same decisions 100.00%" in capsys.readouterr().out
    (Path("teacher") / "config.json").write_text(
        (Path("teacher") / "config.json").read_text().replace("multi_label", "single_label")
    )
    assert teacher_logits.main([*RECIPE[:1], "--store=t", "--labels.kind=sigmoid"]) == 2
    assert (
        "problem_type is single_label_classification, and labels are stored of each class by itself (sigmoid); say "
        in (capsys.readouterr().err)
    )


@pytest.mark.parametrize("kind", HARMS)
def test_each_door_that_opens_a_checkpoint(
    work: Path, rng: np.random.Generator, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was stored before, by a version that did not ask, is right of the checkpoint as it was."""
    transformers.utils.logging.disable_progress_bar()
    texts = word_texts(rng, 24)
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"text": texts}).to_parquet(work / "texts" / f"{split}.parquet")
    word_tokenizer(checkpoint(Path("teacher"), SETTINGS, auto=AUTO))
    model = {"class_path": CLASS, "init_args": {"model": "./teacher"}}
    write(model, model)
    assert teacher_logits.main(RECIPE) == 0
    own = transformers.AutoModelForSequenceClassification.from_pretrained("teacher").double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("teacher")
    with torch.no_grad():
        z = torch.cat([own(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits for text in texts])
    found = np.exp(open_store("s/train").log_probs(range(len(texts)), temperature=1.0))
    np.testing.assert_allclose(found, z.softmax(-1).numpy(), atol=1e-3)
    save_weights(SequenceClassifier("./teacher"), Path("w.safetensors"))
    harm(Path("teacher"), kind)
    capsys.readouterr()
    doors = {
        "live": lambda: teacher_logits.main(["--config=recipe.yaml", "--store=new"]),
        "train-teacher": lambda: train_teacher.main(["--config=recipe.yaml"]),
        "student": lambda: train_student.main(RECIPE),
        "evaluate": lambda: evaluate.main(["w.safetensors", *RECIPE]),
        "verify": lambda: verify.main(["s", "--against_teacher=recipe.yaml"]),
    }
    if kind == "several labels a row":  # it is there, and left as it is
        del doors["train-teacher"]
    for door, ask in doors.items():
        assert ask() == 2, door
        assert HARMS[kind] in capsys.readouterr().err, door
    assert not Path("new").exists()
    assert not Path("runs").exists()
