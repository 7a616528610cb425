"""Hugging Face models: their logits are transformers' own, padding changes nothing, and what would be noise is refused."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from softlabels.errors import ClassMismatch, ConfigError, WeightsError
from softlabels.models import ModelConfig, build_model, save_weights, weights_digest
from softlabels.models.build import untrained
from softlabels.models.hf import ImageClassifier, SequenceClassifier
from softlabels.teacher.config import MemberConfig, TeacherConfig
from softlabels.teacher.ensemble import load_ensemble
from softlabels.teacher.sentinels import check_sentinels
from tests.models.hf_samples import (
    BERT,
    CLASSES,
    DISTILBERT,
    GPT2,
    MODERNBERT,
    NAMES,
    RESNET,
    VIT,
    checkpoint,
)

ROOT = Path(__file__).parent.parent.parent
TEXT, IMAGE = "AutoModelForSequenceClassification", "AutoModelForImageClassification"
TEXT_CLASS, IMAGE_CLASS = "softlabels.models.SequenceClassifier", "softlabels.models.ImageClassifier"


@pytest.fixture(autouse=True)
def no_bars() -> Any:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def tokens(rng: np.random.Generator, rows: int, length: int, *, types: bool = False) -> torch.Tensor:
    """Random rows of 2 to 12 tokens in `length` places."""
    out = np.zeros((rows, 3 if types else 2, length), np.int32)
    for row in out:
        count = int(rng.integers(2, 13))
        row[0, :count], row[-1, :count] = rng.integers(5, 90, count), 1
        if types:
            row[1, count // 2 : count] = 1
    return torch.from_numpy(out)


def padded(rows: torch.Tensor, more: int) -> torch.Tensor:
    return torch.nn.functional.pad(rows, (0, more))


def scaled(folder: Path) -> Path:
    """The checkpoint with weights so large that its logits differ by whole numbers: initial ones make all rows alike."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({name: t * 8 if t.ndim == 2 else t for name, t in load_file(file).items()}, file, {"format": "pt"})
    return folder


@pytest.mark.parametrize("settings", [BERT, DISTILBERT, MODERNBERT, GPT2], ids=lambda each: each["model_type"])
def test_text_logits_are_transformers_own_whatever_the_padding(
    settings: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = scaled(checkpoint(tmp_path / "model", settings, auto=TEXT))
    model = SequenceClassifier(str(folder)).eval()
    own = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = tokens(rng, 30, 13, types=settings is BERT)
    options = {"token_type_ids": rows[:, 1].long()} if settings is BERT else {}
    with torch.no_grad():
        logits = model(rows)
        expected = own(input_ids=rows[:, 0].long(), attention_mask=rows[:, -1].long(), **options).logits
        longer = model(padded(rows, 20))
        untrimmed = own(input_ids=padded(rows, 20)[:, 0].long(), attention_mask=padded(rows, 20)[:, -1].long())
        alone = torch.cat([model(rows[n : n + 1]) for n in range(30)])
    assert logits.dtype == torch.float32
    assert logits.shape == (30, CLASSES)
    assert logits.std(0).min() > 0.05  # rows that differ, so that agreement says something
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(longer, logits, rtol=0, atol=0)  # the same batch, once it is trimmed
    torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-4)
    if settings is not BERT:
        torch.testing.assert_close(untrimmed.logits, logits, rtol=1e-4, atol=1e-4)
    else:
        assert (own(input_ids=rows[:, 0].long(), attention_mask=rows[:, -1].long()).logits - logits).abs().max() > 1e-3


def test_padding_on_the_left_is_trimmed_too(tmp_path: Path, rng: np.random.Generator) -> None:
    model = SequenceClassifier(str(checkpoint(tmp_path / "model", BERT, auto=TEXT))).eval()
    rows = tokens(rng, 8, 13)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.nn.functional.pad(rows, (9, 0))), model(rows), rtol=0, atol=0)


def test_token_types_are_left_out_where_the_architecture_has_none(tmp_path: Path, rng: np.random.Generator) -> None:
    model = SequenceClassifier(str(checkpoint(tmp_path / "model", DISTILBERT, auto=TEXT))).eval()
    rows = tokens(rng, 8, 13, types=True)
    with torch.no_grad():
        torch.testing.assert_close(model(rows), model(rows[:, [0, 2]]), rtol=0, atol=0)


