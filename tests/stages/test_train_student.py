"""train-student from the outside: what it trains, what it prints and keeps, what it refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from softlabels.models import save_weights
from softlabels.models.mlp import MLP
from softlabels.store import open_store
from softlabels.student.runlog import RunLog
from softlabels.system.local import LocalFolder
from softlabels.transfer.file_arguments import file_digest, reads_files
from softlabels.transfer.prepare import Row, vector
from softlabels_stages import evaluate, train_student
from softlabels_stages.recipe import load
from tests.stages import toy

HARD_AND_DISTILLED = ["distilled-seed0", "distilled-seed1", "hard-seed0", "hard-seed1"]


def run(*words: str, **recipe: Any) -> int:
    toy.write_recipe(Path("recipe.yaml"), **recipe)
    return train_student.main(["--config=recipe.yaml", "--store=store", *words])


def students(out: str) -> list[str]:
    return sorted(path.parent.name for path in Path(out).glob("*/weights.safetensors"))


def results(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(out) / "results.json").read_text())
    return found


def scores_of(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The scores of the students of one kind, one a seed."""
    return next(student["scores"] for student in found["students"] if student["kind"] == kind)


@pytest.fixture(scope="module")
def trained(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy store and a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(toy_store, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SOFTLABELS_CACHE", str(folder / "cache"))
        assert run("--out=out", "--epochs=1", "--seeds=0") == 0
    return folder


@pytest.fixture
def finished(work: Path, trained: Path) -> Path:
    """A copy of the run, and of its store and recipe."""
    shutil.copytree(trained, work, dirs_exist_ok=True)
    return work / "out"


def test_a_run_from_end_to_end(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out=out") == 0
    out = capsys.readouterr().out
    assert students("out") == HARD_AND_DISTILLED
    for line in ("teacher 0: Member0", "ensemble", "student, hard", "student, distilled", "hard - distilled: "):
        assert f"\n{line}" in out
    last = (
        r"store store, run out; try next: \S*softlabels train-student --config=out/config.yaml --store=store "
        r"--temperature=1,2,4,8,20"
    )
    assert re.fullmatch(last, out.splitlines()[-1])

    found, held_out = results("out"), open_store(store, split="test")
    assert (found["split"], found["rows"], found["seeds"]) == ("test", toy.ROWS["test"], [0, 1])
    log_p = held_out.log_probs(range(held_out.rows), temperature=1)
    labels = held_out.column("label")
    ensemble = found["teacher"]["ensemble"][0]
    assert ensemble["errors"] == (log_p.argmax(1) != labels).sum()
    assert ensemble["nll"] == pytest.approx(-log_p[np.arange(len(labels)), labels].mean(), abs=1e-5)
    assert ensemble["agreement"] == 1
    assert [(student["kind"], len(student["scores"])) for student in found["students"]] == [
        ("hard", 2),
        ("distilled", 2),
    ]
    assert set(scores_of(found, "hard")[0]["kl"]) == {"1", "4"}
    assert run("--out=warm", "--epochs=1", "--temperature=7", "--seeds=0") == 0
    assert set(scores_of(results("warm"), "hard")[0]["kl"]) == {"1", "7"}
    first = json.loads((Path("warm") / "hard-seed0" / "metrics.jsonl").read_text().splitlines()[0])
    assert set(first["kl"]) == {"1", "7"}

    page = (Path("out") / "results.md").read_text()
    assert "| student, distilled |" in page
    assert yaml.safe_load((Path("out") / "config.yaml").read_text()) == load("out/config.yaml")


def test_commands_that_are_shown_are_quoted_for_a_shell(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seen to fail: the words of a path with blanks fell apart."""
    toy.write_store(work / "my store")
    assert run("--store=my store", "--out=my run", "--epochs=1", "--seeds=0") == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].partition("try next: ")[2])
    assert words[1:4] == ["train-student", "--config=my run/config.yaml", "--store=my store"]


def test_both_kinds_see_the_same_rows_in_the_same_order(store: Path) -> None:
    assert run("--out=out") == 0
    identity = json.loads(torch.load(Path("out") / "checkpoint.pt", weights_only=True)["identity"])
    assert sorted(identity["training"]) == HARD_AND_DISTILLED
    assert set(identity["order"]) == {"train", "validation"}  # one order for all
    assert identity["training"]["hard-seed0"]["soft_weight"] == 0


def test_a_finished_run_is_shown_again_and_nothing_is_trained(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    first = capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()}
    assert run() == 0
    again = capsys.readouterr().out
    assert again.strip() == first[first.index("Held-out") :].strip()
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()} == written


def test_a_missing_student_is_written_again_from_the_checkpoint(store: Path) -> None:
    assert run("--out=out") == 0
    before = {name: (Path("out") / name / "weights.safetensors").read_bytes() for name in HARD_AND_DISTILLED}
    time_saved = (Path("out") / "checkpoint.pt").stat().st_mtime_ns
    (Path("out") / "results.json").unlink()
    for path in sorted((Path("out") / "hard-seed1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert run("--out=out") == 0
    assert {name: (Path("out") / name / "weights.safetensors").read_bytes() for name in before} == before
    assert (Path("out") / "checkpoint.pt").stat().st_mtime_ns == time_saved  # no epoch was trained


def test_other_settings_go_to_another_folder(store: Path) -> None:
    assert run("--epochs=1") == 0
    assert run("--epochs=1", "--temperature=8", "--alpha=0.5", "--seeds=3", "--baseline=false") == 0
    folders = sorted(Path("runs").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("toy-") for folder in folders)
    assert sorted(students(str(folder)) for folder in folders) == [HARD_AND_DISTILLED, ["distilled-seed3"]]


def test_how_often_a_run_is_saved_is_no_part_of_what_it_is(store: Path) -> None:
    assert run("--epochs=1", "--baseline=false") == 0
    assert run("--epochs=1", "--baseline=false", "--checkpoint_every=2") == 0
    assert len(list(Path("runs").iterdir())) == 1


def test_a_run_whose_folder_names_how_often_it_was_saved_goes_on(store: Path) -> None:
    """As folders of earlier versions do."""
    assert run("--out=out", "--epochs=1", "--baseline=false") == 0
    begun = json.loads(Path("out/run.json").read_text())
    begun["training"]["checkpoint_every"] = 3
    Path("out/run.json").write_text(json.dumps(begun))
    assert run("--out=out", "--epochs=1", "--baseline=false") == 0


def test_config_yaml_repeats_the_run(store: Path) -> None:
    assert run("--out=out", "--temperature=2", "--student.init_args.hidden=[4]") == 0
    assert train_student.main(["--config=out/config.yaml", "--store=store", "--out=again"]) == 0
    assert results("again")["students"] == results("out")["students"]


@pytest.mark.parametrize(
    ("words", "recipe", "message"),
    [
        (["--out=out"], {"name": "other name is the same run"}, ""),
        (
            ["--out=out", "--temperature=2"],
            {},
            "RunExists: out holds another run: training.temperature: 4.0 here, 2.0 in",
        ),
        (["--out=full"], {}, "RunExists: full holds other files than a run; give another --out"),
        (["--out=recipe.yaml"], {}, "RunExists: recipe.yaml is a file, not a run folder"),
        (["--student.init_args.classes=4"], {}, "gives outputs of shape [2, 4] for 2 rows, and store/te"),
        (
            ["--student.class_path=torch.nn.Linear", "--student.init_args={in_features: 2, out_features: 5}"],
            {},
            "ConfigError: torch.nn.Linear cannot take inputs of torch.float32 and shape [2, 6]: mat1 and mat2 shapes",
        ),
        (
            ["--student.class_path=torch.nn.LSTM", "--student.init_args={input_size: 6, hidden_size: 5}"],
            {},
            "ClassMismatch: torch.nn.LSTM gives outputs of shape tuple for 2 rows",
        ),
        (
            ["--transfer_set.classes=a,b,c,d,e"],
            {},
            "ClassMismatch: the classes of points are a, b, c, d, e (5), those of",
        ),
        (["--store=nowhere"], {}, "StorePathError: nowhere does not exist"),
        (["--temperature=2,2"], {}, "ConfigError: temperature is [2.0, 2.0]; give one value, or distinct ones"),
        (
            ["--temperature=fast:20:4"],
            {},
            "ConfigError: temperature is 'fast:20:4'; give a number, or a schedule such as",
        ),
        (["--temperature=1,linear:4:0"], {}, "ConfigError: temperature must be a finite number above 0, not 0.0"),
        (["--alpha=0.5,0.9", "--hard_weight=1", "--soft_weight=1"], {}, "both set the weights"),
        (["--loss=dist", "--micro_batch=4"], {}, "ConfigError: the loss dist correlates over the whole batch"),
        (
            ["--loss=dkd", "--hard_label_fraction=0.5"],
            {},
            "ConfigError: the loss dkd needs each row's hard label",
        ),
        (["--loss_args.beta=2"], {}, "ConfigError: "),
        (["--seeds=1,1"], {}, "ConfigError: seeds are [1, 1]; give distinct whole numbers >= 0, as --seeds=0,1,2"),
        (
            [],
            {"transfer_set": None},
            "ConfigError: this store holds no inputs: store/te",
        ),
        (
            ["--store=store/test"],
            {},
            "ConfigError: the store has no split 'train', only test; give a store that has one",
        ),
    ],
)
def test_what_it_refuses(
    finished: Path, capsys: pytest.CaptureFixture[str], words: list[str], recipe: dict[str, Any], message: str
) -> None:
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("mine")
    assert run("--epochs=1", "--seeds=0", *words, **recipe) == (2 if message else 0)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") <= 1
    assert Path("full/thesis.txt").read_text() == "mine"
    assert students("out") == ["distilled-seed0", "hard-seed0"]


def test_without_a_test_split_students_are_judged_on_the_validation_rows(store: Path) -> None:
    assert run("--store=store/train", "--out=out", "--epochs=1") == 0
    found = results("out")
    assert (found["split"], found["rows"], len(found["teacher"]["ensemble"])) == ("validation", 16, 1)
    assert run("--store=store/train", "--out=none", "--epochs=1", "--validation=0") == 2


def test_a_stored_validation_split_is_used_whole(work: Path) -> None:
    toy.write_store(work / "store", splits=("train", "validation", "test"))
    assert run("--out=out", "--epochs=1", "--seeds=0") == 0
    first = json.loads((Path("out") / "hard-seed0" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["rows"] == toy.ROWS["validation"]


def test_students_need_neither_teacher_nor_transfer_set(work: Path) -> None:
    toy.write_store(work / "store", embed=True)
    teacher = {"members": [{"class_path": "deleted.Teacher", "weights": "deleted.safetensors"}]}
    toy.write_recipe(work / "recipe.yaml", transfer_set=None, teacher=teacher)
    code = """
        import sys
        from softlabels_stages.train_student import main
        assert main(["--config=recipe.yaml", "--store=store", "--out=out", "--epochs=1"]) == 0
        bad = [name for name in sys.modules if name.startswith("softlabels.teacher") or name == "tests.stages.toy"]
        assert bad == [], bad
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert students(str(work / "out")) == HARD_AND_DISTILLED


def test_a_stopped_run_goes_on_to_the_same_weights(
    store: Path, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["--config=recipe.yaml", "--store=store", "--epochs=8", "--seeds=0"]
    toy.write_recipe(work / "recipe.yaml")
    metrics, add = work / "stopped" / "distilled-seed0" / "metrics.jsonl", RunLog.add

    def stops(log: RunLog, *entry: Any, **more: Any) -> None:
        add(log, *entry, **more)
        if metrics.exists() and metrics.read_text().count("\n") == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "add", stops)
        assert train_student.main([*settings, "--out=stopped"]) == 75
    assert capsys.readouterr().err.splitlines()[-1].startswith("Interrupted: stopped in epoch ")
    assert students("stopped") == []

    assert train_student.main([*settings, "--out=stopped"]) == 0
    assert train_student.main([*settings, "--out=whole"]) == 0
    for name in ("hard-seed0", "distilled-seed0"):
        weights = [(Path(out) / name / "weights.safetensors").read_bytes() for out in ("stopped", "whole")]
        assert weights[0] == weights[1]
    assert results("stopped")["students"] == results("whole")["students"]


def test_evaluate_agrees_with_the_run(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out=out", "--epochs=2") == 0
    found = results("out")
    capsys.readouterr()
    for number in (0, 1):
        assert evaluate.main([f"out/distilled-seed{number}", "--store=store", "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)
        assert {"errors", "accuracy", "nll", "ece", "brier", "agreement", "kl"} <= set(scores)
        assert {name: scores[name] for name in scores_of(found, "distilled")[number]} == scores_of(found, "distilled")[
            number
        ]
    assert evaluate.main(["--config=out/config.yaml", "--store=store", "--json"]) == 0
    teacher = json.loads(capsys.readouterr().out)
    assert {name: teacher[name] for name in found["teacher"]["ensemble"][0]} == found["teacher"]["ensemble"][0]
    weights = "out/hard-seed0/weights.safetensors"
    assert evaluate.main([weights, "--config=out/config.yaml", "--store=store", "--temperature=2.5"]) == 0
    assert "KL at T=2.5" in capsys.readouterr().out


def test_evaluate_refuses_a_pickle_and_a_wrong_class(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"w": torch.zeros(3)}, "weights.pt")
    capsys.readouterr()
    for words in (["weights.pt"], ["out/hard-seed0", "--student.init_args.hidden=[3]"], ["nowhere.safetensors"]):
        assert evaluate.main([*words, "--config=out/config.yaml", "--store=store"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("WeightsError: ")
        assert error.count("\n") == 1


def test_rows_without_soft_labels_are_an_error_or_left_out_with_a_count(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"train": 170, "test": 80}
    monkeypatch.setattr(toy, "ROWS", more)
    monkeypatch.setattr(toy, "points", _with_more_rows)
    assert run("--out=out") == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "UnlabelledRows: the store store/train holds no labels for 10 of 170 rows of points, first rows 160"
    )
    assert "--missing=skip" in err
    assert run("--out=out", "--missing=skip", "--seeds=0") == 0
    said = capsys.readouterr()
    assert "train: 10 of 170 rows have no soft labels and are left out" in said.err
    assert "test: 0 of 80 rows" in said.err
    assert results("out")["rows"] == 80


def _with_more_rows(split: str) -> dict[str, np.ndarray]:
    """The points of a split, and in `train` ten more that nobody labelled."""
    rng = np.random.default_rng([len(split), {"train": 160, "test": 80}[split]])
    labels = rng.integers(0, toy.CLASSES, {"train": 160, "test": 80}[split])
    centres = np.random.default_rng(5).normal(0, 1.5, (toy.CLASSES, toy.FEATURES))
    x = (centres[labels] + rng.normal(size=(len(labels), toy.FEATURES))).astype(np.float32)
    if split == "train":
        x = np.concatenate([x, np.full((10, toy.FEATURES), 9.0, np.float32) + np.arange(10, dtype=np.float32)[:, None]])
        labels = np.concatenate([labels, np.zeros(10, labels.dtype)])
    return {"x": x, "label": labels}


def test_a_mean_that_the_store_cannot_give_is_refused_before_training(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write_store(work / "store", reduce="geometric")
    assert run("--out=out") == 2
    assert capsys.readouterr().err.startswith("MeanUnavailable: the store keeps only the members' mean logits")
    assert students("out") == []
    assert run("--out=out2", "--mean=geometric", "--seeds=0") == 0


def test_the_mean_that_is_asked_for_reaches_the_table(store: Path) -> None:
    assert run("--out=a", "--seeds=0", "--epochs=1") == 0
    assert run("--out=g", "--seeds=0", "--epochs=1", "--mean=geometric") == 0
    a, g = (scores_of(results(out), "hard")[0] for out in ("a", "g"))
    assert a["errors"] == g["errors"]  # the hard student does not know the mean
    assert a["kl"]["4"] != g["kl"]["4"]


def test_infinite_scores_are_null_in_json_and_said_in_the_table(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.write_store(work / "store", impossible=True)
    assert run("--out=out", "--seeds=0", "--epochs=1") == 0
    text = (Path("out") / "results.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert results("out")["teacher"]["members"]["0: Member0"][0]["nll"] is None
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("teacher 0"))
    assert " inf " in line
    assert run("--out=out", "--seeds=0", "--epochs=1") == 0
    assert line in capsys.readouterr().out
    assert evaluate.main(["--config=recipe.yaml", "--store=store", "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_changed_hard_labels_are_another_run(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--out=out", "--seeds=0", "--epochs=1") == 0
    real = toy.points
    monkeypatch.setattr(toy, "points", lambda split: {**real(split), "label": np.roll(real(split)["label"], 1)})
    assert run("--out=out", "--seeds=0", "--epochs=1") == 2
    assert "RunExists: out holds another run: labels.test: " in capsys.readouterr().err


def _digests(*, file: str) -> dict[str, str | None]:
    return {"file": file_digest(file)}


@reads_files(_digests)
def moved(rows: Sequence[Row], *, file: str) -> np.ndarray:
    """Rows with the number in a file added."""
    return vector(rows) + np.float32(Path(file).read_text())


def test_a_changed_file_of_the_prepare_function_is_another_run(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out=out", "--seeds=0", "--epochs=1", f"--transfer_set.prepare.class_path={__name__}.moved"]
    words.append("--transfer_set.prepare.init_args.file=number")
    Path("number").write_text("0")
    assert run(*words) == 0
    assert f"prepared by `{__name__}.moved`" in (Path("out") / "README.md").read_text()  # not what the teacher saw
    assert run(*words) == 0
    capsys.readouterr()
    Path("number").write_text("1")
    assert run(*words) == 2
    assert "RunExists: out holds another run: prepare.init_args.file: " in capsys.readouterr().err


def test_other_weights_to_begin_with_are_another_run(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seeds=0", "--epochs=1", "--student.weights=begin.safetensors"]
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = MLP(**toy.recipe()["student"]["init_args"])
        save_weights(model, "begin.safetensors")
        assert run(*words, "--out=out") == 2 * seed
    assert "RunExists: out holds another run: begun_from: " in capsys.readouterr().err


def test_two_processes_do_not_train_in_one_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (Path("out") / "results.json").unlink()
    (Path("out") / "hard-seed0" / "weights.safetensors").unlink()
    with LocalFolder("out").only_process():
        assert run("--out=out", "--seeds=0", "--epochs=1") == 2
    assert "RunExists: another process is working in out; wait until" in capsys.readouterr().err
    assert run("--out=out", "--seeds=0", "--epochs=1") == 0


def test_evaluate_finds_recipe_and_store_of_a_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["out/distilled-seed0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    expected = scores_of(results("out"), "distilled")[0]
    assert said["kl"] == pytest.approx(expected.pop("kl"), rel=1e-5)
    counts = {name: expected.pop(name) for name in ("classes", "macro", "confusion", "confused")}
    assert {name: said[name] for name in counts} == counts
    assert {name: said[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    for words in (["--model=out/distilled-seed0"], ["out", "--config=out/config.yaml"]):  # the run's only distilled one
        assert evaluate.main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["nll"] == said["nll"]


def test_a_sweep_suggests_its_best_student_by_validation(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """alpha=0 with almost no hard labels learns nothing; the first setting is not the best."""
    words = ["--out=out", "--epochs=2", "--alpha=0,1", "--baseline=false", "--hard_label_fraction=0.05"]
    assert run(*words) == 0
    errors = {
        student["settings"]["alpha"]: [scores["errors"] for scores in student["validation"]]
        for student in results("out")["students"]
        if student["kind"] == "distilled"
    }
    assert sum(errors[1.0]) < sum(errors[0.0])
    seed = min((0, 1), key=lambda number: errors[1.0][number])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"softlabels export out/distilled-alpha=1-seed{seed}")
    assert run(*words) == 0  # of a finished run the same
    assert capsys.readouterr().out.splitlines()[-1] == last
    assert run("--out=none", "--epochs=1", "--validation=0", "--alpha=0.5,1") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("softlabels export none/distilled-alpha=0.5-seed0")


def test_evaluate_names_the_word_that_is_no_student(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.write_recipe(Path("recipe.yaml"))
    Path("empty").mkdir()
    for word, said in (("nope", "nope;"), ("empty", "empty, which lacks weights.safetensors;")):
        assert evaluate.main([word, "--config=recipe.yaml"]) == 2
        assert capsys.readouterr().err.startswith(
            f"WeightsError: there is no student {said} give the folder of a student"
        )


def test_evaluate_measures_a_student_of_a_sweep_at_its_own_temperature(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out=out", "--seeds=0", "--epochs=1", "--temperature=1,linear:9:3", "--loss=forward_kl,js") == 0
    capsys.readouterr()
    assert evaluate.main(["out/distilled-T=linear_9_3-js-seed0", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["kl"]) == ["1", "3"]
    assert evaluate.main(["out"]) == 2
    assert "ConfigError: out holds 5 students: distilled-T=1-forward_kl-seed0, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("--optimizer.class_path=torch.optim.Adamm", "torch.optim.Adamm"),
        ("--scheduler.class_path=torch.optim.lr_scheduler.StepLR", "StepLR"),
        ("--device=cuda:99", "cuda:99"),
    ],
)
def test_a_mistake_in_the_settings_claims_no_folder(
    mistake: str, words: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out=out", "--seeds=0", "--epochs=1", mistake) == 2
    assert words in capsys.readouterr().err
    assert not Path("out").exists()
    assert run("--out=out", "--seeds=0", "--epochs=1") == 0


def test_without_hard_labels_there_is_no_baseline(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out=out", "--seeds=0", "--epochs=1", "--transfer_set.label=null") == 0
    said = capsys.readouterr().out
    assert "no training row has a hard label: no baseline is trained" in said
    assert "student, hard" not in said
    assert students("out") == ["distilled-seed0"]


def test_a_loss_that_validation_rows_cannot_serve_is_refused_before_training(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write_store(work / "store", splits=("train", "validation", "test"))
    real = toy.points
    monkeypatch.setattr(
        toy, "points", lambda split: real(split) if split != "validation" else {**real(split), "label": np.full(40, -1)}
    )
    words = ["--out=out", "--seeds=0", "--epochs=2", "--hard_label_fraction=1"]
    assert run(*words, "--loss=dkd", "--baseline=false") == 2
    assert "dkd needs each row's hard label, and 40 rows have no hard label" in capsys.readouterr().err
    assert not Path("out").exists()
    assert run(*words, "--alpha=linear:1:0", "--baseline=false") == 2  # nothing would tell one epoch from another
    assert "ConfigError: no validation row has a hard label and soft_weight is 0 at the end" in capsys.readouterr().err
    assert run(*words) == 2  # of the baseline
    assert (
        "nothing to judge epochs by; hold out more rows, or none (validation), or let baseline=false"
        in capsys.readouterr().err
    )
    assert not Path("out").exists()


def test_splits_of_two_teachers_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write_store(work / "store", splits=("train",))
    monkeypatch.setattr(toy, "TEACHER", "somebody else")
    toy.write_store(work / "store", splits=("test",))
    assert run("--out=out") == 2
    err = capsys.readouterr().err
    assert "SpecMismatch: the splits test and train come from different teachers (teacher.name: " in err
    assert '"somebody else" in test, "imaginary" in train)' in err
    assert not Path("out").exists()


def test_the_stored_teacher_is_judged_without_its_transfer_set(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--out=out", "--seeds=0", "--epochs=1") == 0
    monkeypatch.setattr(toy, "points", None)
    capsys.readouterr()
    assert evaluate.main(["--config=recipe.yaml", "--store=store", "--json"]) == 0
    said, expected = json.loads(capsys.readouterr().out), results("out")["teacher"]["ensemble"][0]
    assert said["errors"] == expected["errors"]
    assert said["nll"] == pytest.approx(expected["nll"], rel=1e-6)
