"""What the golden stores hold, and how they were made. They stay readable for ever; a change of the format makes new ones
beside them. `python -m tests.store.golden_rows --write v1` writes the ones of a version, where they are not there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipeline.store import StoreWriter
from pipeline.store.dense_spec import dense_spec
from pipeline.store.spec import About, MemberSpec, Preprocessing, Spec, TeacherSpec
from tests.store.samples import Sample, fill

GOLDEN = Path(__file__).parent / "golden"
ROWS, MEMBERS, CLASSES = 40, 2, 3


def rows() -> Sample:
    """Forty rows by arithmetic that every machine does alike; rows 7 and 8 are the same input."""
    row = np.arange(ROWS)
    same = np.where(row == 8, 7, row)
    logits = np.empty((ROWS, MEMBERS, CLASSES), np.float32)
    for member in range(MEMBERS):
        for index in range(CLASSES):
            logits[:, member, index] = ((row * 37 + member * 11 + index * 5) % 64 - 32) / 8
    logits[3, 0, 2] = logits[39, 1, 0] = -np.inf
    return Sample(
        keys=((same[:, None] * 7 + np.arange(16) * 13) % 256).astype(np.uint8),
        labels=np.where(row % 5 == 4, -1, row % CLASSES),
        logits=logits,
        inputs=(same[:, None, None] * 6 + np.arange(6).reshape(3, 2)).astype(np.uint8),
    )


def spec(layout: str) -> Spec:
    """The specification of the golden store in one layout."""
    data = rows()
    members = tuple(
        MemberSpec(model=f"golden.Member{m}", weights=f"{m}" * 64, weight=1.0 + 2 * m) for m in range(MEMBERS)
    )
    return dense_spec(
        teacher=TeacherSpec(name="golden", precision="float32", members=members),
        name="forty rows",
        keys=data.keys,
        classes=("yes", "no", "perhaps — ü"),
        split="train",
        revision="r1",
        preprocessing=Preprocessing(function="golden.stack", arguments={"size": [3, 2], "scale": 0.5}, sample="0" * 64),
        layout=layout,
        embed=data.inputs,
        rows_per_shard=32,
        rows_per_chunk=16,
        teacher_batch=8,
    )


def write(path: Path, layout: str) -> None:
    """Write and seal the golden store of one layout."""
    with StoreWriter(path, spec(layout), about=About(teacher_licence="CC0-1.0", transfer_licence="CC0-1.0")) as writer:
        fill(writer, rows())
        writer.seal()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"] or len(sys.argv) != 3:
        sys.exit("golden stores are written once a format version: python -m tests.store.golden_rows --write v1")
    for name in ("zarr", "arrow"):
        target = GOLDEN / f"{sys.argv[2]}-{name}"
        if target.exists():
            sys.exit(f"{target} is there already; delete it only if that version of the format was never released")
        write(target, name)
