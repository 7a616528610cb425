"""What the golden stores hold, and how they were made. They stay readable for ever; a change of the format makes new ones
beside them. `python -m tests.store.golden_rows --write v3` writes the ones of a version, where they are not there.

Version 1 has `v1-zarr` and `v1-arrow`, dense labels of three classes. Version 2 has the same (`v2-zarr`, `v2-arrow`), and top-k
labels: of 40 classes with a low-rank tail (`v2-topk-zarr`), of 70,000 with a uniform one (`v2-pages-arrow`), and of ragged rows
of tokens with a prior (`v2-ragged-arrow`). Version 3 has `v3-zarr` and `v3-arrow`: the dense labels again, with `key_rule` and
`floor`; and what `golden_targets` makes: sigmoid and values, rows of positions, fixed (with salted keys) and ragged (known at
one temperature), and three targets of each (the fixed ones with folds, parents and views; of the ragged ones one is topk).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import About, MemberSpec, Preprocessing, Spec, TeacherSpec
from tests.store import golden_targets
from tests.store.samples import Sample, fill

GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    "v2": ("zarr", "arrow", "topk-zarr", "pages-arrow", "ragged-arrow"),
    "v3": ("zarr", "arrow", *golden_targets.KINDS),
}
ROWS, MEMBERS, POSITIONS = 40, 2, 4
ENCODINGS = {
    "topk": TopkEncoding(k=3, tail="lowrank", nodes=5, rank=4, fine=1, beta_max=2.0),
    "pages": TopkEncoding(k=2, tail="uniform", nodes=3),
    "ragged": TopkEncoding(k=2, tail="prior", nodes=2),
}
CLASSES = {"": 3, "topk": 40, "pages": 70_000, "ragged": 40}


def rows(kind: str = "zarr") -> Sample:
    """Forty rows by arithmetic that every machine does alike; rows 7 and 8 are the same input."""
    what, row = kind.rpartition("-")[0], np.arange(ROWS)
    same = np.where(row == 8, 7, row)
    data = Sample(
        keys=((same[:, None] * 7 + np.arange(16) * 13) % 256).astype(np.uint8),
        labels=np.where(row % 5 == 4, -1, row % 3),
        logits=_logits(row),
        inputs=(same[:, None, None] * 6 + np.arange(6).reshape(3, 2)).astype(np.uint8),
    )
    if not what:
        return data
    if kind in golden_targets.KINDS:
        data = golden_targets.with_dtype(golden_targets.of_targets(data, kind), kind)
        return _with_topk(data) if kind == "several-arrow" else data
    encoding, classes = ENCODINGS[what], CLASSES[what]
    data = replace(data, encoding=encoding, classes=classes, basis=_basis(encoding, classes))
    if what != "ragged":
        return replace(data, soft=_columns(row[:, None] * 5 + np.arange(MEMBERS) * 3, encoding, classes))
    mask, document = _positions(row)
    data = replace(data, labels=np.full(ROWS, -1), mask=mask, document=document, ragged=True)
    at = row[:, None, None] * 31 + np.arange(POSITIONS)[:, None] * 7 + np.arange(MEMBERS) * 3
    return data.with_columns(_columns(at, encoding, classes))


def _with_topk(data: Sample) -> Sample:
    """Several targets, of which `class` has a tail with a prior."""
    encoding, classes = ENCODINGS["ragged"], CLASSES["ragged"]
    at = np.arange(ROWS)[:, None, None] * 31 + np.arange(POSITIONS)[:, None] * 7 + np.arange(MEMBERS) * 3
    own = replace(data.several["class"], encoding=encoding, classes=classes).with_columns(
        _columns(at, encoding, classes)
    )
    return replace(data, several=data.several | {"class": own}, basis=_basis(encoding, classes))


def _logits(row: np.ndarray) -> np.ndarray:
    """(R, M, C)."""
    logits = np.empty((ROWS, MEMBERS, 3), np.float32)
    for member in range(MEMBERS):
        for index in range(3):
            logits[:, member, index] = ((row * 37 + member * 11 + index * 5) % 64 - 32) / 8
    logits[3, 0, 2] = logits[39, 1, 0] = -np.inf
    return logits


def _columns(at: np.ndarray, encoding: TopkEncoding, classes: int) -> dict[str, np.ndarray]:
    """Columns (*, ...) of distributions that are numbered `at` (*): some without a tail, some with an impossible class."""
    slot, wide = np.arange(encoding.k), at[..., None]
    apart = np.where(wide % 2, 3, classes // encoding.k)
    ids = wide * 977 % (classes - (encoding.k - 1) * apart) + slot * apart
    logit = np.where(slot == wide % encoding.k, 0.0, -((wide + slot * 5) % 16) / 8)
    logit[(wide % 11 == 1) & (slot == (wide + 1) % encoding.k)] = -np.inf
    odds = ((wide * 3 + np.arange(2) * 4) % 9 - 4) / 4
    no_tail = wide % 13 == 5
    found = {"top_class": (ids % 65_536).astype(np.uint16)}
    if classes > 65_536:
        found["top_page"] = (ids < 65_536).sum(axis=-1, keepdims=True).astype(np.uint8)
    found["top_logit"] = logit.astype(np.float16)
    found["tail_odds"] = np.where(no_tail, -np.inf, odds).astype(np.float16)
    curve = -((wide * 37 + np.arange(encoding.nodes - 1) * 11) % 500)
    found["tail_curve"] = np.where(no_tail, 0, curve).astype(np.int16)
    if encoding.tail == "lowrank":  # one coefficient of 8 bits, three of 4
        steps = (wide * 5 + np.arange(3) * 4) % 15 - 7
        pairs = [steps[..., 0] % 16 + steps[..., 1] % 16 * 16, steps[..., 2] % 16]
        found["tail_fine"] = ((wide * 7) % 255 - 127).astype(np.int8)
        found["tail_coarse"] = np.stack(pairs, axis=-1).astype(np.uint8)
        found["tail_scale"] = (((wide + np.arange(2)) % 5) / 4).astype(np.float16)
    found["label_logit"] = np.where(at % 5 == 4, np.nan, -(at % 8) / 8).astype(np.float16)
    return found


def _basis(encoding: TopkEncoding, classes: int) -> np.ndarray | None:
    """(1 + r, C)."""
    if encoding.tail == "uniform":
        return None
    return (((np.arange(1 + encoding.rank)[:, None] * 13 + np.arange(classes) * 5) % 32 - 16) / 8).astype(np.float16)


def _positions(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask and documents (R, P) of rows of 1 to 5 tokens, of which the first two are one document, the rest another."""
    token = np.arange(POSITIONS + 1)
    document = np.where(token < 1 + row[:, None] % 5, 1 + (token > 1), 0)
    mask = (document[:, :-1] == document[:, 1:]) & (document[:, :-1] > 0)
    return mask.astype(np.uint8), document[:, :-1].astype(np.uint16)


