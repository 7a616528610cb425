"""Prepared rows as commands open them: rows of one kind, missing inputs, another prepare function, what stands beside a recipe,
and `softlabels cache`.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from softlabels.store import open_store
from softlabels.system.local import LocalFolder
from softlabels.transfer.cache import lock
from softlabels.transfer.cache_entries import cache_entries
from softlabels_stages import cache, teacher_logits, train_student, verify

LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
FILL = """import numpy as np
def fill(rows): return np.array([[-9 if v is None else v for v in row] for row in rows], np.float32)
"""


class Case:
    """Two columns of numbers in Parquet, a linear teacher in float32, and a prepare function that a test writes."""

    def __init__(self, work: Path, rng: np.random.Generator) -> None:
        self.work, self.rng = work, rng
        self.module = f"mine_{work.name}"
        self.values = {split: rng.normal(size=(rows, 2)).round(3) for split, rows in (("train", 50), ("test", 20))}
        self.weight, self.bias = rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=3).astype(np.float32)
        save_file({"weight": torch.tensor(self.weight), "bias": torch.tensor(self.bias)}, "t.safetensors")

    def write(self, folder: Path = Path(), function: str = FILL, **transfer_set: Any) -> str:
        """The recipe, and its module beside it."""
        folder.mkdir(exist_ok=True)
        (folder / f"{self.module}.py").write_text(function)
        Path("data").mkdir(exist_ok=True)
        for split, values in self.values.items():
            columns = {name: [None if np.isnan(v) else v for v in values[:, n]] for n, name in enumerate("ab")}
            pq.write_table(pa.table(columns), f"data/{split}.parquet")
        rows = {
            "source": "./data",
            "inputs": ["a", "b"],
            "label": None,
            "prepare": {"class_path": f"{self.module}.fill"},
        }
        recipe = {
            "name": "own",
            "transfer_set": {**rows, **transfer_set},
            "teacher": {"members": [{**LINEAR, "weights": "t.safetensors"}], "device": "cpu"},
            "student": LINEAR,
            "training": {
                "epochs": 1,
                "batch_size": 16,
                "seeds": [0],
                "threads": 1,
                "device": "cpu",
                "validation": 0,
                "baseline": False,
                "alpha": 1,
            },
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        for name in [name for name in sys.modules if name == self.module]:
            del sys.modules[name]  # another process imports anew
        return f"--config={folder / 'recipe.yaml'}"

    def expected(self, split: str, missing: float = -9) -> np.ndarray:
        """Probabilities (R, 3) in float64."""
        z = np.nan_to_num(self.values[split], nan=missing) @ self.weight.astype(float).T + self.bias
        odds = np.exp(z - z.max(1, keepdims=True))
        return np.asarray(odds / odds.sum(1, keepdims=True))

    def assert_stored(self) -> None:
        for split in self.values:
            store = open_store(f"s/{split}")
            found = np.exp(store.log_probs(range(store.rows), temperature=1.0))
            np.testing.assert_allclose(found, self.expected(split), atol=2e-3)


@pytest.fixture
def case(work: Path, rng: np.random.Generator) -> Case:
    return Case(work, rng)


def test_rows_that_miss_inputs_are_labelled_and_trained_on(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """By the second key rule, which is in the specification; and without a null nothing of it is."""
    case.values["train"][[3, 7], [0, 1]] = case.values["test"][5] = np.nan
    assert teacher_logits.main([case.write(), "--store=s"]) == 2
    assert "null in row 3; fill or filter such rows, or set transfer_set.missing: pass" in capsys.readouterr().err
    config = case.write(missing="pass")
    assert teacher_logits.main([config, "--store=s"]) == 0
    assert "train: 2 of 50 rows lack an input (transfer_set.missing: pass)" in capsys.readouterr().err
    case.assert_stored()
    for split in case.values:
        store = open_store(f"s/{split}")
        assert (store.manifest.format, store.spec.transfer_set.key_rule) == (3, 2)
    assert train_student.main([config, "--store=s", "--out=r"]) == 0
    assert verify.main(["s/train", f"--against_teacher={config.partition('=')[2]}"]) == 0


DEPTHS = """import numpy as np
def depths(split):
    x = np.full((4, 8, 8), 200, np.uint8) if split == "train" else np.full((4, 8, 8), 50_000, np.uint16)
    return {"a": x, "b": np.arange(4)}
