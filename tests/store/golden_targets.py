"""What the golden stores of sigmoid, values, positions and several targets hold, by arithmetic that every machine does alike;
see `golden_rows`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from softlabels.labels.encoding import DenseEncoding, SigmoidEncoding, ValuesEncoding
from softlabels.store.spec import Parent, Spec
from tests.store.samples import Sample

POSITIONS = 4
KINDS = (
    "sigmoid-zarr", "sigmoid-arrow", "values-zarr", "values-arrow", "anchors-zarr", "frames-arrow", "several-zarr",
    "several-arrow",
)  # fmt: skip
DTYPES = {"sigmoid-zarr": "float16", "sigmoid-arrow": "float32", "values-zarr": "float16", "values-arrow": "float32"}
NAMES = {"class": ("cell", "none", "other"), "tag": ("round", "dark", "large"), "box": ("x", "y", "width", "height")}
FIRST, SECOND = "1" * 64, "2" * 64


def of_targets(data: Sample, kind: str) -> Sample:
    """Forty rows with targets of format 3; `data` are their keys, inputs and flat logits."""
    what, row = kind.rpartition("-")[0], np.arange(len(data))
    if what in ("sigmoid", "values"):
        return replace(_other(data, what, row), labelled=True)
    at = row[:, None] * POSITIONS + np.arange(POSITIONS)
    mask = ((row[:, None] * 3 + np.arange(POSITIONS) * 5) % 4 > 1).astype(np.uint8)
    mask[row, row % POSITIONS] = 1
    labels = np.where(mask == 1, (at % 4) - 1, -1)
    ragged = kind in ("frames-arrow", "several-arrow")
    data = replace(data, mask=mask, labels=labels, ragged=ragged, logits=_numbers(at, 3, 37), classes=3)
    data.logits[3, 0, 0, 2] = data.logits[39, 3, 1, 0] = -np.inf
    if what in ("anchors", "frames"):
        return replace(data, encoding=DenseEncoding(known_at=2.0)) if what == "frames" else data
    tag, box = _other(data, "sigmoid", at), replace(_other(data, "values", at), labelled=not ragged)
    fold = (row * 3 % 5).astype(np.uint16)
    return replace(data, several={"class": data, "tag": tag, "box": box}, fold=None if ragged else fold)


def _numbers(at: np.ndarray, width: int, step: int) -> np.ndarray:
    """(..., M, width) float32, eighths from -4 to 4."""
    wide = at[..., None, None] * step + np.arange(2)[:, None] * 11 + np.arange(width) * 5
    return ((wide % 64 - 32) / 8).astype(np.float32)


def _other(data: Sample, what: str, at: np.ndarray) -> Sample:
    off = np.zeros(at.shape, np.bool_) if data.mask is None else data.mask == 0
    if what == "values":
        labels = np.where((off | (at % 5 == 4))[..., None], np.nan, at[..., None] + np.arange(4) / 4)
        return replace(
            data, logits=_numbers(at, 4, 29), labels=labels.astype(np.float32), encoding=ValuesEncoding(), classes=4
        )
    logits = _numbers(at, 3, 23)
    logits[..., 0, 1][at % 7 == 0], logits[..., 1, 2][at % 7 == 1] = np.inf, -np.inf
    labels = np.where(off[..., None], -1, (at[..., None] + np.arange(3)) % 3 - 1).astype(np.int8)
    return replace(data, logits=logits, labels=labels, encoding=SigmoidEncoding(), classes=3)


def with_dtype(data: Sample, kind: str) -> Sample:
    """The rows, kept in the dtype of their golden store."""
    if kind not in DTYPES:
        return data
    assert data.encoding is not None
    return replace(data, encoding=msgspec.structs.replace(data.encoding, dtype=DTYPES[kind]))  # type: ignore[call-arg]


def facts(data: Sample, kind: str) -> dict[str, Any]:
    """What `store_spec` is told of them besides."""
    several = {
        name: (each.encoding or DenseEncoding(), NAMES[name] if each.classes < 40 else each.classes)
        for name, each in data.several.items()
    }
    found: dict[str, Any] = {"labelled": [name for name, each in data.parts.items() if each.labelled]}
    found |= {"targets": several} if several else {"classes": data.classes}
    if kind == "several-zarr":
        parents = [Parent(digest=FIRST, how="merged"), Parent(digest=SECOND, how="re-encoded")]
        found |= {"folds": 5, "parents": parents}
    return found | ({"key_rule": 3} if kind == "anchors-zarr" else {})


def finished(spec: Spec, kind: str) -> Spec:
    """With the field that no writer gives."""
    return msgspec.structs.replace(spec, views=1) if kind == "several-zarr" else spec
