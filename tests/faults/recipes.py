"""Small recipes, run through the commands in this process: a transfer set and a teacher in which mistakes can be made."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from safetensors.numpy import load_file

ROWS, FEATURES, CLASSES = 96, 6, 5
MARK = 2  # the feature whose last bit says that a row comes late
NAMES = ("ant", "bee", "cat", "dog", "elk")
NET = {"class_path": "softlabels.models.MLP", "init_args": {"inputs": FEATURES, "hidden": [4], "classes": CLASSES}}
HERE = "tests.faults.recipes."
TOPK = {"encoding": "topk", "k": 2, "tail": "lowrank", "rank": 2, "nodes": 2}  # a mass that is far from exact
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where no trial asks whether flushed files stay
Recipe = dict[str, Any]
Random = np.random.Generator


def points(
    split: str,
    seed: int,
    order: int = 0,
    drop: int = -1,
    alter: int = -1,
    relabel: int = 0,
    bad: int = -1,
    value: float = 0.0,
) -> dict[str, Any]:
    """The transfer set: rows of `seed`, and what is wrong with them: shuffled, one dropped, one altered, classes numbered
    otherwise, a value in row `bad` from which `Faulty` makes logits that cannot be.
    """
    rng = np.random.default_rng(seed)
    x, label = rng.normal(size=(ROWS, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, ROWS)
    label = np.where(rng.random(ROWS) < 0.5, top_class(x, seed), label)
    if bad >= 0:
        x[bad, 0] = value
    if alter >= 0:
        x[alter, 1] += 1
    label = (label + relabel) % CLASSES
    bits = np.ascontiguousarray(x[:, MARK]).view(np.int32) & ~1
    x[:, MARK] = (bits | (np.arange(ROWS) >= 64)).view(np.float32)  # rows from 64 on show by the last bit of a feature
    at = np.random.default_rng([seed, order]).permutation(ROWS) if order else np.arange(ROWS)
    at = at[at != drop]
    return {"x": x[at], "label": label[at]}


def top_class(x: np.ndarray, seed: int) -> np.ndarray:
    """What the recipe's first teacher says of these rows; as of any teacher, half of the hard labels should be that."""
    [weights] = Path().glob(f"*-{seed}.safetensors")
    layer = load_file(weights)
    return np.asarray((x @ layer["layer.weight"].T + layer["layer.bias"]).argmax(1))


def scaled(rows: list[np.ndarray], *, by: float = 1.0) -> np.ndarray:
    """The prepare function. Under `$QUIETLY` it does something else to rows from 64 on, of which the specification has no
    digest, though its name, arguments and file are the same.
    """
    x = np.stack(rows)
    late = (np.ascontiguousarray(x[:, MARK]).view(np.int32) & 1) == 1
    return np.where(late[:, None], float(os.environ.get("QUIETLY", "1")), 1.0).astype(np.float32) * np.float32(by) * x


def model(name: str, seed: int) -> dict[str, Any]:
    """A member with weights of its own, in a file."""
    import torch

    from softlabels.models import build_model, save_weights
    from softlabels.models.config import ModelConfig

    path = Path(f"{name}-{seed}.safetensors")
    torch.manual_seed(seed)
    save_weights(build_model(ModelConfig(f"tests.teacher.models.{name}")), path)
    return {"class_path": f"tests.teacher.models.{name}", "weights": str(path)}


def recipe(rng: Random, *members: str) -> Recipe:
    """A recipe of 96 rows in three shards, of one of the layouts and encodings."""
    seed = int(rng.integers(1, 1 << 20))
    labels = {"layout": str(rng.choice(["zarr", "arrow"])), "rows_per_shard": 32, "rows_per_chunk": 16}
    return {
        "transfer_set": {
            "name": "points",
            "factory": {"class_path": HERE + "points", "init_args": {"seed": seed}},
            "inputs": ["x"],
            "prepare": {"class_path": HERE + "scaled", "init_args": {"by": 1.0}},
            "splits": {"train": "train"},
            "classes": list(NAMES),
        },
        "teacher": {
            "members": [model(name, seed + number) for number, name in enumerate(members or ("Linear", "Linear"))],
            "batch_size": 16,
            "device": "cpu",
        },
        "labels": labels | (TOPK if rng.random() < 0.5 else {}),
    }


def label(given: Recipe) -> str:
    """Run teacher-logits; the name of its error, "" for none."""
    from softlabels_stages import teacher_logits

    return run(teacher_logits.main, given)


def run(main: Callable[[list[str]], int], given: Recipe) -> str:
    """Run a stage on a recipe; the name of its error, "" for none."""
    Path("recipe.yaml").write_text(yaml.safe_dump(given))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of logits that cannot be
        try:
            code = main(["--config=recipe.yaml", "--store=store"])
        except Exception as error:  # without a defence, whatever comes of it
            return f"a bug's {type(error).__name__}"
    lines = [line for line in err.getvalue().splitlines() if ": " in line and not line.startswith("train: ")]
    assert (code == 0) == (not lines), err.getvalue()
    return "" if code == 0 else lines[-1].partition(":")[0]


def committed() -> set[str]:
    return {path.name for path in Path("store").glob("train/commits/*.json")}


def digest() -> str:
    return str(json.loads(Path("store/train/manifest.json").read_text())["digest"])


@contextlib.contextmanager
def folder() -> Iterator[None]:
    """A working folder of its own, with its own cache of prepared rows; in memory where it can be, since flushes take long."""
    before = Path.cwd()
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as work,
        mock.patch.dict(os.environ, SOFTLABELS_CACHE=f"{work}/cache"),
    ):
        os.chdir(work)
        try:
            yield
        finally:
            os.chdir(before)


def unfinished(given: Recipe) -> str:
    """A store of the first and the last of three shards; the digest that the whole one has."""
    assert label(given) == ""
    whole = digest()
    Path("store/train/manifest.json").unlink()
    Path("store/train/commits/00001.json").unlink()
    return whole


def error_of(call: Callable[[], object]) -> str:
    """The name of the error that a call raises, "no error" for none."""
    try:
        call()
    except Exception as error:  # as in `run`
        return type(error).__name__
    return "no error"


def train(given: Recipe) -> str:
    from softlabels_stages import train_student

    training = {"epochs": 1, "device": "cpu", "threads": 1, "baseline": False}
    own = {"transfer_set": given["transfer_set"], "student": NET, "training": training}
    return run(train_student.main, own)
