"""softlabels beside a user's own packages `pipeline`, `stages` and `tests`: from this checkout, and from its wheel.

To build the wheel pip fetches hatchling.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = torch.nn.Linear(4, classes)

    def forward(self, x):
        return self.layer(x)
"""
DATA = """
import numpy as np

def points(split):
    return {"x": np.random.default_rng(len(split)).normal(size=(32, 4)).astype("float32"), "label": np.arange(32) % 3}
"""
RECIPE = """
name: mine
transfer_set:
  {name: points, factory: {class_path: stages.data.points}, inputs: [x], prepare: {class_path: softlabels.transfer.vector}}
teacher:
  name: mine
  members:
    - {class_path: pipeline.nets.Net, init_args: {classes: 3}, weights: net.safetensors}
    - {class_path: pipeline.models.mlp.MLP, init_args: {classes: 3}, weights: net.safetensors}
labels: {inputs: embed}
student: {class_path: pipeline.nets.Net, init_args: {classes: 3}}
training: {epochs: 1, baseline: false, device: cpu, threads: 1}
"""
MODELS = ["pipeline.nets.Net", "pipeline.models.mlp.MLP"]  # as 0.1 called a model of ours: here it is the user's own
EXAMPLE = """
import numpy as np
import pipeline, stages, tests
from softlabels import write_store

assert (pipeline.MINE, stages.MINE, tests.MINE) == (1, 1, 1)
inputs = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
store = write_store("stores/example", np.random.default_rng(1).normal(size=(20, 5)), inputs=inputs, split="train")
assert np.allclose(np.exp(store.log_probs([3, 1], temperature=8.0)).sum(1), 1)
"""
COMMANDS = {
    "teacher-logits": ("teacher-logits", "--config=mine.yaml", "--store=stores/mine"),
    "train-student": ("train-student", "--config=mine.yaml", "--store=stores/mine"),
    "info": ("info", "stores/mine"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with packages of its own."""
    files = {"pipeline/nets.py": NET, "pipeline/models/mlp.py": NET.replace("Net", "MLP"), "stages/data.py": DATA}
    files |= {f"{package}/__init__.py": "MINE = 1\n" for package in ("pipeline", "stages", "tests")}
    files |= {"pipeline/models/__init__.py": "", "mine.yaml": RECIPE, "example.py": EXAMPLE}
    for name, text in files.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    net = torch.nn.Linear(4, 3)
    save_file(
        {f"layer.{name}": value for name, value in net.state_dict().items()}, tmp_path / "project/net.safetensors"
    )
    return tmp_path / "project"


def run(project: Path, *command: str | Path, path: str | None = None) -> str:
    """What a command prints in the project, with PYTHONPATH or without."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"SOFTLABELS_CACHE": str(project.parent / "cache")} | ({} if path is None else {"PYTHONPATH": path})
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_works(project: Path, python: Path | str, commands: Sequence[Sequence[str | Path]], path: str | None) -> None:
    """`commands`: how the stages of COMMANDS are called, in their order; the first two make what the others read."""
    for made in ("stores", "runs"):
        shutil.rmtree(project / made, ignore_errors=True)
    run(project, python, "example.py", path=path)
    for command in commands:
        run(project, *command, path=path)
    code = "from softlabels import open_store; print(*(m.model for m in open_store('stores/mine/train').spec.teacher.members))"
    assert run(project, python, "-c", code, path=path).split() == MODELS
    assert list(project.glob("runs/mine-*/results.json"))


@pytest.mark.slow
def test_this_checkout_works_beside_a_users_packages(project: Path) -> None:
    """One process is the installed command for both stages; -P: the project is not on Python's path by itself."""
    calls = " or ".join(f"main({list(COMMANDS[stage])})" for stage in ("teacher-logits", "train-student"))
    code = f"import sys; from softlabels_stages.__main__ import main; sys.exit({calls})"
    both = (sys.executable, "-P", "-c", code)
    info = (sys.executable, "-m", "softlabels_stages", *COMMANDS["info"])
    assert_works(project, sys.executable, [both, info], None)
    run(project, *info, path=".")
    run(project, sys.executable, "example.py", path=".")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that has the wheel of this checkout, and what it needs from the tests' environment."""
    home = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
    pip = (home / "env" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={home}", ROOT], check=True)
    subprocess.run([*pip, "install", "--no-deps", *home.glob("*.whl")], check=True)
    [packages] = (home / "env").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(
        str(Path(torch.__file__).parent.parent)
    )  # searched after the wheel's own place
    return home


@pytest.mark.slow
@pytest.mark.parametrize("path", [None, "."], ids=["without PYTHONPATH", "PYTHONPATH=."])
def test_the_wheel_works_beside_a_users_packages(project: Path, wheel: Path, path: str | None) -> None:
    binaries = wheel / "env" / "bin"
    python, softlabels = binaries / "python", binaries / "softlabels"
    places = run(
        project,
        python,
        "-c",
        "import softlabels as s, softlabels_stages as t; print(s.__file__, t.__file__)",
        path=path,
    )
    assert all(Path(place).is_relative_to(wheel / "env") for place in places.split()), places
    assert_works(project, python, [(softlabels, *words) for words in COMMANDS.values()], path)
    assert_works(project, python, [(python, "-m", "softlabels_stages", *words) for words in COMMANDS.values()], path)


@pytest.mark.slow
def test_what_the_wheel_holds(wheel: Path) -> None:
    [file] = wheel.glob("*.whl")
    names = zipfile.ZipFile(file).namelist()
    [record] = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    sources = {
        home: ROOT / home / package for home, package in (("pipeline", "softlabels"), ("stages", "softlabels_stages"))
    }
    kept = {
        str(path.relative_to(ROOT / home))
        for home, source in sources.items()
        for path in source.rglob("*")
        if path.suffix in (".py", ".yaml", ".css", ".js") or path.name == "py.typed"
    }
    kept |= {f"softlabels_stages/digits/{path.name}" for path in (ROOT / "data" / "digits").iterdir()}
    assert kept == {name for name in names if not name.startswith(record)}
    assert (f"{record}/licenses/LICENSE" in names) == (ROOT / "LICENSE").exists()


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir(), work.mkdir()
    environment = {"HOME": str(home), "PATH": f"{wheel / 'env' / 'bin'}:/usr/bin:/bin"}
    for _ in range(2):  # the second one shows what the first has made
        done = subprocess.run(["softlabels", "demo"], cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        *_, report = [line.removeprefix("report: ") for line in done.stdout.splitlines() if line.startswith("report: ")]
        assert (work / report).is_file()
        assert "student, distilled" in done.stdout
    assert [path.name for path in work.iterdir()] == ["softlabels-demo"]