@pytest.mark.parametrize("settings", [VIT, RESNET], ids=lambda each: each["model_type"])
def test_image_logits_are_transformers_own(settings: dict[str, Any], tmp_path: Path, rng: np.random.Generator) -> None:
    folder = checkpoint(tmp_path / "model", settings, auto=IMAGE)
    model = build_model(ModelConfig(IMAGE_CLASS, {"model": str(folder)})).eval()
    assert untrained(model) == ()
    own = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = torch.from_numpy(rng.normal(size=(5, 3, 12, 12)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), own(pixel_values=pixels).logits)


def test_a_narrow_checkpoint_is_computed_in_float32(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    config = transformers.AutoConfig.for_model(**DISTILBERT, num_labels=CLASSES)
    transformers.AutoModelForSequenceClassification.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    assert {p.dtype for p in SequenceClassifier(str(folder)).parameters()} == {torch.float32}


def test_from_scratch_is_a_pure_function_of_the_seed() -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(build_model(ModelConfig(TEXT_CLASS, {"config": DISTILBERT, "classes": 4})))
    digests = [weights_digest(model) for model in made]
    assert digests[0] == digests[1] != digests[2]
    assert set(untrained(made[0]) or ()) == set(made[0].state_dict())
    assert made[0].training


def test_dropout_of_a_checkpoint_may_be_changed(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", DISTILBERT, auto=TEXT)
    model = SequenceClassifier(str(folder), config={"dropout": 0.37, "seq_classif_dropout": 0.41})
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} >= {0.37, 0.41}
    assert untrained(model) == ()


def member(**init_args: Any) -> MemberConfig:
    return MemberConfig(TEXT_CLASS, init_args)


def ensemble_of(*members: MemberConfig) -> Any:
    return load_ensemble(TeacherConfig(members=members, device="cpu", batch_size=8))


def test_a_checkpoint_is_a_teacher_without_a_weights_file(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = checkpoint(tmp_path / "model", BERT, auto=TEXT)
    ensemble = ensemble_of(member(model=str(folder)))
    assert check_sentinels(ensemble, tokens(rng, 40, 20).numpy()) == {"": CLASSES}
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert ensemble_of(member(model=str(moved))).spec == ensemble.spec
    assert str(tmp_path) not in repr(ensemble.spec)


def test_a_new_head_is_refused_in_a_teacher_and_said_of_a_student(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    headless = checkpoint(tmp_path / "headless", DISTILBERT, auto="AutoModel")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            student = build_model(ModelConfig(TEXT_CLASS, {"model": str(headless), "classes": 7}))
    said = [line for line in caplog.messages if str(headless) in line]
    assert len(said) == 1
    assert "network.classifier.weight" in said[0]
    assert "embeddings" not in said[0]
    body = transformers.AutoModel.from_pretrained(headless).state_dict()
    own = student.state_dict()
    assert all(torch.equal(own[f"network.distilbert.{name}"], tensor) for name, tensor in body.items())
    assert own["network.classifier.weight"].shape == (7, 16)
    with pytest.raises(WeightsError, match=r"members\[0\].*no weights for network\.classifier\.bias.*noise"):
        ensemble_of(member(model=str(headless), classes=7))
    other = checkpoint(tmp_path / "other", DISTILBERT, auto=TEXT)
    with pytest.raises(WeightsError, match=r"no weights for network\.classifier"):
        ensemble_of(member(model=str(other), classes=CLASSES + 1))
    ensemble_of(member(model=str(other), classes=CLASSES))


def test_a_teacher_from_scratch_needs_a_weights_file(tmp_path: Path) -> None:
    scratch = {"config": DISTILBERT, "classes": CLASSES}
    with pytest.raises(WeightsError, match="no weights for"):
        ensemble_of(member(**scratch))
    save_weights(build_model(ModelConfig(TEXT_CLASS, scratch)), tmp_path / "own.safetensors")
    ensemble_of(MemberConfig(TEXT_CLASS, scratch, str(tmp_path / "own.safetensors")))


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", BERT, auto=TEXT)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no model\.safetensors in .*nothing of the kind"):
        SequenceClassifier(str(folder))

    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"a": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"only pytorch_model\.bin: pickles"):
        SequenceClassifier(str(folder))
    assert not (tmp_path / "sprung").exists()


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", BERT, auto=TEXT)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "trap", "auto_map": {"AutoConfig": "trap.Trap", TEXT: "trap.Trap"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\n")
    with pytest.raises(ConfigError, match="cannot build") as caught:
        SequenceClassifier(str(folder))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "asked",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": {"": "eager", "text_config": "someone/kernel@main:run"}},
        {"text_config": {"experts_implementation": "paged|someone/kernel"}},
    ],
)
def test_code_on_the_hub_is_not_fetched_for_a_checkpoint(tmp_path: Path, asked: dict[str, Any]) -> None:
    """What transformers calls kernels, and runs where the package of that name is installed."""
    folder = checkpoint(tmp_path / "model", BERT, auto=TEXT)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "eager"}))
    SequenceClassifier(str(folder))
    (folder / "config.json").write_text(json.dumps(config | asked))
    with pytest.raises(ConfigError, match=r"refers to code on the hub: \w+_implementation: .*someone/kernel"):
        SequenceClassifier(str(folder))


