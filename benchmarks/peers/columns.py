"""The rows that every peer writes and reads: columns, each a plain .npy file of noise in one folder.

Kinds: `dense` is a distribution of 1,000 classes in float16; `topk` the 31 largest of 50,257, their ids and logits, as our
top-k labels without a tail keep them; `inputs` is `dense` with an image of 3 x 32 x 32 bytes a row. All have a hard label, and
`row`, the row's number, by which a reader is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]

KINDS = ("dense", "topk", "inputs")
CLASSES, VOCABULARY, KEPT = 1000, 50_257, 31
AT_ONCE = 4096  # rows


def make(folder: Path, kind: str, rows: int) -> None:
    """Write the columns of `rows` rows of a kind."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(folder / "row.npy", np.arange(rows))
    np.save(folder / "label.npy", rng.integers(0, CLASSES, rows))
    for name, (shape, dtype) in shapes(kind).items():
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(dtype), (rows, *shape))
        for start in range(0, rows, AT_ONCE):
            part = out[start : start + AT_ONCE]
            part[:] = noise(name, part.shape, rng)


def shapes(kind: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape of a row and dtype of each column but `row` and `label`."""
    if kind == "topk":
        return {"top_class": ((1, KEPT), "uint16"), "top_logit": ((1, KEPT), "float16")}
    found: dict[str, tuple[tuple[int, ...], str]] = {"logits": ((1, CLASSES), "float16")}
    return found | ({"input": ((3, 32, 32), "uint8")} if kind == "inputs" else {})


def noise(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """Of a column; class ids ascend, as those of a store do."""
    if name == "input":
        return rng.integers(0, 256, shape, np.uint8)
    if name == "top_class":
        ids: NDArray[np.int64] = np.add.accumulate(rng.integers(1, VOCABULARY // KEPT, shape), axis=-1)
        return ids
    logits: NDArray[np.float32] = rng.standard_normal(shape, np.float32)
    logits -= logits.max(axis=-1, keepdims=True)  # the largest is 0, as in a store
    return logits


def read(folder: Path) -> Columns:
    """The columns, mapped."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def blocks(columns: Columns, rows: int = 512) -> list[slice]:
    """Slices of that many rows: what a teacher gives at a time."""
    count = len(columns["row"])
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
