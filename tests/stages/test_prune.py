"""prune: students of a run with fewer weights, by the command, as a user has them."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from softlabels.jobs import prune_round
from softlabels.jobs.prune_round import Setup
from softlabels.models import ModelConfig, build_model
from softlabels.stream import Loader
from softlabels.student.checkpoint import NAME as CHECKPOINT
from softlabels.student.learner import Student
from softlabels.student.masks import prunable
from softlabels.student.saliency import Saliency
from softlabels_stages import evaluate, export, prune, train_student
from tests.stages import toy

STUDENTS = ["hard-seed0", "distilled-seed0"]
SMALL = ("--keep=0.4", "--rounds=2", "--epochs=2")
NET = {"inputs": 6, "hidden": [14], "classes": 5}
TOTAL = 6 * 14 + 14 + 14 * 5 + 5
KILL = """
import os, signal, sys
from softlabels.student import trainer
from softlabels_stages import prune

save, calls = trainer.save_checkpoint, []

def counted(*args, **how):
    save(*args, **how)
    calls.append(args)
    if len(calls) == 5:  # 3 a round: after epoch 1 of round 2
        os.kill(os.getpid(), signal.SIGKILL)

trainer.save_checkpoint = counted
prune.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of all tests here: a store, a finished run of two students of 14 hidden units, and `pruned`."""
    folder = tmp_path_factory.mktemp("prune")
    with chdir(folder):
        toy.write_store(folder / "store")
        net = {"class_path": "softlabels.models.MLP", "init_args": NET | {"dropout": 0.1}}
        toy.write_recipe(Path("recipe.yaml"), student=net)
        words = ["--config=recipe.yaml", "--store=store", "--out=out", "--epochs=3", "--seeds=0"]
        assert train_student.main(words) == 0
        assert prune.main(["out", *SMALL, "--out=pruned"]) == 0
        yield folder


@pytest.fixture(autouse=True)
def _there(home: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(home / "cache"))


def weights(folder: str) -> dict[str, Tensor]:
    return load_file(Path(folder) / "weights.safetensors")


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text())
    return found


def test_single_weights_go_and_stay_gone(capsys: pytest.CaptureFixture[str]) -> None:
    assert prune.main(["out", *SMALL, "--out=pruned"]) == 0  # it is finished: shown again
    said = capsys.readouterr().out
    assert "distilled, 39.9% left - whole:" in said
    assert "rise of the loss, expected" in said
    for student in STUDENTS:
        left = sum(int((tensor != 0).sum()) for tensor in weights(f"pruned/{student}").values())
        assert left <= round(0.4 * TOTAL)
        first, second = (weights(f"pruned/rounds/{number}/{student}") for number in (1, 2))
        assert all((second[name][first[name] == 0] == 0).all() for name in second)
    checkpoint = torch.load(f"pruned/rounds/2/{CHECKPOINT}", weights_only=True)
    masks = checkpoint["state"]["learners"][0]["masks"]
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {
        "layers.0.weight": (14, 6),
        "head.weight": (5, 14),
    }


@pytest.mark.parametrize("structure", ["weight", "unit"])
def test_what_is_deleted_never_comes_back(structure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the scores say of it: those of dead units are no larger than those of deleted ones."""

    def at_random(setup: Setup, student: Student, sample: Loader) -> Saliency:
        names = {name: torch.rand(weight.shape, generator=draw) for name, weight in prunable(student.model).items()}
        return Saliency(names, [torch.rand(chain.units, generator=draw) for chain in setup.chains])

    draw = torch.Generator()
    monkeypatch.setattr(prune_round, "_scores", at_random)
    words = ["--keep=0.4", "--rounds=2", "--epochs=1", f"--structure={structure}"]
    assert prune.main(["out", *words, f"--out=random-{structure}"]) == 0
    for student in STUDENTS:
        first, second = (load_file(f"random-{structure}/rounds/{n}/{student}/masks.safetensors") for n in (1, 2))
        assert all(not second[name][~mask].any() for name, mask in first.items())


def test_its_results_and_its_card_say_what_remains(capsys: pytest.CaptureFixture[str]) -> None:
    found, before = results("pruned"), results("out")["students"]
    assert [student["left"] for student in found["students"]] == pytest.approx([1, 109 / 173, 69 / 173] * 2)
    assert found["pruned"]["parameters"][""] == [69, TOTAL]
    one = found["pruned"]["rounds"][0]["students"]["distilled-seed0"]
    assert one["left"] == [109, TOTAL]
    assert one["expected"] > 0
    assert [seed["errors"] for seed in found["students"][0]["scores"]] == [
        seed["errors"] for seed in before[0]["scores"]
    ]
    card = Path("pruned/README.md").read_text()
    assert "69 of 173 parameters (39.9%)" in card
    assert "| head.weight |" in card
    assert "In 2 rounds of 2 epochs; deleted first: those without which the training loss would rise least" in card
    assert Path("pruned/pruned.png").stat().st_size > 1000
    assert evaluate.main(["pruned/distilled-seed0"]) == 0
    capsys.readouterr()


