"""What a checkpoint's files say beside its tensors: what changes its outputs is applied, or refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from softlabels.errors import ClassMismatch, WeightsError
from softlabels.labels.encoding import DenseEncoding, SigmoidEncoding, ValuesEncoding
from softlabels.labels.targets import Target
from softlabels.models import ModelConfig, build_model
from softlabels.models.causal_lm import CausalLM
from softlabels.models.hf import ImageClassifier, SequenceClassifier
from softlabels.models.weights import wrapping
from softlabels.teacher.ensemble import Ensemble
from tests.models.hf_samples import BERT, CLASSES, DISTILBERT, VIT, checkpoint
from tests.models.lm_samples import GPT2_LM, LLAMA, saved_lm

TEXT = "AutoModelForSequenceClassification"
LORA = {
    "peft_type": "LORA", "task_type": "SEQ_CLS", "base_model_name_or_path": "model", "r": 2, "lora_alpha": 4,
    "target_modules": ["query", "value"], "modules_to_save": ["classifier"], "inference_mode": True, "bias": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers.utils.logging.disable_progress_bar()
    return checkpoint(tmp_path_factory.mktemp("bert") / "model", BERT, auto=TEXT)


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Path:
    """A classifier's folder, to be changed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in bert.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def configured(folder: Path, **facts: Any) -> Path:
    """The folder with other values in its config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return folder


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    """The folder with other tensors."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"problem_type": "several_labels"}, "problem_type is several_labels, and num_labels is 3; .*, regression"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "id2label names the classes 1, 2, 3, and logits are numbered from 0"),
        (
            {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 2, "c": 1}},
            "id2label says that 'b' is class 1, label2id that it is 2",
        ),
    ],
)  # fmt: skip
def test_heads_of_no_known_kind_or_without_numbered_classes(facts: dict[str, Any], words: str, model: Path) -> None:
    with pytest.raises(ClassMismatch, match=words):
        SequenceClassifier(str(configured(model, **facts)))


ONE = {"id2label": {"0": "value"}, "label2id": {"value": 0}}
SOFTMAX, SIGMOID, NUMBERS = ("single_label_classification", "multi_label_classification", "regression")


BY_ITSELF = (
    r"no problem_type, and labels are stored of each class by itself \(sigmoid\); say labels.kind: softmax, .*config"
)
ONE_OF_ALL = (
    "problem_type is multi_label_classification, and labels are stored of one softmax .*labels.kind: sigmoid, .*config"
)


@pytest.mark.parametrize(
    ("facts", "target", "refused"),
    [
        ({}, "softmax", {"sigmoid": BY_ITSELF}),
        ({"problem_type": SOFTMAX}, "softmax", {"sigmoid": "problem_type is single_label_classification, and"}),
        ({"problem_type": SIGMOID}, "sigmoid", {"softmax": ONE_OF_ALL}),
        (
            {"problem_type": NUMBERS},
            "values",
            {"softmax": "problem_type is regression, and", "sigmoid": "is regression, and"},
        ),
        (
            ONE,
            "values",
            {"softmax": "num_labels is 1, a regression, and labels are stored of one", "sigmoid": "is 1, a"},
        ),
        (ONE | {"problem_type": SIGMOID}, "sigmoid", {"softmax": "problem_type is multi_label_classification, and"}),
    ],
)
def test_a_head_is_taken_for_what_it_is(
    facts: dict[str, Any], target: Target, refused: dict[str, str], model: Path
) -> None:
    if "id2label" in facts:
        changed(model, lambda t: t | {name: t[name][:1] for name in ("classifier.weight", "classifier.bias")})
    found = SequenceClassifier(str(configured(model, **facts)))
    assert found.target == target
    encodings = {"softmax": DenseEncoding(), "sigmoid": SigmoidEncoding(), "values": ValuesEncoding()}
    for kind, encoding in encodings.items():
        with pytest.raises(ClassMismatch, match=refused[kind]) if kind in refused else nullcontext():
            Ensemble.of([found], device="cpu").expect(targets={"": encoding})


def test_a_head_is_taken_for_what_is_said_or_is_new(model: Path, bert: Path) -> None:
    configured(model, problem_type="multi_label_classification")
    rows = torch.tensor([[[2, 7, 8, 3], [1, 1, 1, 1]]])
    said = SequenceClassifier(str(model), config={"problem_type": "single_label_classification"}).eval()
    assert said.target == "softmax"
    with torch.no_grad():
        torch.testing.assert_close(said(rows), SequenceClassifier(str(bert)).eval()(rows), rtol=0, atol=0)
    new = SequenceClassifier(str(model), classes=CLASSES + 1)
    assert new.network.config.problem_type == "single_label_classification"  # what its exported config.json says
    kept = SequenceClassifier(str(model), classes=CLASSES + 1, config={"problem_type": "multi_label_classification"})
    assert (new.target, kept.target) == ("softmax", "sigmoid")
    assert SequenceClassifier(config=DISTILBERT, classes=1).target == "values"


