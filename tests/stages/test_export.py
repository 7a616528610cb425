"""export from the outside: where it finds student, recipe and rows, what it writes, prints and refuses."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from softlabels.models import ModelConfig, build_model, save_weights
from softlabels.models.mlp import MLP
from softlabels.store import open_store
from softlabels_stages import export
from softlabels_stages.trust import record
from tests.stages import toy


@pytest.fixture
def run(work: Path, store: Path) -> Path:
    """A finished run of two students that were never trained, recorded as made here."""
    folder = work / "run"
    folder.mkdir()
    toy.write_recipe(folder / "config.yaml")
    record((folder / "config.yaml").read_bytes(), folder)
    (folder / "results.json").write_text(json.dumps({"store": "store"}))
    for kind in ("hard", "distilled"):
        save_weights(
            build_model(ModelConfig(**toy.recipe()["student"])), folder / f"{kind}-seed0" / "weights.safetensors"
        )
    return folder


def test_a_student_of_a_run_is_exported_and_the_last_line_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["run"]) == 0  # its one distilled student
    *lines, last = capsys.readouterr().out.splitlines()
    expected = (
        r"run/distilled-seed0/student\.(onnx|pt2): [\d,]+ bytes(, opset \d+)?; compared with the student on 80 rows "
    )
    assert all(re.match(expected, line) for line in lines)
    assert len(lines) == 2
    written = {path.relative_to(run).as_posix() for path in run.glob("*/student.*")}
    assert written == {"distilled-seed0/student.onnx", "distilled-seed0/student.pt2"}

    command = shlex.split(last.partition("try next: ")[2])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[") == 2

    session = onnxruntime.InferenceSession("run/distilled-seed0/student.onnx")
    said = session.get_modelmeta().custom_metadata_map
    held_out = open_store("store", split="test")
    assert json.loads(said["softlabels.class_names"]) == toy.NAMES
    assert json.loads(said["softlabels.store"]) == {"split": "test", "digest": held_out.digest}
    assert json.loads(said["softlabels.preprocessing"])["function"] == "softlabels.transfer.vector"
    assert json.loads(said["softlabels.inputs"]) == {"dtype": "float32", "shape": ["batch", toy.FEATURES]}
    assert json.loads(said["softlabels.student"]) == toy.recipe()["student"]
    weights = ModelConfig(**toy.recipe()["student"], weights="run/distilled-seed0/weights.safetensors")
    rows = toy.points("test")["x"]
    with torch.no_grad():
        expected_logits = build_model(weights).eval()(torch.from_numpy(rows))
    np.testing.assert_allclose(session.run(None, {"inputs": rows})[0], expected_logits, rtol=1e-4, atol=1e-5)


class Noted(MLP):
    """A student that is told where something lies on the machine that made it."""

    def __init__(self, note: str, **arguments: Any) -> None:
        super().__init__(**arguments)


def test_no_path_of_the_maker_is_in_the_file(run: Path, work: Path) -> None:
    """Seen to fail: arguments of the student and its weights stood in the metadata as they were given."""
    secret = work / "people" / "me" / "table.csv"
    student = toy.recipe()["student"]
    arguments = {"note": str(secret), **student["init_args"]}
    toy.write_recipe(run / "config.yaml", student={"class_path": f"{__name__}.Noted", "init_args": arguments})
    assert export.main([str(run / "distilled-seed0"), "--out=shipped", "--trust"]) == 0
    for name in ("student.onnx", "student.pt2"):
        assert str(work).encode() not in (Path("shipped") / name).read_bytes()
    said = onnxruntime.InferenceSession("shipped/student.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["softlabels.student"])["init_args"]["note"] == "table.csv"


def test_plain_weights_go_where_they_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--from=run/hard-seed0/weights.safetensors", "--config=run/config.yaml", "--store=store/test"]
    assert export.main([*words, "--formats=torch", "--out=shipped", "--rows=9"]) == 0
    assert "on 9 rows of test" in capsys.readouterr().out
    assert [path.name for path in Path("shipped").iterdir()] == ["student.pt2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no student is named; write softlabels export RUN/STUDENT"),
        (["run", "--formats=onnx,tflite"], "formats are onnx, tflite; give onnx, torch, int8, hf, or some of them"),
        (["run", "--rows=0"], "rows is 0; "),
        (["run/none-seed0", "--config=run/config.yaml"], "WeightsError: there is no student run/none-seed0;"),
        (["--from=run/hard-seed0", "--store=elsewhere"], "elsewhere"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert export.main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error


def test_of_several_students_one_must_be_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "distilled-seed1").mkdir()
    (run / "distilled-seed1" / "weights.safetensors").touch()
    assert export.main(["run"]) == 2
    listed = "run holds 3 students: distilled-seed0, distilled-seed1, hard-seed0; name one, as run/distilled-seed0"
    assert listed in capsys.readouterr().err


def test_eight_bits_beside_student_and_teacher(run: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores of the whole split, bytes and time; ranges from the training rows."""
    member = {"class_path": "softlabels.models.MLP", "init_args": {"inputs": toy.FEATURES, "hidden": [9], "classes": 5}}
    save_weights(build_model(ModelConfig(**member)), Path("teacher.safetensors"))
    toy.write_recipe(Path("teacher.yaml"), teacher={"members": [member | {"weights": "teacher.safetensors"}]})
    words = ["run", "--formats=int8,onnx", "--latency", "--against_teacher=teacher.yaml", "--rows=100"]
    assert export.main(words) == 0
    said, warned = capsys.readouterr()
    assert "store/test does not name its teacher's weights: teacher.yaml may be another teacher" in warned
    assert "activation ranges from 100 rows of train" in said
    assert 'InferenceSession("run/distilled-seed0/student.int8.onnx")' in said
    lines = {tuple(line.split()[:2]): line.split() for line in said.splitlines() if line}
    names = [
        line.split()[0] for line in said.splitlines() if re.match(r"(teacher|student|onnx|int8)\s+[\d.,]+\s", line)
    ]
    assert names == ["teacher", "student", "int8", "teacher", "int8", "onnx"]
    folder = run / "distilled-seed0"
    for form, name in (("onnx", "student.onnx"), ("int8", "student.int8.onnx")):
        assert ((form, f"{(folder / name).stat().st_size:,}")) in lines
        rows = toy.points("test")
        [logits] = onnxruntime.InferenceSession(folder / name).run(None, {"inputs": rows["x"]})
        wrong = (logits.argmax(-1) != rows["label"]).sum()
        assert (("student" if form == "onnx" else form), str(wrong)) in lines


def test_another_teacher_is_not_timed_in_the_place_of_the_store_s(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(build_model(ModelConfig(**{**toy.NET, "weights": None})), Path("net.safetensors"))
    toy.write_recipe(Path("teacher.yaml"), teacher={"members": [toy.NET] * 2})
    toy.write_store(Path("named"), splits=("test",), weights="ab" * 32)
    words = ["run", "--store=named", "--formats=onnx", "--latency", "--against_teacher=teacher.yaml"]
    assert export.main(words) == 2
    assert "OtherWeights: the teacher's weights (" in capsys.readouterr().err
    assert not [*run.glob("*/student.*")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--formats=torch", "--latency"], "--latency is of ONNX files; give --formats=onnx"),
        (["--against_teacher=teacher.yaml"], "--against_teacher=teacher.yaml is there to be timed; add --latency"),
    ],
)
def test_settings_without_use(run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert export.main(["run", *words]) == 2
    assert message in capsys.readouterr().err
    assert not [*run.glob("*/student.*")]
