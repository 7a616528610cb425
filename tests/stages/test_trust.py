"""A run from somebody else is data: its class paths are not imported, unless it was made here or is trusted."""

from __future__ import annotations

import copy
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from blake3 import blake3

from softlabels.models import ModelConfig, build_model, save_weights
from tests.stages import toy

PAYLOAD = "raise SystemExit(open('PWNED', 'w').close() or 99)"
RUN = {"command": "touch PWNED"}
MLP = toy.recipe()["student"]
NOT_RUN = "is of a run that was not made here, so its code was not run; read that file, and add --trust"


def evil(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": f"evil.{name}", "init_args": init_args}


def recipe(**changes: Any) -> dict[str, Any]:
    """A recipe of which everything ships, with changes by dotted name."""
    found = copy.deepcopy(toy.recipe())
    found["transfer_set"] |= {"factory": None, "source": "points.csv", "splits": {"train": "train", "test": "train"}}
    found["transfer_set"] |= {"label": None, "classes": None}
    found["training"]["optimizer"] = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    found["training"] |= {"seeds": [0], "epochs": 1}
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if key:
            found.setdefault(section, {})[key] = value
        else:
            found[section] = value
    return found


def make_run(folder: Path, store: str, recipe: dict[str, Any]) -> Path:
    """What somebody sends: a finished run, of an untrained student."""
    student = folder / "distilled-seed0"
    student.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "results.json").write_text(json.dumps({"store": store}))
    save_weights(build_model(ModelConfig(**MLP)), student / "weights.safetensors")
    return folder


