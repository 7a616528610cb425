"""No input at the command line ends in a traceback of ours: every stage with bad files, bad words and a poor environment."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import pwd
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from softlabels.errors import DamagedRun
from softlabels.jobs.run_files import read_results
from softlabels.models import build_model, save_weights
from softlabels.models.build import ModelConfig
from softlabels.report.comparison import best_student, comparison_text
from softlabels.system.local import LocalFolder
from softlabels_stages.__main__ import main
from softlabels_stages.commands import COMMANDS
from tests.stages import toy


def said(capsysbinary: pytest.CaptureFixture[bytes], *words: str) -> str:
    """What a command that must fail says, in one line of its own."""
    return tried(capsysbinary, words, codes=(2, 3, 74)).splitlines()[-1]


def tried(
    capsysbinary: pytest.CaptureFixture[bytes], words: Sequence[str], codes: Sequence[int] = (0, 2, 3, 74)
) -> str:
    """What a command writes to stderr, which is no traceback and no mistake of ours."""
    capsysbinary.readouterr()
    code = main(words)
    out, error = (text.decode(errors="backslashreplace") for text in capsysbinary.readouterr())
    assert code in codes, (words, code, error)
    assert "Traceback" not in out + error, (words, error)
    assert "Unexpected" not in error, (words, error)
    return error


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a recipe and a finished run."""
    work = tmp_path_factory.mktemp("made")
    here, before = Path.cwd(), dict(os.environ)
    os.chdir(work)
    os.environ["SOFTLABELS_CACHE"] = str(work / "cache")
    try:
        toy.write_store(work / "store")
        weights = []
        for number in range(2):
            torch.manual_seed(number)
            student = build_model(ModelConfig(**toy.recipe()["student"]))
            weights.append({**toy.recipe()["student"], "weights": f"teacher-{number}.safetensors"})
            save_weights(student, work / f"teacher-{number}.safetensors")
        toy.write_recipe(work / "recipe.yaml", teacher={"members": weights, "device": "cpu"})
        run = ["--config=recipe.yaml", "--store=store", "--out=run", "--epochs=1", "--seeds=0"]
        assert main(["train-student", *run]) == 0
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
    return work


@pytest.fixture
def there(made: Path, work: Path) -> Path:
    """A copy of it as the working folder."""
    shutil.copytree(made, work, dirs_exist_ok=True)
    return work


BROKEN = [
    b"",
    b'{"store": 3}',
    b"[\n" * 5000,  # in one line, YAML searches for the end of the first key for a second
    *(pytest.param(odd, marks=pytest.mark.slow) for odd in (b"\xff\xfe", b"null")),
]
TRAIN = ["train-student", "--config=recipe.yaml", "--store=store", "--out=run", "--epochs=1", "--seeds=0"]
USERS = [TRAIN, ["evaluate", "run/distilled-seed0"], ["export", "run", "--formats=torch"], ["correct", "run"]]


@pytest.mark.parametrize("name", ["run.json", "results.json", "config.yaml"])
@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_broken_files_of_a_run(
    there: Path, capsysbinary: pytest.CaptureFixture[bytes], name: str, broken: bytes
) -> None:
    """Seen to fail: a JSONDecodeError, a KeyError and a TypeError of ours."""
    (there / "run" / name).write_bytes(broken)
    for words in USERS:
        tried(capsysbinary, words)
    if name == "results.json":
        assert "DamagedRun: run/results.json " in said(capsysbinary, *TRAIN)
    if name == "run.json" and broken != b'{"store": 3}':
        assert "DamagedRun: run/run.json " in said(capsysbinary, *TRAIN)