@pytest.mark.parametrize("inside", ["text_config", "vision_config"])
def test_code_on_the_hub_is_not_fetched_for_a_recipe(inside: str) -> None:
    """Nor where a recipe asks for it, which may be of somebody else's run: a config may hold others."""
    asked = {"model_type": "gemma3", inside: {"_attn_implementation": "someone/kernel"}}
    with pytest.raises(ConfigError, match=r"init_args\.config refers to code on the hub: .*someone/kernel"):
        SequenceClassifier(config=asked, classes=3)


@pytest.mark.parametrize(
    ("init_args", "error", "words"),
    [
        ({}, ConfigError, r"config\.model_type is missing"),
        ({"config": {"model_type": "distilbert"}}, ConfigError, "classes is missing"),
        ({"config": {**DISTILBERT, "n_layer": 2}, "classes": 3}, ConfigError, "no 'n_layer'; did you mean n_layers"),
        ({"config": {**DISTILBERT, "num_labels": 2}, "classes": 3}, ConfigError, "give only classes"),
        ({"config": {"model_type": "distilbertt"}, "classes": 3}, ConfigError, "cannot build distilbertt"),
        ({"config": VIT, "classes": 3}, ConfigError, "cannot build vit"),
        ({"config": {**DISTILBERT, "n_heads": 3}, "classes": 3}, ConfigError, "cannot build distilbert"),
        ({"model": "./nowhere"}, ConfigError, r"no folder \./nowhere"),
        ({"model": "/nowhere/at/all"}, ConfigError, "no folder /nowhere/at/all"),
        ({"model": "nobody/nothing-of-this-name"}, ConfigError, r"hub does not give it \(HF_HUB_OFFLINE is set\)"),
        ({"model": "EMPTY"}, ConfigError, r"no config\.json in"),
        ({"model": "MODEL", "config": {"dimm": 3}}, ConfigError, "no 'dimm'"),
        ({"model": "MODEL", "config": {"dim": 8, "n_heads": 2}}, WeightsError, r"do not fit in shape: .*embeddings"),
        ({"model": "STRANGE"}, WeightsError, "no tensor in"),
        ({"model": "VIT"}, ConfigError, "cannot build"),
    ],
)
def test_what_makes_no_model_is_refused(
    init_args: dict[str, Any], error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = {"EMPTY": tmp_path / "empty"}
    place["EMPTY"].mkdir()
    if init_args.get("model") == "MODEL":
        place["MODEL"] = checkpoint(tmp_path / "model", DISTILBERT, auto=TEXT)
    if init_args.get("model") == "VIT":
        place["VIT"] = checkpoint(tmp_path / "vit", VIT, auto=IMAGE)
    if init_args.get("model") == "STRANGE":
        from safetensors.torch import save_file

        place["STRANGE"] = checkpoint(tmp_path / "strange", DISTILBERT, auto=TEXT)
        save_file({"something": torch.zeros(3)}, place["STRANGE"] / "model.safetensors", {"format": "pt"})
    if "model" in init_args:
        init_args = init_args | {"model": str(place.get(init_args["model"], init_args["model"]))}
    with pytest.raises(error, match=words) as caught:
        build_model(ModelConfig(TEXT_CLASS, init_args))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.zeros(4, 9, dtype=torch.int32), "takes tokens"),
        (torch.zeros(4, 2, 9), "takes tokens"),
        (torch.zeros(4, 4, 9, dtype=torch.int32), "takes tokens"),
        (torch.ones(4, 2, 41, dtype=torch.int32), "rows have 41 tokens and .* positions for 40"),
        (torch.full((4, 2, 9), 90, dtype=torch.int32), "token ids from 90 to 90 and .* embeddings for 90"),
        (torch.full((4, 2, 9), -1, dtype=torch.int32), "token ids from -1 to -1"),
    ],
)
def test_inputs_of_another_kind_are_refused(inputs: torch.Tensor, words: str) -> None:
    model = SequenceClassifier(config=DISTILBERT, classes=3)
    with pytest.raises(ConfigError, match=words):
        model(inputs)


