"""A run that was begun when the order of the rows went by the store's chunks (commit e74a267), kept so that today's code can be
held to finish it as that commit does; and which rows its loaders gave.

`work` is a user's folder: a store that holds its inputs, in 21 chunks, more than a window had, and a run that was stopped in
its second epoch. `finished` is what that commit made of it: the weights, their digest, and the orders of `loaders`.

This file wrote all of it. It needs a checkout of that commit, whose tests and packages come first::

    PYTHONPATH=CHECKOUT:CHECKOUT/pipeline:CHECKOUT/stages python tests/stages/golden_order/make.py

Orders are integers, so they are the same on every machine; weights are, to the last bit, in the environment that
`finished/expected.json` records.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import numpy as np
from blake3 import blake3

from softlabels.store import StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.stream import EmbeddedRows, Loader
from softlabels.student.checkpoint import environment
from softlabels.transfer.keys import array_keys
from softlabels_stages import train_student
from tests.stream.samples import rows_of

HERE = Path(__file__).parent
ROWS, INPUTS, CLASSES, MEMBERS = {"train": 336, "test": 48}, 8, 6, 2
STEPS = 14  # of 10 an epoch, before it was stopped
EPOCHS = (0, 3)
COMMAND = [
    "stores/points", "--student.class_path=softlabels.models.MLP",
    f"--student.init_args={{inputs: {INPUTS}, hidden: [6], classes: {CLASSES}, dropout: 0.1}}",
    "--optimizer.class_path=torch.optim.SGD", "--optimizer.init_args={lr: 0.5, momentum: 0.9}",
    "--epochs=3", "--batch_size=32", "--temperature=2", "--alpha=0.5", "--baseline=false", "--keep=last",
    "--threads=1", "--device=cpu",
]  # fmt: skip


def write_stores() -> None:
    """A store a split, in the current folder."""
    rng = np.random.default_rng(14)
    centres = rng.normal(0, 1, (CLASSES, INPUTS))
    for split, rows in ROWS.items():
        labels = rng.integers(0, CLASSES, rows)
        inputs = (centres[labels] + rng.normal(0, 0.7, (rows, INPUTS))).astype(np.float32)
        logits = np.round(rng.normal(0, 1, (rows, MEMBERS, CLASSES)) * 8) / 8
        logits[np.arange(rows), :, labels] += 4
        spec = store_spec(
            teacher="two", members=MEMBERS, name="points", split=split, keys=array_keys(inputs), classes=CLASSES,
            layout="arrow", embed=inputs, rows_per_shard=rows, rows_per_chunk=16,
        )  # fmt: skip
        with StoreWriter(f"stores/points/{split}", spec) as writer:
            writer.write_logits(0, keys=array_keys(inputs), labels=labels, logits=logits, inputs=inputs)
            writer.seal()


def loaders() -> dict[str, Loader]:
    """Loaders whose orders are kept, by name: with a store, and without one."""
    store = open_store("stores/points/train")
    rows = EmbeddedRows(store)
    some = np.flatnonzero(np.arange(store.rows) % 5 > 0)
    common: dict[str, Any] = {"batch_size": 32, "seed": 5}
    return {
        "some rows of a store": Loader(rows, store, selection=some, **common),
        "small windows": Loader(rows, store, selection=some[::-1].copy(), window=2, **common),
        "as they stand": Loader(rows, store, shuffle=False, **common),
        "embedded, hard labels": Loader(rows, None, window=3, **common),
        "no store": Loader(rows_of(np.arange(1500)), None, window=1, **common),
    }


def order_of(loader: Loader) -> dict[str, str]:
    """The digest that a loader has, and that of the rows of some of its epochs."""
    epochs = {
        f"epoch {epoch}": blake3(np.concatenate([batch.rows for batch in loader.epoch(epoch)]).tobytes()).hexdigest()
        for epoch in EPOCHS
    }
    return {"digest": loader.order_digest, **epochs}


def run(*, stop: bool) -> None:
    """The command to its end, or until it is stopped as by a signal."""
    left = iter(range(STEPS))
    train_student.should_stop = (lambda: next(left, None) is None) if stop else lambda: False
    code = train_student.main(COMMAND)
    if code != (75 if stop else 0):
        sys.exit(f"ended with {code}")


def weights() -> dict[str, str]:
    """The digest of every trained student, by its path."""
    found = sorted(Path("runs").glob("*/*/weights.safetensors"))
    return {path.as_posix(): blake3(path.read_bytes()).hexdigest() for path in found}


def main() -> None:
    """Write all of it."""
    socket.gethostname = lambda: "golden"  # TensorBoard puts it into the names of its files
    work, finished = HERE / "work", HERE / "finished"
    if finished.exists():
        sys.exit(f"{finished} is there: it was made by another commit, and is made once")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "SOFTLABELS_CACHE": f"{folder}/cache",
            "HF_HOME": f"{folder}/hf",
            "SOFTLABELS_STATE": f"{folder}/state",
        }
        work.mkdir()
        os.chdir(work)
        write_stores()
        orders = {name: order_of(loader) for name, loader in loaders().items()}
        shutil.copytree(work, f"{folder}/unbroken")
        run(stop=True)
        shutil.copytree(work, f"{folder}/resumed")
        ends = []
        for place in ("unbroken", "resumed"):
            os.chdir(f"{folder}/{place}")
            run(stop=False)
            ends.append(weights())
        if ends[0] != ends[1]:
            sys.exit("it does not resume to the same")
        for path in ends[0]:
            (finished / path).parent.mkdir(parents=True)
            shutil.copy(path, finished / path)
        recorded = {name: value for name, value in environment().items() if name != "softlabels"}
        expected = {"environment": recorded, "weights": ends[0], "orders": orders}
        (finished / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