@pytest.fixture(autouse=True)
def state(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No run was made here; evil.py stands in the working folder, where the class paths of a recipe are looked for."""
    monkeypatch.setenv("SOFTLABELS_STATE", str(work / "state"))
    (work / "evil.py").write_text(PAYLOAD)
    (work / "points.csv").write_text("x,label\n" + "1,0\n" * 40)
    return work / "state"


@pytest.fixture
def embedded(work: Path) -> str:
    """A store that holds its inputs."""
    toy.write_store(work / "embedded", embed=True)
    return "embedded"


def run(stage: str, *words: str) -> int | str:
    """The exit code of a command; PWNED where a payload ran."""
    main: Callable[[list[str]], int] = importlib.import_module(f"softlabels_stages.{stage.replace('-', '_')}").main
    try:
        code: int | str = main(list(words))
    except SystemExit as error:
        code = f"exit {error.code}"
    pwned = Path("PWNED").exists()
    Path("PWNED").unlink(missing_ok=True)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("evil", "pipeline")]:
        del sys.modules[name]
    return "PWNED" if pwned else code


def teacher(path: str, weights: str = "run/distilled-seed0/weights.safetensors", **init_args: Any) -> dict[str, Any]:
    return {"members": [{"class_path": path, "init_args": init_args, "weights": weights}]}


STUDENTS: list[dict[str, Any]] = [
    {"student": {"class_path": "os.system", "init_args": RUN}},
    {"student": {"class_path": "softlabels.objects.sys.modules", "init_args": RUN}},
    {"student": {"class_path": "softlabels.system.durable.os.system", "init_args": RUN}},
    {"student": {"class_path": "pipeline.transfer.text.os.system", "init_args": RUN}},
    {"student": evil("Net")},
    {
        "student": {
            "class_path": "softlabels.models.Biased",
            "init_args": {"model": "os.system", "model_args": RUN, "classes": toy.CLASSES},
        }
    },
    {
        "student": {
            "class_path": "pipeline.models.biased.Biased",
            "init_args": {
                "model": "softlabels.models.biased.Biased",
                "model_args": {"model": "evil.Net", "model_args": {}, "classes": toy.CLASSES},
                "classes": toy.CLASSES,
            },
        }
    },
]
COMMANDS = [
    "evaluate run",
    "export run/distilled-seed0",
    "correct run",
    "train-student --store=embedded --config=run/config.yaml",
]


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        *(("evaluate run/distilled-seed0", changes) for changes in STUDENTS),
        *((command, STUDENTS[0]) for command in COMMANDS),
    ],
)
def test_a_student_is_not_built_from_their_code(
    embedded: str, changes: dict[str, Any], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(Path("run"), embedded, recipe(**changes))
    assert run(*command.split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("UntrustedCode: ")
    assert f"run/config.yaml {NOT_RUN}" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_the_attacks_are_real(embedded: str, command: str) -> None:
    make_run(Path("run"), embedded, recipe(**STUDENTS[0]))
    assert run(*command.split(), "--trust") == "PWNED"
    assert run(*command.split()) == 2  # trust ends with the command
    assert run(*command.split(), "--trust=false") == 2


LABELLED = {"transfer_set.label": "label", "teacher_training.validation": 0}
TO_TRAIN = teacher(MLP["class_path"], "new.safetensors", inputs=1, hidden=[], classes=2)


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("train-student --store=embedded", {"training.optimizer": evil("Optimizer")}),
        ("train-student --store=embedded", {"training.scheduler": evil("Scheduler")}),
        ("train-student --store=embedded", {"tracker": evil("Tracker")}),
        ("train-student --store=reference", {"transfer_set.factory": evil("rows"), "transfer_set.source": None}),
        ("train-student --store=reference", {"transfer_set.prepare": evil("prepare")}),
        ("train-student --store=reference", {"transfer_set.pseudo_data": {"factory": evil("more")}}),
        ("train-teacher", LABELLED | {"teacher": teacher("evil.Net", "new.safetensors")}),
        ("train-teacher", LABELLED | {"teacher": TO_TRAIN, "teacher_training.augment": evil("augment")}),
        ("train-teacher", LABELLED | {"teacher": TO_TRAIN, "tracker": evil("Tracker")}),
        ("teacher-logits --store=new", {"teacher": teacher("evil.Net")}),
        ("verify embedded --against_teacher=run/config.yaml", {"teacher": teacher("evil.Net")}),
        (
            "import --from=outputs.npy --column=logits --store=new --split=train",
            {"transfer_set.prepare": evil("prepare")},
        ),
    ],
)
def test_no_other_class_path_is_imported(
    embedded: str, command: str, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor where the user names the recipe of a run, to any command."""
    if "reference" in command:
        toy.write_store(Path("reference"))
    np.save("outputs.npy", np.zeros((40, 3), np.float32))
    make_run(Path("run"), embedded, recipe(**changes))
    words = command.split() + ([] if "verify" in command else ["--config=run/config.yaml"])
    assert run(*words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("UntrustedCode: ")
    assert run(*words, "--trust") == "PWNED"


@pytest.mark.parametrize("beside", ["run.json", "distilled-seed0/weights.safetensors", "link"])
def test_what_is_left_of_a_run_is_theirs(embedded: str, beside: str) -> None:
    """As docs/runs.md has it handed on, without run.json and results.json; and a link that leads nowhere is a name too."""
    folder = make_run(Path("run"), embedded, recipe(student=evil("Net")))
    (folder / "results.json").unlink()
    if beside != "run.json":
        (folder / "run.json").unlink()
    if beside != "distilled-seed0/weights.safetensors":
        (folder / "distilled-seed0/weights.safetensors").unlink()
    if beside == "link":
        (folder / "run.json").symlink_to("nowhere")
    words = ["train-student", f"--store={embedded}"]
    assert run(*words, "--config=run/config.yaml") == 2
    Path("mine.yaml").symlink_to("run/config.yaml")
    assert run(*words, "--config=mine.yaml") == 2
    Path("copy.yaml").write_text((folder / "config.yaml").read_text())  # a file of the user's own now
    assert run(*words, "--config=copy.yaml") == "PWNED"


def test_what_ships_runs_without_a_question(embedded: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By its names of today and of version 0.1, whatever stands under these in the working folder."""
    for module in ("pipeline", "pipeline/models", "softlabels", "softlabels/models"):
        Path(module).mkdir()
        Path(module, "__init__.py").write_text(PAYLOAD)
    for number, path in enumerate(("softlabels.models.MLP", "softlabels.models.mlp.MLP", "pipeline.models.mlp.MLP")):
        make_run(Path(f"run{number}"), embedded, recipe(student=MLP | {"class_path": path}))
        assert run("evaluate", f"run{number}", "--json") == 0
        assert json.loads(capsys.readouterr().out)["rows"] == toy.ROWS["test"]
    assert run("correct", "run0", "--class_prior=1,1,1,1,2") == 0
    assert run("evaluate", "run0/corrected", "--split=train") == 0


def test_a_run_of_theirs_is_none_of_ours_for_having_been_worked_on(embedded: str, state: Path) -> None:
    """`correct` writes their recipe into a folder of its own: it stays theirs."""
    make_run(Path("run"), embedded, recipe(**{"transfer_set.factory": evil("rows"), "transfer_set.source": None}))
    assert run("correct", "run", "--out=ours") == 0  # the store has its own inputs
    assert not state.exists()
    toy.write_store(Path("reference"))
    assert run("evaluate", "ours", "--store=reference") == 2
    assert run("evaluate", "ours", "--store=reference", "--trust") == "PWNED"


NET = """
from softlabels.models import MLP

class Net(MLP):
    pass
"""


def ours(embedded: str, *words: str, **changes: Any) -> int | str:
    """Train a student of a class of the user's own."""
    Path("mine.py").write_text(NET)
    changes = {"student": MLP | {"class_path": "mine.Net"}} | changes
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe(**changes)))
    return run("train-student", "--config=recipe.yaml", f"--store={embedded}", "--out=out", "--baseline=false", *words)


def test_a_run_that_was_made_here_is_trusted_by_its_recipe_and_no_other(embedded: str, state: Path) -> None:
    assert ours(embedded) == 0
    config = Path("out/config.yaml")
    [record] = (state / "runs").iterdir()
    assert record.name == blake3(config.read_bytes()).hexdigest()
    assert record.read_text() == f"{Path('out').absolute()}\n"
    assert run("evaluate", "out") == 0
    shutil.copytree("out", "elsewhere/copy")
    assert run("evaluate", "elsewhere/copy") == 0
    config.write_bytes(config.read_bytes() + b"\n")
    assert run("evaluate", "out") == 2
    assert run("evaluate", "out", "--trust") == 0
    assert run("evaluate", "out/distilled-seed0", "--config=recipe.yaml") == 0  # the user's own recipe
    for name in ("run.json", "results.json"):
        Path("out", name).unlink()
    assert run("evaluate", "out", f"--store={embedded}") == 2  # no run any more, and its recipe is taken all the same
    assert run("evaluate", "out", f"--store={embedded}", "--config=out/config.yaml") == 2
    Path("link.yaml").symlink_to("elsewhere/copy/config.yaml")
    record.unlink()
    assert run("train-student", "--config=link.yaml", f"--store={embedded}", "--out=again") == 2


def test_what_a_store_names_is_not_imported_even_to_look(work: Path) -> None:
    """A name of version 0.1 means the user's own package where it has such an object; a store's does not ask for it."""
    toy.write_store(work / "embedded", embed=True, function="pipeline.transfer.prepare.vector")
    for file in ("models/mlp.py", "transfer/prepare.py"):
        Path("pipeline", file).parent.mkdir(parents=True)
        Path("pipeline", file).write_text(PAYLOAD)
        Path("pipeline", file).with_name("__init__.py").touch()
    Path("pipeline/__init__.py").touch()
    assert ours("embedded") == 0
    assert "softlabels.transfer.vector" in Path("out/README.md").read_text()
    assert ours("embedded", student=MLP | {"class_path": "pipeline.models.mlp.MLP"}) == "PWNED"


def test_the_same_command_records_a_run_that_has_no_record(embedded: str, state: Path) -> None:
    """As one of version 0.1, with its names, or a run from another machine; where it is another's, nothing is recorded."""
    assert ours(embedded, student=MLP) == 0
    config = Path("out/config.yaml")
    text = config.read_text()
    for of_before in (text, text.replace("softlabels.models.MLP", "pipeline.models.mlp.MLP")):
        config.write_text(of_before.replace("name: toy\n", ""))  # a setting that came later
        shutil.rmtree(state)
        assert (
            run("train-student", "--config=out/config.yaml", f"--store={embedded}", "--out=out") == 0
        )  # all of it ships, and it stays somebody else's
        assert not state.exists()
        assert ours(embedded, student=MLP) == 0
        assert [path.name for path in state.glob("runs/*")] == [blake3(config.read_bytes()).hexdigest()]
    for of_others in (
        text.replace("softlabels.models.MLP", "mine.Net"),
        f"{text}teacher: {{}}\n",
        "[",
        "[\n" * 5000,
        "",
    ):
        config.write_text(of_others)
        shutil.rmtree(state, ignore_errors=True)
        assert ours(embedded, student=MLP) == 0
        assert not state.exists()


@pytest.mark.parametrize(
    "environment",
    [
        {"SOFTLABELS_STATE": "taken"},  # a file
        {"SOFTLABELS_STATE": "relative"},
        {"SOFTLABELS_STATE": "", "XDG_STATE_HOME": "relative", "HOME": ""},
        {"SOFTLABELS_STATE": "", "XDG_STATE_HOME": "", "HOME": "."},
    ],
)
def test_without_a_state_folder_training_goes_on(
    embedded: str,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
) -> None:
    """And what lies in the working folder in its place is no record."""
    (work / "taken").touch()
    for name, value in environment.items():
        monkeypatch.setenv(name, str(work / "taken") if value == "taken" else value)
    assert ours(embedded) == 0
    assert capsys.readouterr().err.count("warning: no record that out was made here") == 1
    for folder in ("relative", "relative/softlabels", ".local/state/softlabels"):
        Path(folder, "runs").mkdir(parents=True)
        Path(folder, "runs", blake3(Path("out/config.yaml").read_bytes()).hexdigest()).touch()
    assert run("evaluate", "out") == 2


def test_where_the_state_folder_is(embedded: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(work / "home"))
    monkeypatch.delenv("SOFTLABELS_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert ours(embedded) == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(work / "xdg"))
    assert run("evaluate", "out") == 2
    assert ours(embedded) == 0
    assert run("evaluate", "out") == 0
    for folder in (work / "home" / ".local" / "state", work / "xdg"):
        assert len(list((folder / "softlabels" / "runs").iterdir())) == 1
        assert (folder / "softlabels" / "runs").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("results", [b"", b"{}", b'{"store": 3}', b"[" * 100_000, b"[1]", b"\xff"])
def test_results_that_name_no_store_are_one_line(
    embedded: str, results: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(Path("run"), embedded, recipe())
    Path("run/results.json").write_bytes(results)
    assert run("evaluate", "run") == 2
    said = capsys.readouterr().err
    assert said.startswith("DamagedRun: run/results.json ")
    assert said.endswith("; name the store: --store=STORE\n")
    assert run("evaluate", "run", f"--store={embedded}") == 0


# What these commands import, or try to, and what a folder may have in its place.
NAMES = (
    "torch", "numpy", "yaml", "json", "dataclasses", "pathlib", "datasets", "msgspec", "blake3", "safetensors",
    "tqdm", "softlabels", "tensorflow", "jax", "tensorboard", "matplotlib", "triton", "kernels", "polars", "torchvision",
)  # fmt: skip
SCRIPT = ["-P", "-c", "from softlabels_stages.__main__ import main; raise SystemExit(main())"]


@pytest.mark.parametrize(
    "command", [[*SCRIPT, "evaluate", "."], ["-m", "softlabels_stages", "info", "../embedded/test"]]
)
def test_modules_in_their_folder_are_not_imported(embedded: str, work: Path, command: list[str]) -> None:
    folder = make_run(work / "run", "../embedded", recipe())
    for name in NAMES:
        (folder / f"{name}.py").write_text(PAYLOAD)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (folder / "PWNED").exists()


@pytest.mark.parametrize("name", ["config.yaml", "distilled-seed0"])
def test_a_link_in_a_run_is_not_read_through(embedded: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What lies behind it is not the run's, and would be quoted in the error that names its lines."""
    folder = make_run(Path("run"), embedded, recipe())
    Path("secret").write_text("password: hunter2")
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    (folder / name).symlink_to(Path("secret").absolute())
    assert run("evaluate", "run/distilled-seed0", "--config=run/config.yaml") == 3
    said = capsys.readouterr()
    assert "is a link" in said.err
    assert "hunter2" not in said.err + said.out