def test_pixels_of_another_kind_are_refused() -> None:
    model = ImageClassifier(config=VIT, classes=3)
    for inputs, words in (
        (torch.zeros(2, 1, 12, 12), r"takes images \(B, 3, H, W\)"),
        (torch.zeros(2, 3, 12, 12, dtype=torch.float64), "takes float32 inputs"),
        (torch.zeros(2, 3, 10, 12), "cannot take inputs"),
    ):
        with pytest.raises(ConfigError, match=words):
            model(inputs)


def named(folder: Path, names: tuple[str, ...]) -> Path:
    label2id = {name: number for number, name in enumerate(names)}
    return checkpoint(folder, BERT, auto=TEXT, id2label=dict(enumerate(names)), label2id=label2id)


def test_class_names_in_another_order_are_refused(tmp_path: Path) -> None:
    plain = checkpoint(tmp_path / "plain", BERT, auto=TEXT)
    right = named(tmp_path / "right", ("Bird", "fish", "STONE"))
    ensemble_of(member(model=str(plain)), member(model=str(right))).check_class_names(NAMES, whose="the rows")
    turned = ensemble_of(member(model=str(plain)), member(model=str(named(tmp_path / "turned", NAMES[::-1]))))
    turned.check_class_names(None, whose="the rows")
    with pytest.raises(
        ClassMismatch, match=r"member 1 .* another order: stone, fish, bird; the rows: bird, fish, stone"
    ):
        turned.check_class_names(NAMES, whose="the rows")
    other = ensemble_of(member(model=str(named(tmp_path / "other", ("bird", "fish", "cloud")))))
    with pytest.raises(ClassMismatch, match="other classes: bird, fish, cloud"):
        other.check_class_names(NAMES, whose="the rows")


def test_names_say_nothing_of_a_head_that_was_trained_here(tmp_path: Path) -> None:
    turned = named(tmp_path / "turned", NAMES[::-1])
    save_weights(SequenceClassifier(str(turned)), tmp_path / "tuned.safetensors")
    tuned = MemberConfig(TEXT_CLASS, {"model": str(turned)}, str(tmp_path / "tuned.safetensors"))
    ensemble_of(tuned).check_class_names(NAMES, whose="the rows")
    assert SequenceClassifier(str(turned), classes=5).class_names is None


WITHOUT = """
import sys
sys.modules["transformers"] = sys.modules["tokenizers"] = None
from pathlib import Path
from softlabels.errors import MissingExtra
from softlabels.models import ModelConfig, build_model
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferSetConfig
from softlabels.transfer.text import tokenize
from softlabels.recipes.tokenizer import TokenizerConfig, ensure_tokenizer
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer.vision import process

folder = Path(sys.argv[1])
for name in ("tokenizer.json", "preprocessor_config.json"):
    (folder / name).write_text("{}")
prepare = ObjectSpec("softlabels.transfer.tokenize", {"tokenizer": str(folder / "new")})
calls = [
    lambda: build_model(ModelConfig("softlabels.models.ImageClassifier", {"config": {"model_type": "vit"}, "classes": 2})),
    lambda: tokenize(["text"], tokenizer=str(folder)),
    lambda: process([], processor=str(folder)),
    lambda: ensure_tokenizer(TokenizerConfig(), TransferSetConfig(source="none", inputs=("text",), prepare=prepare)),
]
for call in calls:
    try:
        call()
    except MissingExtra as error:
        assert "pip install 'softlabels[hf]'" in str(error)
    else:
        raise SystemExit(f"{call} worked")
"""


def test_without_the_extra_an_error_names_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_transformers_is_imported_where_it_is_used_only() -> None:
    modules = (
        "softlabels.models.hf, softlabels.models.hf_folder, softlabels.transfer.text, softlabels_stages.train_student"
    )
    code = f"import sys, {modules}\nassert 'transformers' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