def test_units_go_and_the_network_is_smaller(capsys: pytest.CaptureFixture[str]) -> None:
    assert prune.main(["out", *SMALL, "--structure=unit", "--out=small"]) == 0
    assert export.main(["small/distilled-seed0", "--formats=onnx"]) == 0
    left, _ = results("small")["pruned"]["parameters"][""]
    exported = onnx.load("small/distilled-seed0/student.onnx").graph.initializer
    assert sum(math.prod(tensor.dims) for tensor in exported if tensor.data_type == onnx.TensorProto.FLOAT) == left
    rows = torch.randn(50, 6)
    for student in STUDENTS:
        small, masked = weights(f"small/{student}"), weights(f"small/rounds/2/{student}")
        assert sum(tensor.numel() for tensor in small.values()) == left <= 0.4 * TOTAL
        units = small["layers.0.bias"].numel()
        assert int((masked["head.weight"] != 0).any(0).sum()) == units
        files = {14: f"small/rounds/2/{student}", units: f"small/{student}"}
        whole, smaller = (
            build_model(ModelConfig("softlabels.models.MLP", NET | {"hidden": [width]}, f"{file}/weights.safetensors"))
            for width, file in files.items()
        )
        torch.testing.assert_close(smaller(rows), whole(rows), rtol=1e-5, atol=1e-6)
    assert evaluate.main(["small/distilled-seed0"]) == 0
    capsys.readouterr()


def test_hard_labels_and_magnitude_are_the_controls() -> None:
    words = ["out", *SMALL, "--rounds=1", "--rule=magnitude"]
    assert prune.main([*words, "--retrain=hard", "--out=hard"]) == 0
    before, mask = weights("out/distilled-seed0"), load_file("hard/rounds/1/distilled-seed0/masks.safetensors")
    kept, gone = (torch.cat([before[name][mask[name] == which].abs() for name in mask]) for which in (True, False))
    assert gone.max() <= kept.min()
    assert "expected" not in results("hard")["pruned"]["rounds"][0]["students"]["hard-seed0"]
    assert prune.main([*words, "--retrain=stored", "--out=stored"]) == 0
    one, other = (weights(f"{out}/rounds/1/distilled-seed0") for out in ("hard", "stored"))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_kill_in_mid_round_resumes_to_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["out", *SMALL, "--out=killed"]
    command = [sys.executable, "-c", KILL, *words]
    killed = subprocess.run(command, env=os.environ, capture_output=True, timeout=200, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert Path("killed/rounds/2/checkpoint.pt").exists()
    assert not Path("killed/results.json").exists()
    for again, named in ((evaluate, "killed/hard-seed0"), (export, "killed"), (prune, "killed")):
        assert again.main([named]) == 2
        assert "ConfigError: the run killed is not finished; run the command that began it" in capsys.readouterr().err
    assert prune.main(words) == 0
    for student in STUDENTS:
        one, other = (Path(folder, student, "weights.safetensors").read_bytes() for folder in ("pruned", "killed"))
        assert one == other
    assert results("killed")["students"] == results("pruned")["students"]


def test_what_was_pruned_before_is_not_whole_and_stays_gone(capsys: pytest.CaptureFixture[str]) -> None:
    assert prune.main(["pruned", "--keep=0.2", "--rounds=2", "--epochs=1", "--out=twice"]) == 0
    said = capsys.readouterr().out
    assert "distilled, 20.2% left - as begun:" in said
    assert ", whole" not in said
    assert "\nname: toy-pruned\n" in f"\n{Path('twice/config.yaml').read_text()}"
    assert [student["left"] for student in results("twice")["students"]] == pytest.approx(
        [69 / 173, 49 / 173, 35 / 173] * 2
    )
    for student in STUDENTS:
        first = load_file(f"pruned/rounds/2/{student}/masks.safetensors")
        second = load_file(f"twice/rounds/1/{student}/masks.safetensors")
        assert all(not second[name][~mask].any() for name, mask in first.items())


@pytest.mark.parametrize("name", ["round.json", "hard-seed0/masks.safetensors"])
def test_a_damaged_round_is_named(capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = Path(f"damaged-{name[:4]}")
    shutil.copytree("pruned", folder)
    (folder / "results.json").unlink()
    (folder / "rounds/1" / name).write_bytes(b"{}")
    assert prune.main(["out", *SMALL, f"--out={folder}"]) == 2
    assert f"DamagedRun: {folder}/rounds/1 lacks what a round of pruning is made of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing is no run"),
        ([], "no run is named; name the folder"),
        (["out", "--keep=1.5"], "keep must lie between 0 and 1"),
        (["out", "--keep=0.05", "--out=a"], "19 of them are biases and the like"),
        (["out", "--keep=0.02", "--structure=unit", "--out=b"], "17 of them are left with one unit a layer"),
        (["out", "--training.loss=dist", "--out=c"], "--rule=magnitude"),
        (
            ["pruned", "--keep=0.5"],
            "keep=0.5, and 39.9% of the parameters of pruned are left: what is deleted does not",
        ),
        (
            ["pruned", "--keep=0.2", "--structure=unit"],
            "pruned was pruned weight by weight, and its units are not whole",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert prune.main(words) == 2
    assert message in capsys.readouterr().err