def fill(rows): return np.array([[row[0].max(), 1] for row in rows], np.float32)
"""


def test_a_mix_of_splits_is_refused_before_anything_is_labelled(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    config = case.write(function=DEPTHS, source=None, factory={"class_path": f"{case.module}.depths"})
    assert teacher_logits.main([config, "--store=s"]) == 2
    assert "row 0 of test has 16 bits, row 0 of train has 8 bits" in capsys.readouterr().err
    assert not Path("s").exists()


def images(*depths: str) -> pa.Array:
    """Grey pictures of 8 or 16 bits, as `datasets` stores them."""
    rows = []
    for depth in depths:
        buffer = io.BytesIO()
        PIL.Image.fromarray(np.full((4, 4), 200, depth)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    return pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def latin1() -> pa.Array:
    """Three texts, the second of which is not UTF-8."""
    ends = np.array([0, 1, 2, 3], np.int32)
    return pa.StringArray.from_buffers(3, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"a\xe9b"))


LENGTHS = "import numpy as np\ndef fill(rows): return np.array([[len(row[0]), 1] for row in rows], np.float32)\n"
NUMBERS = {"a": [1.0, 2.0, 4.0], "b": [0.5, 0.0, 3.0]}
SPOILT = {
    "kinds": ({"a": images("u1", "u1", "u2"), "b": [0, 1, 2]}, LENGTHS, "has 8 bits, row 2 of t"),
    "batch": (NUMBERS, FILL.replace("], np.float32)", "], np.float32) - np.mean([r[0] for r in rows])"), "other rows stand"),
    "random": (NUMBERS, FILL.replace("np.float32)", "np.float32) + np.random.rand()"), "draw no random numbers"),
    "nan": ({**NUMBERS, "b": [0.5, np.nan, 3.0]}, FILL, "fill gives NaN in 1 of 3 rows, first in row 1, and the input 'b'"),
    "null": ({**NUMBERS, "b": [0.5, 1.0, None]}, FILL, "input column 'b' is null in row 2"),
    "text": ({"a": latin1(), "b": [0, 1, 2]}, LENGTHS, "input column 'a', row 1: this text is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_every_door_asks_the_rows(
    case: Case, spoilt: str, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sound store is there; its transfer set is spoilt after that."""
    config = case.write()
    recipe = config.partition("=")[2]
    assert teacher_logits.main([config, "--store=s"]) == 0
    columns, function, words = SPOILT[spoilt]
    np.savez("f.npz", logits=rng.normal(size=(3, 3)))
    doors: dict[str, Callable[[], int]] = {
        "live": lambda: teacher_logits.main([config, "--store=new"]),
        "import": lambda: import_module("softlabels_stages.import").main(["f.npz", "i/train", config]),
        "student": lambda: train_student.main([config, "--store=s", "--out=r"]),
        "verify": lambda: verify.main(["s/train", f"--against_teacher={recipe}"]),
    }
    for door, ask in doors.items():
        case.write(function=function)
        for split in case.values:
            pq.write_table(pa.table(columns), f"data/{split}.parquet")
        capsys.readouterr()
        assert ask() == 2, door
        assert words in capsys.readouterr().err, door
    assert not any(Path(name).exists() for name in ("new", "i", "r/manifest.json"))


WHITE = """import numpy as np
def fill(rows): return np.array([[row[0].reshape(-1, 3).mean(), len(row[1]) / 10] for row in rows], np.float32) / 256
"""


