"""The card says what the run's files say, its code runs, and no name of a stranger's breaks out of its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from softlabels.errors import LONGEST, one_line
from softlabels.models import ModelConfig, build_model, save_weights
from softlabels.objects import ObjectSpec
from softlabels.report.model_card import model_card
from softlabels.store.markdown import code, escaped, without_folders, yaml_lines
from softlabels.store.reader import open_store
from softlabels.store.records import Manifest
from tests.report import made_up

GOLDEN = Path(__file__).parent.parent / "store" / "golden" / "v1-zarr"
STUDENT = {"class_path": "softlabels.models.MLP", "init_args": {"inputs": 4, "hidden": [8], "classes": 3}}
RECIPE: dict[str, Any] = {
    "name": "toy",
    "transfer_set": {"source": "ylecun/mnist"},
    "student": STUDENT,
    "training": {
        "epochs": 7, "precision": "bfloat16", "validation": 0.1, "hard_label_fraction": 0.25,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    },
}  # fmt: skip
HOSTILE = [
    "a\n# Trusted\n", "a\r\n---\nlicense: mit", "</p><script>x</script>", "```\nrm -rf\n```", "| x | y |", "[a](javascript:b)",
    "![x](http://y/z.png)", '"]\nlicense: mit', "a\u2028# b", "\u202eevil", "\x1b[2J", "`code`", "*b*" * 3000,
]  # fmt: skip


def with_names(manifest: Manifest, name: str) -> Manifest:
    """The manifest with `name` wherever a recipe, or whoever made the store, may say something."""
    spec = manifest.spec
    member = msgspec.structs.replace(spec.teacher.members[0], model=name)
    return msgspec.structs.replace(
        manifest,
        about=msgspec.structs.replace(manifest.about, teacher_licence=name, transfer_licence=name),
        spec=msgspec.structs.replace(
            spec,
            teacher=msgspec.structs.replace(
                spec.teacher, name=name, precision=name, members=(member, *spec.teacher.members[1:])
            ),
            transfer_set=msgspec.structs.replace(spec.transfer_set, name=name, revision=name, split=name),
            one_label_space=msgspec.structs.replace(spec.label_space, names=(name,) * spec.label_space.classes),
            preprocessing=msgspec.structs.replace(spec.preprocessing, function=name, arguments={name: name}),
        ),
    )


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return open_store(GOLDEN).manifest


PREPARE = ObjectSpec("my.own.prepare", {"divisor": 255})


def card(rng: np.random.Generator, manifest: Manifest, prepare: ObjectSpec = PREPARE, **changes: Any) -> str:
    results = made_up.results(rng, **changes)
    for student in results["students"]:
        for scores in student["scores"]:
            scores["accuracy"] = 1 - scores["errors"] / 500 if "errors" in scores else 0.5
    folders = ["distilled-seed0", "hard-seed0"]
    stores = {"train": manifest, "test": manifest}
    return model_card(
        results, RECIPE, stores=stores, parameters=12345, prepare=prepare,
        folders=folders, pictures=["sweep.png", "curves.png"],
    )  # fmt: skip


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The front matter as the hub reads it, and the page below."""
    match = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    assert match is not None
    return yaml.safe_load(match[1]), text[match.end() :]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_hub_reads_the_card(rng: np.random.Generator, manifest: Manifest, name: str) -> None:
    """With its own classes, which know what a model's card holds."""
    data = ModelCard(card(rng, with_names(manifest, name))).data
    assert data.license == "other"
    assert {each.dataset_name for each in data.eval_results} == {one_line(name)}


def test_the_card_says_what_was_done(rng: np.random.Generator, manifest: Manifest) -> None:
    assert "- Takes inputs as those that its labels came with\n" in card(rng, manifest, ObjectSpec(""))
    head, page = front_matter(card(rng, manifest))
    assert head["datasets"] == ["ylecun/mnist"]
    assert {entry["name"] for entry in head["model-index"]} == {"hard", "distilled"}
    value = head["model-index"][1]["results"][0]["metrics"][0]["value"]
    assert 0.8 < value < 1
    for said in (
        "Takes inputs prepared by `my.own.prepare` with `{'divisor': 255}`",
        "12,345 parameters", "`softlabels.models.MLP`", manifest.digest, escaped(manifest.spec.teacher.name),
        "hard weight 0.1, soft weight 0.9, loss `forward_kl` at T = 4", "Seeds: 0, 1, 2", "`torch.optim.SGD`",
        "precision of the forward pass bfloat16", "epochs 7", "hard label was used 0.25", "| student, distilled |",
        "hard - distilled", "![sweep.png](sweep.png)", "`curves.png`", "torch.export.load", "weights.safetensors",
        "and a class is code", "unless you give `--trust`", "`weights_only=True`",
    ):  # fmt: skip
        assert said in page, said
    assert "files are data" not in page
    assert page.count("\n# ") + page.startswith("# ") == 1


