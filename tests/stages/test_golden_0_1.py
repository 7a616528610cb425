"""What version 0.1 began is finished as 0.1 finishes it, by whatever names; `golden_0_1/make.py` says what that is."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file

from softlabels.models import ModelConfig, build_model
from softlabels.names import OF_0_1, SHIPPED
from softlabels.objects import import_object
from softlabels.store import open_store
from softlabels.store.verify import verify
from softlabels.student.checkpoint import environment
from softlabels_stages import evaluate, teacher_logits, train_student, train_teacher
from softlabels_stages import verify as verify_stage
from tests.stages.golden_0_1.make import COMMANDS, HERE, ROWS

EXPECTED = json.loads((HERE / "finished" / "expected.json").read_text())
# Of other processors and versions the last bits may differ; see make.py.
IS_SAME_ENVIRONMENT = all(environment()[name] == value for name, value in EXPECTED["environment"].items())
STYLES: dict[str, Callable[[str], str]] = {
    "as 0.1 wrote it": lambda name: name,
    "short": OF_0_1.__getitem__,
    "long": lambda name: SHIPPED[OF_0_1[name]],
}
styles = pytest.mark.parametrize("style", STYLES)


@pytest.fixture
def left(work: Path) -> Path:
    """The current folder as 0.1 left it."""
    return Path(shutil.copytree(HERE / "work", work, dirs_exist_ok=True))


def write_in(style: str) -> None:
    """The recipes in the current folder, with their names in this style."""
    for recipe in Path().glob("*.yaml"):
        text = recipe.read_text()
        for name in OF_0_1:
            text = text.replace(name, STYLES[style](name))
        recipe.write_text(text)


def run(what: str, *more: str) -> int:
    stage, words, _ = COMMANDS[what]
    code: int = importlib.import_module(f"softlabels_stages.{stage}").main([*words, *more])
    return code


def assert_trained_as_before(path: str) -> None:
    """The weights are those of 0.1: its bytes in its environment, else all but the last bits."""
    assert Path(path).exists()
    before, now = load_file(HERE / "finished" / path), load_file(path)
    for name, values in before.items():
        torch.testing.assert_close(now[name], values, rtol=1e-3, atol=1e-4)
    if IS_SAME_ENVIRONMENT:
        assert blake3(Path(path).read_bytes()).hexdigest() == EXPECTED["weights"][path]


@styles
@pytest.mark.parametrize("kind", ["dense", "topk"])
def test_an_unfinished_store_gets_its_digest(left: Path, style: str, kind: str) -> None:
    write_in(style)
    files = [path for path in Path("stores", kind).rglob("*") if path.is_file() and "staging" not in path.parts]
    before = {path: path.read_bytes() for path in files if "test" not in path.parts}
    assert run(kind) == 0
    for split in ROWS:
        store = open_store(f"stores/{kind}/{split}")
        assert verify(store.path) == []
        assert store.spec.preprocessing.function == "pipeline.transfer.prepare.scale"  # its plan keeps its names
        if kind == "dense" or IS_SAME_ENVIRONMENT:
            assert store.digest == EXPECTED["stores"][kind][split]
    assert {path: path.read_bytes() for path in before} == before


def test_every_name_begins_the_same_store_and_run(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("runs")
    digests = set()
    for style in STYLES:
        shutil.copytree(HERE / "work", left, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
        write_in(style)
        root = f"stores/{style.replace(' ', '-')}"
        assert teacher_logits.main(["--config=points.yaml", f"--store={root}"]) == 0
        digests.add(tuple(open_store(f"{root}/{split}").digest for split in ROWS))
        capsys.readouterr()
        assert train_student.main(["--config=points.yaml", f"--store={root}", "--epochs=1"]) == 0
        assert ("side by side" in capsys.readouterr().out) == (len(digests) == 1 and style == "as 0.1 wrote it")
    assert len(digests) == 1
    assert len(list(Path("runs").iterdir())) == 1
    assert "pipeline." not in next(Path("runs").glob("*/run.json")).read_text()


@styles
def test_an_unfinished_run_gets_its_weights(left: Path, style: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the folder that 0.1 named after its own names; finished, it is shown by any name."""
    write_in(style)
    [path] = [name for name in EXPECTED["weights"] if name.startswith("runs/")]
    assert run("run") == 0
    assert_trained_as_before(path)
    assert sorted(map(str, Path("runs").iterdir())) == [str(Path(path).parents[1])]
    shutil.copy(HERE / "work" / "points.yaml", "points.yaml")
    write_in("short" if style == "as 0.1 wrote it" else "as 0.1 wrote it")
    capsys.readouterr()
    assert run("run") == 0
    assert "side by side" not in capsys.readouterr().out
    assert "pipeline.models.mlp.MLP" in Path(path).parents[1].joinpath("config.yaml").read_text()
    assert evaluate.main([str(Path(path).parent)]) == 0


@styles
def test_an_unfinished_training_of_a_teacher_gets_its_weights(left: Path, style: str) -> None:
    write_in(style)
    assert train_teacher.main(["--config=teacher.yaml"]) == 0
    assert_trained_as_before("teachers/c.safetensors")


@styles
def test_a_sealed_store_is_what_its_teacher_says(left: Path, style: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_in(style)
    assert verify_stage.main(["stores/sealed", "--against_teacher=points.yaml"]) == 0
    assert capsys.readouterr().out.count("same top class 100.00%") == len(ROWS)


def test_a_split_that_0_1_did_not_label_joins_those_that_it_did(left: Path) -> None:
    """Two names of one teacher are no two teachers."""
    write_in("short")
    shutil.copy("data/test.parquet", "data/validation.parquet")
    splits = ["--transfer_set.splits.validation=validation", "--store=stores/sealed"]
    assert teacher_logits.main(["--config=points.yaml", *splits]) == 0
    names = {open_store("stores/sealed", split=split).spec.teacher.members[0].model for split in (*ROWS, "validation")}
    assert names == {"pipeline.models.mlp.MLP", "softlabels.models.MLP"}
    assert train_student.main(["--config=points.yaml", *splits, "--epochs=1"]) == 0


def test_an_exported_student_names_a_class_that_is_there() -> None:
    import onnxruntime

    [path] = (HERE / "finished").glob("runs/*/distilled-seed0/student.onnx")
    session = onnxruntime.InferenceSession(path)
    facts = session.get_modelmeta().custom_metadata_map
    named, prepare = json.loads(facts["softlabels.student"]), json.loads(facts["softlabels.preprocessing"])
    assert named["class_path"] == "pipeline.models.mlp.MLP"
    assert import_object(prepare["function"]).__name__ == "scale"
    student = build_model(ModelConfig(**named, weights=str(path.with_name("weights.safetensors")))).eval()
    inputs = np.random.default_rng(0).random((5, 4, 4), np.float32)
    [logits] = session.run(["logits"], {"inputs": inputs})
    np.testing.assert_allclose(student(torch.from_numpy(inputs)).detach(), logits, rtol=1e-4, atol=1e-5)


def test_golden_files_are_small() -> None:
    assert sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file()) < 200_000
