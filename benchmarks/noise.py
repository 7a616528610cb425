"""Stores of noise, for benchmarks that read one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.transfer import TransferRows

BATCH = CHUNK = 512
SHARD = 32 * CHUNK


def write(folder: Path, rows: int, classes: int) -> TransferRows:
    """One store in each layout and the same logits as a plain .npy file."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
    labels = rng.integers(0, classes, rows)
    logits = rng.standard_normal((rows, 1, classes), np.float32).astype(np.float16)
    np.save(folder / "logits.npy", logits)
    for layout in ("zarr", "arrow"):
        spec = store_spec(
            teacher=TeacherSpec(name="noise", precision="float16", members=(MemberSpec(model="noise"),)),
            name="noise", keys=keys, classes=classes, layout=layout, rows_per_shard=SHARD, rows_per_chunk=CHUNK,
        )  # fmt: skip
        with StoreWriter(folder / layout, spec) as writer:
            for shard in writer.pending:
                part = slice(*writer.rows_of(shard))
                writer.write_logits(shard, keys=keys[part], labels=labels[part], logits=logits[part])
            writer.seal()
    nothing = np.zeros((rows, 1), np.uint8)
    return TransferRows(
        name="noise", split="train", revision=None, source="", inputs=nothing, keys=keys, labels=labels, class_names=None,
        prepare=ObjectSpec("none"),
    )  # fmt: skip