def spec(name: str) -> Spec:
    """The specification of the golden store of one name."""
    version, _, kind = name.partition("-")
    data, later = rows(kind), version == "v3" and kind in ("zarr", "arrow")
    facts: dict[str, Any] = {
        "classes": data.classes or ("yes", "no", "perhaps — ü"),
        "key_rule": 2 if later else 1,
        **(golden_targets.facts(data, kind) if kind in golden_targets.KINDS else {}),
    }
    members = tuple(
        MemberSpec(model=f"golden.Member{m}", weights=f"{m}" * 64, weight=1.0 + 2 * m) for m in range(MEMBERS)
    )
    made = store_spec(
        data.encoding or DenseEncoding(),
        teacher=TeacherSpec(name="golden", precision="float32", members=members, floor=0.125 if later else UNSET),
        name="forty rows",
        keys=data.keys,
        split="train",
        revision="r1",
        preprocessing=Preprocessing(function="golden.stack", arguments={"size": [3, 2], "scale": 0.5}, sample="0" * 64),
        layout="zarr" if kind.endswith("zarr") else "arrow",
        basis=data.basis,
        positions=data.positions,
        vocabulary=None if data.document is None else "ab" * 32,
        ragged=data.ragged,
        embed=data.inputs,
        rows_per_shard=32,
        rows_per_chunk=16,
        teacher_batch=8,
        **facts,
    )
    return golden_targets.finished(made, kind)


def write(path: Path, name: str) -> None:
    """Write and seal the golden store of one name."""
    data, about = rows(name.partition("-")[2]), About(teacher_licence="CC0-1.0", transfer_licence="CC0-1.0")
    with StoreWriter(path, spec(name), basis=data.basis, about=about) as writer:
        fill(writer, data)
        writer.seal(checked=True)  # of topk rows 7 and 8 contradict each other, as early formats allowed


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"] or len(sys.argv) != 3:
        sys.exit("golden stores are written once a format version: python -m tests.store.golden_rows --write v3")
    for name in [f"{sys.argv[2]}-{kind}" for kind in KINDS[sys.argv[2]]]:
        target = GOLDEN / name
        if target.exists():
            print(f"{target} is there already; delete it only if that version of the format was never released")
        else:
            write(target, name)