def test_the_code_on_the_card_loads_the_student(
    rng: np.random.Generator, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(ModelConfig(**STUDENT))
    save_weights(model, tmp_path / "distilled-seed0" / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"```python\n(.*?)```", card(rng, manifest), re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(block, names)
    inputs = torch.from_numpy(rng.normal(size=(5, 4)).astype(np.float32))
    assert torch.equal(names["student"](inputs), model(inputs))


def test_it_loads_the_best_student_and_says_what_goes_in(rng: np.random.Generator, manifest: Manifest) -> None:
    """The best by the validation rows. Seen to fail: it was the first one, and nothing said what `inputs` are."""
    results = made_up.results(rng, swept={"temperature": [1.0, 4.0]}, seeds=3)
    for student, errors in zip(results["students"][1:], ([5, 9, 9], [4, 3, 4]), strict=True):
        student["validation"] = [{"errors": count, "labelled": 50} for count in errors]
    folders = [f"distilled-T={t}-seed{seed}" for t in (1, 4) for seed in range(3)]
    prepare = ObjectSpec("softlabels.transfer.scale", {"divisor": 255})
    facts = {"stores": {"train": manifest}, "parameters": 1, "prepare": prepare, "inputs": ("float32", (28, 28))}
    text = model_card(results, RECIPE, folders=folders, **facts)
    assert "'distilled-T=4-seed1/weights.safetensors'" in text
    assert "InferenceSession('distilled-T=4-seed1/student.onnx')" in text
    assert "Inputs are float32, of shape (rows, 28, 28), made from raw rows" in text
    names: dict[str, Any] = {"rows": [np.full((28, 28), 51, np.uint8)] * 2}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    assert (names["inputs"].shape, str(names["inputs"].dtype)) == ((2, 28, 28), "float32")
    assert names["inputs"][0, 0, 0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "change", [{"hard": False}, {"labels": False}, {"seeds": 1}, {"swept": {"alpha": [0.5, "linear:1:0"]}}]
)
def test_a_card_of_any_run(rng: np.random.Generator, manifest: Manifest, change: dict[str, Any]) -> None:
    head, page = front_matter(card(rng, manifest, **change))
    assert ("One seed" in page) == ("seeds" in change)
    assert ("what distilling added is not known" in page) == (change.get("hard") is False)
    assert ("alpha linear:1:0: soft weight alpha" in page) == ("swept" in change)
    assert len(head["model-index"]) == {"hard": 1, "swept": 3}.get(next(iter(change)), 2)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_names_stay_in_their_places(rng: np.random.Generator, manifest: Manifest, name: str) -> None:
    plain = card(np.random.default_rng(1), manifest)
    text = card(np.random.default_rng(1), with_names(manifest, name))
    head, page = front_matter(text)
    assert set(head) - {"license", "license_name"} == set(front_matter(plain)[0]) - {"license", "license_name"}
    assert head["license"] == "other"
    plain_page = front_matter(plain)[1]
    for mark in ("\n#", "\n```", "\n---", "\n- ", "\n|"):
        assert page.count(mark) == plain_page.count(mark), mark
    outside_code = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    outside_code = outside_code.replace("![sweep.png](sweep.png)", "").replace("![curves.png](curves.png)", "")
    assert not re.search(r"(?<!\\)[<\[`]", outside_code)
    assert not re.search("[\x00-\x09\x0b-\x1f\u2028\u202e]", text)


def test_escapes(rng: np.random.Generator) -> None:
    text = "".join(chr(int(number)) for number in rng.integers(1, 0x3000, 400))
    (quoted,) = yaml_lines({"name": one_line(text)})
    for kept in (one_line(text), escaped(text), code(text), quoted):
        assert len(kept.splitlines()) <= 1
        assert kept.isprintable()
    assert len(one_line(text * 9)) == LONGEST
    assert yaml.safe_load(quoted) == {"name": one_line(text)}
    assert code("a|`b`") == "`a¦'b'`"
    assert escaped("pipeline_x [y]") == r"pipeline\_x \[y\]"


def test_the_data_set_of_an_encoded_store_is_named(
    rng: np.random.Generator, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPE, "transfer_set", None)
    about = msgspec.structs.replace(
        manifest.about, source="ylecun/mnist; encoded from the dense labels 0123456789abcdef"
    )
    assert front_matter(card(rng, msgspec.structs.replace(manifest, about=about)))[0]["datasets"] == ["ylecun/mnist"]


def test_paths_of_a_machine_are_cut_to_their_last_part(tmp_path: Path) -> None:
    paths = ["/home/me/a.bin", "~/x/b/", "~me/c", r"C:\Users\me\d", r"\\host\share\e", "file:///f", "/data/", "/my g.h"]
    assert [without_folders(path) for path in paths] == ["a.bin", "b", "c", "d", "e", "f", "data", "my g.h"]
    (tmp_path / "two words").mkdir()
    assert without_folders(str(tmp_path / "two words")) == "two words"
    kept = {
        "model": "google/bert",
        "folder": "./images",
        "sep": "/",
        "prompt": "/think first, then answer yes/no",
        "chat": "/no_think",
        "size": [1, 2.5, None],
        "ratio": "a/b",
    }
    assert without_folders({"deep": [kept, "/srv/x"]}) == {"deep": [kept, "x"]}


@pytest.mark.parametrize(
    ("name", "auto"),
    [("SequenceClassifier", "AutoModelForSequenceClassification"), ("CausalLM", "AutoModelForCausalLM")],
)
def test_a_student_that_began_as_a_checkpoint_is_handed_on_without_it(
    rng: np.random.Generator, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, name: str, auto: str
) -> None:
    init_args = {"model": "/home/me/base", "classes": 4}
    student = {"class_path": f"softlabels.models.{name}", "init_args": init_args}
    monkeypatch.setitem(RECIPE, "student", student)
    text = card(rng, manifest)
    assert "with `{'model': 'base', 'classes': 4}`" in text
    assert f"{auto}.from_pretrained('distilled-seed0/hf')" in text
    assert "build_model" not in text