def test_labels_may_be_named_as_the_hub_does(model: Path) -> None:
    """Names twice, and numbers as text."""
    facts = {"id2label": {"0": "crane", "1": "crane", "2": "c"}, "label2id": {"crane": "1", "c": "2"}}
    assert SequenceClassifier(str(configured(model, **facts))).class_names == ("crane", "crane", "c")


def test_of_images_too(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "vit", VIT, auto="AutoModelForImageClassification")
    assert ImageClassifier(str(configured(folder, problem_type="multi_label_classification"))).target == "sigmoid"


def adapter(folder: Path, base: Path | None = None) -> dict[str, torch.Tensor]:
    """A LoRA adapter in the folder; its tensors."""
    torch.manual_seed(1)
    tensors = {
        f"base_model.model.bert.encoder.layer.{layer}.attention.self.{part}.lora_{x}.weight": torch.randn(shape)
        for layer in (0, 1)
        for part in ("query", "value")
        for x, shape in (("A", (2, 16)), ("B", (16, 2)))
    } | {
        f"base_model.model.classifier.{name}": torch.randn(shape)
        for name, shape in (("weight", (3, 16)), ("bias", (3,)))
    }
    (folder / "adapter_config.json").write_text(json.dumps(LORA | {"base_model_name_or_path": str(base or folder)}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


@pytest.mark.parametrize("there", [("config", "model"), ("config",), ()], ids=["beside", "alone", "only"])
def test_an_adapter_is_refused_with_or_without_peft(there: tuple[str, ...], model: Path) -> None:
    adapter(model)
    for name, file in (("config", "config.json"), ("model", "model.safetensors")):
        if name not in there:
            (model / file).unlink()
    words = r"holds an adapter \(adapter_config.json, adapter_model.safetensors\).*merge_and_unload"
    with pytest.raises(WeightsError, match=words):
        SequenceClassifier(str(model))
    (model / "adapter_model.safetensors").rename(model / "adapter_model.bin")
    with pytest.raises(WeightsError, match=r"holds an adapter \(adapter_config.json, adapter_model.bin\)"):
        SequenceClassifier(str(model))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of what peft asks of transformers
def test_the_remedy_for_an_adapter_works(model: Path, tmp_path: Path) -> None:
    """With peft itself; W + B A alpha / r in float64 is what it must come to."""
    peft = pytest.importorskip("peft")
    weights, place = load_file(model / "model.safetensors"), tmp_path / "adapter"
    place.mkdir()
    parts = adapter(place, base=model)
    made = peft.AutoPeftModelForSequenceClassification.from_pretrained(place, num_labels=CLASSES)
    made.merge_and_unload().save_pretrained(tmp_path / "merged")
    found = SequenceClassifier(str(tmp_path / "merged")).state_dict()
    name = "bert.encoder.layer.0.attention.self.query.weight"
    a, b = (parts[f"base_model.model.{name.removesuffix('weight')}lora_{x}.weight"].double() for x in "AB")
    torch.testing.assert_close(found[f"network.{name}"].double(), weights[name].double() + b @ a * 2)


@pytest.mark.parametrize("where", ["top", "part"])
def test_quantized_checkpoints_are_refused_by_name(where: str, model: Path) -> None:
    facts: dict[str, Any] = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    configured(model, **(facts if where == "top" else {"text_config": facts}))
    with pytest.raises(
        WeightsError, match=r"quantized \(config.json says so: quantization_config of gptq\).*dequantize"
    ):
        SequenceClassifier(str(model))


@pytest.mark.parametrize(("dtype", "said"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
def test_tensors_that_need_a_scale_are_refused(dtype: torch.dtype, said: str, model: Path) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    changed(model, lambda tensors: tensors | {name: tensors[name].to(dtype)})
    with pytest.raises(WeightsError, match=rf"quantized \({name} in model.safetensors is {said}\)"):
        SequenceClassifier(str(model))


def test_half_weights_widen_without_loss(model: Path) -> None:
    changed(model, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    found, given = SequenceClassifier(str(model)).state_dict(), load_file(model / "model.safetensors")
    assert all(torch.equal(found[f"network.{name}"], tensor.float()) for name, tensor in given.items())


def test_weights_in_several_places_are_refused(model: Path, tmp_path: Path) -> None:
    own = transformers.AutoModelForSequenceClassification.from_pretrained(model)
    own.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    sharded = SequenceClassifier(str(tmp_path / "shards"))
    assert all(torch.equal(sharded.state_dict()[f"network.{n}"], t) for n, t in own.state_dict().items())
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"two sets of weights: model.safetensors, and the shards"):
        SequenceClassifier(str(model))
    for file, words in (
        ("../model/model.safetensors", "files elsewhere: ../model"),
        ("gone.safetensors", "are not there: gone"),
    ):
        wrong = index | {"weight_map": index["weight_map"] | {"classifier.bias": file}}
        (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps(wrong))
        with pytest.raises(WeightsError, match=words):
            SequenceClassifier(str(tmp_path / "shards"))


@pytest.mark.parametrize("word", ["module", "_orig_mod"])
@pytest.mark.parametrize("place", ["before", "inside"])
def test_what_was_wrapped_around_a_saved_model_is_named(word: str, place: str, model: Path) -> None:
    def rename(name: str) -> str:
        return f"{word}.{name}" if place == "before" else name.replace("bert.", f"bert.{word}.")

    changed(model, lambda tensors: {rename(name): tensor for name, tensor in tensors.items()})
    with pytest.raises(WeightsError, match=rf"have the prefix '{word}\.'.*part != '{word}'"):
        SequenceClassifier(str(model))


def test_parts_of_an_adapter_among_the_weights_are_refused(model: Path) -> None:
    name = "bert.encoder.layer.0.attention.self.query"
    changed(model, lambda tensors: tensors | {f"{name}.lora_A.default.weight": torch.zeros(2, 16)})
    with pytest.raises(WeightsError, match=r"parts of an adapter or of quantized layers: .*lora_A"):
        SequenceClassifier(str(model))


def test_a_head_of_another_kind_with_the_same_names_is_refused(tmp_path: Path) -> None:
    """Both kinds of Llama have a `score`: nothing is missing."""
    folder = checkpoint(tmp_path / "model", LLAMA, auto="AutoModelForTokenClassification")
    with pytest.raises(
        WeightsError, match="was saved as LlamaForTokenClassification, and LlamaForSequenceClassification"
    ):
        SequenceClassifier(str(folder))
    assert SequenceClassifier(str(folder), classes=CLASSES + 1).untrained == ("network.score.weight",)


@pytest.mark.parametrize("fact", [{"return_dict": False}, {"torchscript": True}], ids=lambda fact: next(iter(fact)))
def test_outputs_are_found_whatever_form_the_config_gives_them(
    fact: dict[str, bool], model: Path, bert: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = torch.from_numpy(np.stack([rng.integers(5, 90, (3, 6)), np.ones((3, 6), int)], axis=1).astype(np.int32))
    with torch.no_grad():
        found, expected = (SequenceClassifier(str(at)).eval()(rows) for at in (configured(model, **fact), bert))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        lm = configured(saved_lm(tmp_path / "lm", GPT2_LM), **fact)
        assert CausalLM(str(lm)).eval()(rows).shape == (3, 5, 90)
        assert CausalLM(str(lm)).eval().output_matrix() is not None


def test_a_file_of_weights_names_the_prefix_that_does_not_fit(tmp_path: Path) -> None:
    config = ModelConfig("softlabels.models.SequenceClassifier", {"config": DISTILBERT, "classes": 3})
    own = build_model(config).state_dict()
    for rename, words in (
        (lambda name: f"module.{name}", r"the prefix 'module\.', of a model .*DistributedDataParallel"),
        (lambda name: f"module._orig_mod.{name}", r"the prefix 'module\.'"),
        (lambda name: name.replace("network.", "network._orig_mod."), r"the prefix '_orig_mod\.'.*torch.compile"),
        (lambda name: f"student.{name}", r"the prefix 'student\.', which the model's names lack"),
        (lambda name: name.removeprefix("network."), r"not the prefix 'network\.' .*init_args.model"),
    ):
        save_file({rename(name): tensor.clone() for name, tensor in own.items()}, tmp_path / "own.safetensors")
        with pytest.raises(WeightsError, match=words):
            build_model(ModelConfig(config.class_path, config.init_args, str(tmp_path / "own.safetensors")))


def test_a_model_with_such_a_name_inside_is_no_wrapper(tmp_path: Path) -> None:
    made = torch.nn.ModuleDict({"module": torch.nn.Linear(3, 2)})
    save_file(made.state_dict(), tmp_path / "own.safetensors")
    from softlabels.models import load_weights

    load_weights(torch.nn.ModuleDict({"module": torch.nn.Linear(3, 2)}), tmp_path / "own.safetensors")


@pytest.mark.parametrize("lead", ["module.", "module._orig_mod."])
def test_the_remedy_for_a_wrapper_gives_the_model_its_names(lead: str) -> None:
    names, wrapped = ["submodule.weight"], [f"{lead}submodule.weight"]
    while (found := wrapping(wrapped, names)) is not None:
        rename = found[1].partition("rename the tensors: ")[2]
        wrapped = [eval(rename, {"name": name}) for name in wrapped]
    assert wrapped == names
