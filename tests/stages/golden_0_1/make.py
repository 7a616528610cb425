"""What version 0.1 (commit 95d0c31) began and how it finished it, kept so that today's code can be held to finish it alike.

`work` is a user's folder as 0.1 left it: two recipes, data, weights of two teachers, a sealed store, two unfinished ones (dense
and topk), an unfinished run of a student and an unfinished training of a teacher. `finished` is what 0.1 made of it: digests,
trained weights, an exported student, and the names that 0.1 had.

This file wrote all but the two recipes. It needs a checkout of that commit, and softlabels 0.1.0 installed::

    PYTHONPATH=CHECKOUT python tests/stages/golden_0_1/make.py

The teachers are exact: inputs and weights are small multiples of powers of two, so float32 holds every sum of products, in any
order. So the digests of dense stores are the same on every machine. Logarithms and exponentials are not exact: the topk store
and trained weights are the same to the last bit in the environment that `finished/expected.json` records.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from blake3 import blake3
from safetensors.torch import save_file

HERE = Path(__file__).parent
TOPK = ["--labels.encoding=topk", "--labels.k=2", "--labels.rank=2", "--labels.nodes=4"]
ROWS = {"train": 48, "test": 16}
# What was begun -> its stage, the arguments, and the steps until it was stopped.
COMMANDS: dict[str, tuple[str, list[str], int]] = {
    "dense": ("teacher_logits", ["--config=points.yaml", "--store=stores/dense"], 5),
    "topk": ("teacher_logits", ["--config=points.yaml", "--store=stores/topk", *TOPK], 3),
    "run": ("train_student", ["--config=points.yaml", "--store=stores/sealed"], 12),
    "teacher": ("train_teacher", ["--config=teacher.yaml"], 12),
}


def write_inputs() -> None:
    """Data and teachers, in the current folder."""
    rng = np.random.default_rng(11)
    for split, rows in ROWS.items():
        images = rng.integers(0, 16, (rows, 4, 4), dtype=np.uint8)
        columns = {"image": images.tolist(), "label": rng.integers(0, 6, rows)}
        kinds = {"image": pa.list_(pa.list_(pa.uint8())), "label": pa.int64()}
        Path("data").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns, schema=pa.schema(kinds)), f"data/{split}.parquet")
    Path("teachers").mkdir()
    for name in ("a", "b"):
        shapes = {"layers.0.weight": (8, 16), "layers.0.bias": (8,), "head.weight": (6, 8), "head.bias": (6,)}
        eighths = {key: torch.tensor(rng.integers(-8, 9, shape) / 8).float() for key, shape in shapes.items()}
        save_file(eighths, f"teachers/{name}.safetensors")


def run(what: str, *, stop: bool) -> None:
    """A command of 0.1 to its end, or until it is stopped as by a signal."""
    stage, words, steps = COMMANDS[what]
    module: Any = importlib.import_module(f"stages.{stage}")
    module.should_stop = stops_after(steps) if stop else lambda: False
    code = module.main(words)
    if code != (75 if stop else 0):
        sys.exit(f"{stage} ended with {code}")


def stops_after(steps: int) -> Callable[[], bool]:
    """What `should_stop` says when the signal comes after so many questions."""
    left = iter(range(steps))
    return lambda: next(left, None) is None


def facts() -> dict[str, Any]:
    """What the current folder holds, all of it finished."""
    from pipeline.store import open_store

    stores = ("sealed", "dense", "topk")
    weights = [*sorted(Path("runs").glob("*/*/weights.safetensors")), Path("teachers/c.safetensors")]
    return {
        "stores": {name: {split: open_store(f"stores/{name}/{split}").digest for split in ROWS} for name in stores},
        "weights": {path.as_posix(): blake3(path.read_bytes()).hexdigest() for path in weights},
    }


def environment() -> dict[str, Any]:
    """What else decides about the last bits, as a checkpoint records it, without the version of softlabels."""
    from pipeline.student.checkpoint import environment as recorded

    return {name: value for name, value in recorded().items() if name != "softlabels"}


def names() -> list[str]:
    """Class paths of every class and function for others in the modules whose objects recipes named."""
    packages = [importlib.import_module(name) for name in ("pipeline.models", "pipeline.transfer")]
    modules = [entry.name for each in packages for entry in pkgutil.iter_modules(each.__path__, f"{each.__name__}.")]
    return sorted(name for module in [*modules, "pipeline.student.augment"] for name in public(module))


def public(module: str) -> Iterator[str]:
    """Class paths of the classes and functions that a module defines for others."""
    for name, value in vars(importlib.import_module(module)).items():
        of_it = getattr(value, "__module__", None) == module and (inspect.isclass(value) or inspect.isfunction(value))
        if of_it and not name.startswith("_"):
            yield f"{module}.{name}"


def main() -> None:
    """Write all of it."""
    from stages import export, teacher_logits

    socket.gethostname = lambda: "golden"  # TensorBoard puts it into the names of its files
    work, finished = HERE / "work", HERE / "finished"
    if finished.exists():
        sys.exit(f"{finished} is there: what 0.1 made is made once")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SOFTLABELS_CACHE": f"{folder}/cache", "HF_HOME": f"{folder}/hf"}
        os.chdir(work)
        write_inputs()
        if teacher_logits.main(["--config=points.yaml", "--store=stores/sealed"]) != 0:
            sys.exit("no store")
        shutil.copytree(work, f"{folder}/unbroken")
        for what in COMMANDS:
            run(what, stop=True)
        shutil.copytree(work, f"{folder}/resumed")
        ends = []
        for place in ("unbroken", "resumed"):
            os.chdir(f"{folder}/{place}")
            for what in COMMANDS:
                run(what, stop=False)
            ends.append(facts())
        if ends[0] != ends[1]:
            sys.exit("0.1 itself does not resume to the same")
        (student,) = Path("runs").glob("*/distilled-seed0")
        if export.main([str(student), "--formats=onnx"]) != 0:
            sys.exit("no export")
        finished.mkdir()
        for path in [*ends[0]["weights"], str(student / "student.onnx")]:
            (finished / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, finished / path)
        expected = {"environment": environment(), **ends[0], "names": names()}
        (finished / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