def test_other_words_in_results(there: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Each in turn is refused, or can be shown. Seen to fail: errors of ours where rows that splits share are a number, where a
    temperature is a list.
    """
    path, folder = there / "run" / "results.json", LocalFolder(there / "run")
    results = json.loads(path.read_text())
    for place in (results, results["students"][0], results["students"][0]["scores"][0], results["teacher"]):
        for name in place:
            for value in (3, "x", [], {}, None, float("inf"), [[1]]):
                before, place[name] = place[name], value
                path.write_text(json.dumps(results))
                with contextlib.suppress(DamagedRun):
                    found = read_results(folder)
                    comparison_text(found)
                    best_student(found)
                place[name] = before
    path.write_text(json.dumps(results | {"shared_rows": float("inf")}))
    assert "DamagedRun: run/results.json is no JSON file: Infinity" in said(capsysbinary, *TRAIN)


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize(
    "name", ["checkpoint.pt", "distilled-seed0/weights.safetensors", "distilled-seed0/metrics.jsonl"]
)
def test_broken_files_of_training(
    there: Path, capsysbinary: pytest.CaptureFixture[bytes], name: str, broken: bytes
) -> None:
    (there / "run" / "results.json").unlink()
    (there / "run" / name).write_bytes(broken)
    for words in [TRAIN, ["evaluate", "run/distilled-seed0", "--store=store"]]:
        tried(capsysbinary, words)


def forged(state: dict[str, Any], kind: str) -> dict[str, Any]:
    """A checkpoint that torch loads, and that no run writes."""
    if kind in ("state", "rng"):
        return state | {kind: 3}
    changed = {"learners": [], "progress": 3, "tensors": [{"model": {}}]}[kind]
    return state | {"state": state["state"] | {"learners" if kind == "tensors" else kind: changed}}


@pytest.mark.parametrize("kind", ["state", "rng", "learners", "progress", "tensors"])
def test_a_checkpoint_that_does_not_fit(there: Path, capsysbinary: pytest.CaptureFixture[bytes], kind: str) -> None:
    (there / "run" / "results.json").unlink()
    file = there / "run" / "checkpoint.pt"
    torch.save(forged(torch.load(file, weights_only=True), kind), file)
    assert "DamagedRun: run/checkpoint.pt does not fit these students: " in said(capsysbinary, *TRAIN)


def test_a_run_goes_on_with_another_model_of_the_same_name(
    there: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = "import softlabels.models as m\nclass Net(m.MLP):\n def __init__(self): super().__init__(6, [{}], 5)\n"
    words = ["--student.class_path=users_net.Net", "--out=own"]
    for width in (8, 16):  # files of other lengths: Python may keep what it compiled in the same second
        (there / "users_net.py").write_text(net.format(width))
        monkeypatch.delitem(sys.modules, "users_net", raising=False)
        importlib.invalidate_caches()
        if width == 8:
            tried(capsysbinary, [*TRAIN[:3], *TRAIN[4:], *words], codes=(0,))
            (there / "own" / "results.json").unlink()
    assert "if the code of a model or optimizer has changed since" in said(capsysbinary, *TRAIN[:3], *TRAIN[4:], *words)


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../../x", "", ".", "a//b", "a\0b"])
def test_a_name_that_leads_elsewhere(there: Path, capsysbinary: pytest.CaptureFixture[bytes], name: str) -> None:
    """Seen to fail: a store and a run beside the working folder."""
    shutil.copytree(there, there / "inside")
    os.chdir(there / "inside")
    recipe = yaml.safe_load(Path("recipe.yaml").read_text()) | {"name": name}
    Path("named.yaml").write_text(yaml.safe_dump(recipe))
    before = sorted(there.iterdir())
    for stage in ("train-student", "teacher-logits"):
        assert "ConfigError: named.yaml: name is " in said(capsysbinary, stage, "--config=named.yaml")
    assert sorted(there.iterdir()) == before


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("args", ["&a {x: *a}", "{x: &b [*b]}", "{\n" * 3000, "[" * 200 + "]" * 200, BOMB])
def test_recipes_without_end(there: Path, capsysbinary: pytest.CaptureFixture[bytes], args: str) -> None:
    """Seen to fail: a RecursionError, and minutes and gigabytes."""
    inner = f" {args}" if args != BOMB else "\n" + textwrap.indent(args, "    ")
    (there / "recipe.yaml").write_text(f"student:\n  class_path: softlabels.models.MLP\n  init_args:{inner}\n")
    assert "ConfigError: recipe.yaml " in said(capsysbinary, *TRAIN)


@pytest.mark.parametrize("store", ["", "a\0b"])
def test_results_that_name_no_path(there: Path, capsysbinary: pytest.CaptureFixture[bytes], store: str) -> None:
    results = there / "run" / "results.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"store": store}))
    line = said(capsysbinary, "evaluate", "run/distilled-seed0")
    assert line.startswith("ConfigError: a path holds a NUL" if store else "DamagedRun: run/results.json does not name")


def test_a_student_is_judged_from_its_own_folder(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no name of a folder stands in the words, its run is found too."""
    monkeypatch.chdir(there / "run" / "distilled-seed0")
    assert main(["evaluate", ".", f"--store={there / 'store'}"]) == 0


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize(
    "name", ["store/train/manifest.json", "store/train/plan.json", "store/train/commits/00000.json"]
)
def test_broken_files_of_a_store(
    there: Path, capsysbinary: pytest.CaptureFixture[bytes], name: str, broken: bytes
) -> None:
    (there / name).write_bytes(broken)
    for words in (
        ["info", "store"], ["verify", "store"], ["convert", "store", "copy"], ["encode", "store", "topk"],
        ["evaluate", "--store=store", "--split=train"], ["push", "store", "there"], ["list", "store"],
        ["pull", "store", "pulled"], ["repair", "store"],
    ):  # fmt: skip
        tried(capsysbinary, words)


def wrong_files(work: Path) -> dict[str, str]:
    """Paths that are not what any stage wants."""
    (work / "folder").mkdir()
    (work / "empty").touch()
    (work / "noise").write_bytes(bytes(range(256)) * 40)
    (work / "loop").symlink_to("loop")
    (work / "zeros").symlink_to("/dev/zero")
    os.mkfifo(work / "pipe")
    names = [
        "folder",
        "empty",
        "noise",
        "loop",
        "pipe",
        "zeros",
        "nowhere",
        "noise/below",
        "x" * 300,
        "\udcff",
        "",
        "~nobody/x",
        "a\nb",
        "💥",
    ]
    return {repr(name): name for name in names}


MINE = "--config=recipe.yaml"
WANTS = {
    "demo": ["{}"],
    "train-teacher": ["--config={}"],
    "teacher-logits": ["--config={}", f"{MINE} --store={{}}", f"{MINE} --store=new --transfer_set.source={{}}"],
    "train-student": ["--config={}", f"{MINE} --store={{}}", f"{MINE} --store=store --student.weights={{}}"],
    "extend": [f"{{}} {MINE} --out=new", "store --config={} --out=new", f"store {MINE} --out={{}}"],
    "plan": ["--config={}", "{}"],  # other paths are looked at after a pilot of some seconds
    "report": ["{}", "store {}", f"store {MINE} --out={{}}", "store --config={}", "store --label_errors={}"],
    "evaluate": ["{}", "--store={}", "--store={},store", "--config=recipe.yaml --store=store {}", "--store=store --split={}"],
    "correct": ["{}", "run --rows={}", "run --class_prior={}"],
    "prune": ["{}", "run --store={}", "run --keep={}"],
    "export": ["{}", "run --store={}", "run --split={}"],
    "info": ["{}", "store --split={}"],
    "verify": ["{}", "store --sample={}", "store --against_teacher={}", "store --signed_by={}", "store/test --digest={}"],
    "repair": ["{}"],
    "convert": ["{} copy", "{} {}"],
    "encode": ["{} copy", "store {}"],
    "merge": ["{} store --out=new", "store {} --out=new", "store store/test --out={}"],
    "concat": ["{} store --out=new", "store {} --out=new", "store/test store/train --repeated=first --out={}"],
    "select": ["{} --splits=test --out=new", "store --splits=test --out={}", "store/test --rows={} --out=new"],
    "diff": ["{} store", "store {}", "store store --splits={}", "store store --temperatures={}"],
    "sign": ["{} --key=key", "store --key={}"],
    "push": ["{} there", "store {}"],
    "pull": ["{} copy", "store {}", "store new --split={}", "store/train new --digest={}", "store new --signed_by={}"],
    "list": ["{}", "store --teacher_digest={}", "store --data={}"],
    "cache": ["{}", "--clear={}"],
    "export-labels": ["{} out.parquet", "store/test {}", "store out.parquet --split={}"],
    "import": [
        "--from={} --store=new --split=train", "--from=noise --store={} --split=train",
        "--from=empty --store=new --split=train --column={}",
        "--from={} --from_format=distillkit --known_at=1 --teacher_tokenizer=teacher --store=new --split=train",
        "--from={} --from_format=axolotl --known_at=1 --teacher_tokenizer={} --store=new --split=train",
    ],
}  # fmt: skip


@pytest.mark.parametrize("stage", COMMANDS)
def test_paths_that_are_something_else(there: Path, capsysbinary: pytest.CaptureFixture[bytes], stage: str) -> None:
    for name in wrong_files(there).values():
        for form in WANTS[stage]:
            tried(capsysbinary, [stage, *(word.format(name) for word in form.split(" "))])


@pytest.mark.parametrize(
    "word",
    ["--", "---x=1", "--=1", "-", "--config", "=", "--x", "\udcff", "--\udcff=1", "-h=1"],
)
def test_words_that_are_no_flags(capsysbinary: pytest.CaptureFixture[bytes], word: str) -> None:
    for stage in COMMANDS:
        tried(capsysbinary, [stage, word])


def process(
    *words: object, env: dict[str, str | None] | None = None, limits: dict[int, int] | None = None
) -> tuple[int, str]:
    """A command in a process of its own: exit code, and all that it says."""

    def limit() -> None:
        for name, value in (limits or {}).items():
            resource.setrlimit(name, (value, value))

    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    found = subprocess.run(
        [sys.executable, "-m", "softlabels_stages", *map(str, words)],
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        preexec_fn=limit,
        timeout=300,
    )
    return found.returncode, (found.stdout + found.stderr).decode(errors="backslashreplace")


def test_paths_that_are_not_utf8(
    there: Path, capsysbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Store, recipe and run below a folder whose name is the byte 0xff. Seen to fail: UnicodeEncodeErrors."""
    caplog.set_level(logging.CRITICAL, "softlabels")  # workers of pytest-xdist cannot hand on a line with that name
    odd = "\udcff"
    Path(odd).mkdir()
    shutil.copytree("store", f"{odd}/store")
    shutil.copy("recipe.yaml", f"{odd}/recipe.yaml")
    mine = [f"--config={odd}/recipe.yaml", f"--store={odd}/store"]
    for words in (
        ["train-student", *mine, f"--out={odd}/run", "--epochs=1", "--seeds=0"],
        ["train-student", *mine, f"--out={odd}/run", "--epochs=1", "--seeds=0"],
        ["evaluate", f"{odd}/run/distilled-seed0"],
        ["evaluate", f"{odd}/run/distilled-seed0", "--json"],
        ["export", f"{odd}/run"],
        ["info", f"{odd}/store"],
        ["info", f"{odd}/store", "--json"],
        ["verify", f"{odd}/store"],
        ["convert", f"{odd}/store", f"{odd}/copy"],
        ["encode", f"{odd}/store", f"{odd}/topk", "--k=2", "--tail=uniform"],
        ["push", f"{odd}/store", f"{odd}/there"],
        ["pull", f"{odd}/there", f"{odd}/back"],
        ["repair", f"{odd}/store"],
        ["teacher-logits", f"--config={odd}/recipe.yaml", f"--store={odd}/new"],
        ["correct", f"{odd}/run", f"--out={odd}/corrected"],
    ):
        tried(capsysbinary, words, codes=(0,))


def test_without_a_home_it_says_what_to_set(
    there: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor an entry in the list of users. Seen to fail: pathlib's RuntimeError."""

    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "SOFTLABELS_CACHE"):
        monkeypatch.delenv(name)
    assert said(capsysbinary, *TRAIN, "--out=new").endswith("; set SOFTLABELS_CACHE to a folder, or HOME")
    tilde = said(
        capsysbinary, "teacher-logits", MINE, "--store=new", "--transfer_set.factory=null", "--transfer_set.source=~/x"
    )
    assert tilde.startswith("ConfigError: ")


@pytest.mark.slow
def test_few_open_files_are_enough(there: Path) -> None:
    code, text = process(*TRAIN[:3], "--epochs=1", "--seeds=0", limits={resource.RLIMIT_NOFILE: 64})
    assert (code, "Traceback" in text) == (0, False), text


@pytest.mark.parametrize("mebibytes", [300, pytest.param(1500, marks=pytest.mark.slow)])
def test_too_little_memory_is_one_line(there: Path, mebibytes: int) -> None:
    code, text = process(*TRAIN[:3], "--epochs=1", limits={resource.RLIMIT_AS: mebibytes << 20})
    assert "Traceback" not in text, text
    assert code in (0, 74), text


def broken_function(rows: list[object]) -> None:
    """As a user's own prepare function may be."""
    raise ZeroDivisionError("theirs")


def test_a_users_own_function_keeps_its_traceback(there: Path) -> None:
    words = [MINE, "--store=new", f"--transfer_set.prepare.class_path={__name__}.broken_function"]
    with pytest.raises(ZeroDivisionError, match="theirs"):
        main(["teacher-logits", *words])