def test_colours_sounds_and_texts_reach_the_teacher(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """CMYK as Pillow shows it, beside a sound, which is bytes; the right value in float64."""
    pictures, white = [], []
    for grey in (250, 30, 130, 90):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (8, 8), (grey, 255 - grey, grey)).convert("CMYK").save(buffer, "JPEG", quality=95)
        pictures.append({"bytes": buffer.getvalue(), "path": None})
        white.append(np.asarray(PIL.Image.open(buffer).convert("RGB"), np.float64).mean())
    sounds = [{"bytes": b"RIFF" + bytes(n), "path": None} for n in range(4)]
    config = case.write(function=WHITE)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for split in case.values:
        pq.write_table(pa.table({"a": pa.array(pictures, kind), "b": pa.array(sounds, kind)}), f"data/{split}.parquet")
        case.values[split] = np.stack([np.array(white) / 256, (4 + np.arange(4)) / 10 / 256], axis=1)
    assert teacher_logits.main([config, "--store=s"]) == 0
    case.assert_stored()


def test_what_a_row_of_a_text_file_is_is_printed(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    config = case.write(function=LENGTHS, inputs=["text"], source="./texts", sample_by="paragraph")
    Path("texts").mkdir()
    for split in case.values:
        Path(f"texts/{split}.txt").write_text("one\ntwo\n\nthree\n")
    Path(f"{case.module}.py").write_text(LENGTHS.replace("len(row[0])", "len(row.split()[0])"))
    case.values = {split: np.array([[3.0, 1], [5, 1]]) for split in case.values}
    assert teacher_logits.main([config, "--store=s"]) == 0
    assert "train: text files, 2 texts: each paragraph is one" in capsys.readouterr().err
    case.assert_stored()


def test_inputs_that_import_keeps_are_looked_at(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = rng.normal(size=(40, 2))
    inputs[7, 1] = np.nan
    np.savez("f.npz", logits=rng.normal(size=(40, 3)), inputs=inputs)
    words = "train: the inputs of 1 of 40 rows hold NaN or infinite values, first in row 7"
    for how in ("embed", "reference"):
        assert import_module("softlabels_stages.import").main(["f.npz", f"{how}/train", f"--inputs={how}"]) == 0
        assert (words in capsys.readouterr().out) == (how == "embed")


def test_a_teacher_of_one_output_is_refused(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    config = case.write()
    save_file({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, "t.safetensors")
    recipe = Path("recipe.yaml")
    recipe.write_text(recipe.read_text().replace("out_features: 3", "out_features: 1"))
    assert teacher_logits.main([config, "--store=s"]) == 2
    assert "the teacher has one output, and a distribution has two classes or more" in capsys.readouterr().err


def test_students_are_told_of_another_preparation(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert teacher_logits.main([case.write(), "--store=s"]) == 0
    for function, line in (
        (FILL.replace("-9 if", "-8 if"), ""),
        (
            FILL.replace("np.float32)", "np.float32) / 2"),
            f"train: {case.module}.fill has the same name and arguments as for",
        ),
        (
            FILL.replace("rows)", "rows, unit=1)"),
            "train: inputs are prepared differently from those that the store's teacher saw",
        ),
    ):
        arguments = {"init_args": {"unit": 2}} if "unit" in function else {}
        config = case.write(function=function, prepare={"class_path": f"{case.module}.fill", **arguments})
        capsys.readouterr()
        assert train_student.main([config, "--store=s", f"--out=r{len(line)}"]) == 0
        said = capsys.readouterr().err
        assert line in said
        assert bool(line) == ("store's teacher" in said)


def test_a_recheck_does_not_use_stale_rows(
    case: Case, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A module that the function imports, changed after the rows were prepared."""
    helper = Path(f"{case.module}_helper.py")
    helper.write_text("SCALE = 1\n")
    function = f"import {helper.stem}\n{FILL}".replace("np.float32)", f"np.float32) * {helper.stem}.SCALE")
    config = case.write(function=function)
    assert teacher_logits.main([config, "--store=s"]) == 0
    case.assert_stored()
    helper.write_text("SCALE = 3  # another\n")
    del sys.modules[case.module], sys.modules[helper.stem]
    assert verify.main(["s/train", f"--against_teacher={config.partition('=')[2]}"]) != 0
    assert "the prepare function gives other rows than those in" in caplog.text
    assert "the teacher does not give the stored logits" in capsys.readouterr().err


def test_modules_are_found_beside_the_recipe(case: Case) -> None:
    """Whose paths are those of the working folder."""
    assert teacher_logits.main([case.write(Path("recipes")), "--store=s"]) == 0
    case.assert_stored()


def test_an_error_names_the_same_path_beside_the_recipe(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    config = case.write(Path("recipes"))
    Path("data").rename("recipes/data")
    assert teacher_logits.main([config, "--store=s"]) == 2
    said = capsys.readouterr().err
    assert (
        f"({case.work / 'recipes' / 'data'} exists beside the recipe: relative paths are those of the working folder"
        in said
    )
    Path("recipes/data").rename("elsewhere")
    assert teacher_logits.main([config, "--store=s"]) == 2
    assert "beside the recipe" not in capsys.readouterr().err


def test_a_teacher_labels_the_first_rows_only(case: Case) -> None:
    config = case.write(splits={"train": "train[:12]", "test": "test[:50%]"})
    assert teacher_logits.main([config, "--store=s"]) == 0
    for split, rows in (("train", 12), ("test", 10)):
        store = open_store(f"s/{split}")
        assert store.rows == rows
        expected = case.expected(split)[:rows]
        np.testing.assert_allclose(np.exp(store.log_probs(range(rows), temperature=1.0)), expected, atol=2e-3)
    assert train_student.main([config, "--store=s", "--out=r"]) == 0


def test_the_cache_is_listed_and_cleared(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(os.environ["SOFTLABELS_CACHE"])
    assert cache.main([]) == 0
    assert f"{root}: 0 entries, 0 bytes" in capsys.readouterr().out
    assert teacher_logits.main([case.write(name="mine"), "--store=s"]) == 0
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    capsys.readouterr()
    assert cache.main([]) == 0
    out = capsys.readouterr().out
    assert f"{root}: 2 entries, {size:,} bytes; $SOFTLABELS_CACHE names another folder, --clear deletes them" in out
    assert re.search(r"mine +train +50 ", out)
    assert re.search(r"mine +test +20 ", out)

    [entry, other] = cache_entries(root)
    (root / "notes.txt").write_text("mine")
    (root / ("0" * 32)).mkdir()
    (root / ("0" * 32) / "thesis.tex").write_text("mine")
    with lock(LocalFolder(root), f"{entry.folder.name}.lock", lambda: None):
        assert cache.main(["--clear"]) == 0
    said = capsys.readouterr()
    assert f"{entry.folder.name}: kept: a command is preparing these rows" in said.err
    assert f"1 entry deleted, {other.bytes:,} bytes" in said.out
    assert cache.main(["--clear"]) == 0
    assert "1 entry deleted" in capsys.readouterr().out
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.suffix != ".lock")
    assert left == ["0" * 32, f"{'0' * 32}/thesis.tex", "notes.txt"]
    assert teacher_logits.main([case.write(name="mine"), "--store=s"]) == 0


def test_the_rest_of_a_killed_command_is_cleared_and_no_link_is_followed(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(os.environ["SOFTLABELS_CACHE"])
    victim = work / "victim"
    victim.mkdir()
    (victim / "inputs.npy").write_bytes(b"precious")
    part = root / ("a" * 32 + ".part-" + "b" * 32)
    part.mkdir(parents=True)
    (part / "inputs.npy").write_bytes(b"half")
    (root / ("c" * 32)).symlink_to(victim)
    (root / ("d" * 32)).mkdir()
    (root / ("d" * 32) / "inputs.npy").symlink_to(victim / "inputs.npy")
    assert cache.main([]) == 0
    assert re.search(r"unfinished +4 ", capsys.readouterr().out)
    assert cache.main(["--clear"]) == 0
    assert not part.exists()
    assert (victim / "inputs.npy").read_bytes() == b"precious"
    assert (root / ("d" * 32) / "inputs.npy").is_symlink()
