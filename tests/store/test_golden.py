"""Stores of version 1 of the format stay readable, and the same plan still gives the same store."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from pipeline.store import open_store
from pipeline.store.convert import convert
from pipeline.store.spec import Commit, Manifest, Plan
from pipeline.store.verify import verify
from tests.store import golden_rows
from tests.store.golden_rows import GOLDEN
from tests.store.samples import assert_holds
from tests.store.test_round_trip import plain

CONTENT_DIGEST = "56ef732499de79ef518e7a75dabed4fc5eca2fd97b7435d9b1a1ffdd7f7e4536"
DIGESTS = {
    "zarr": "d0524619eb7064c435b89b7a64556ed8b28c08943439e5c3f9c7e2069f0f45a5",
    "arrow": "f692d3a1ca225262a532e83de359268004bfcd2c88943326309c134a9a30d961",
}
# The same specification and values as format 2 writes them: the version enters the digest, the content's stays.
WRITTEN = {
    "zarr": "7471bf931fb8f5cb1613abb843d91edd2f81548589441ed00017a5e3f4d611c0",
    "arrow": "30580be1b904567137aa7bf235975547f52cfed1a5e97b3fcafd0c34572a736b",
}
layouts = pytest.mark.parametrize("layout", DIGESTS)


@layouts
def test_a_store_of_version_1_reads_as_ever(layout: str) -> None:
    store = open_store(GOLDEN / f"v1-{layout}")
    assert (store.digest, store.content_digest) == (DIGESTS[layout], CONTENT_DIGEST)
    assert (store.rows, store.members, store.classes, store.chunks, store.layout) == (40, 2, 3, 3, layout)
    assert store.class_names == ("yes", "no", "perhaps — ü")
    assert store.member_weights.tolist() == [0.25, 0.75]
    assert store.spec.preprocessing.arguments == {"size": [3, 2], "scale": 0.5}
    assert_holds(store, golden_rows.rows())
    # The same in numbers that no code made.
    assert store.column("logits")[39].tolist() == [[-1.25, -0.625, 0.0], [-np.inf, -0.625, 0.0]]
    assert store.column("shift")[39].tolist() == [1.625, 3.0]
    assert store.column("label")[:6].tolist() == [0, 1, 2, 0, -1, 2]
    assert store.column("content_key")[1].tolist() == [7 + 13 * i for i in range(16)]
    assert store.find(store.column("content_key")[6:10]).tolist() == [6, 7, 7, 9]
    expected = [0.25 * np.exp(-1.25) / (1 + np.exp(-1.25) + np.exp(-0.625)), 0.0]
    assert np.exp(store.log_probs([39], temperature=1.0))[0, 0] == pytest.approx(expected[0], rel=1e-12)
    assert store.manifest.fidelity["1"].kl_mean == 0
    assert verify(store.path) == []


@layouts
def test_others_read_it_as_ever(tmp_path: Path, layout: str) -> None:
    shutil.copytree(GOLDEN / f"v1-{layout}", tmp_path / "store")
    found = plain(tmp_path / "store", golden_rows.rows())
    for name, values in golden_rows.rows().stored().items():
        assert found[name].tobytes() == values.tobytes()


@layouts
def test_the_same_plan_still_gives_the_same_store(tmp_path: Path, layout: str) -> None:
    """Byte for byte, but for records of the environment; Arrow's own framing is that of the pyarrow that wrote it."""
    golden, path = GOLDEN / f"v1-{layout}", tmp_path / "store"
    golden_rows.write(path, layout)
    store = open_store(path)
    assert store.content_digest == CONTENT_DIGEST
    environment = json.loads((golden / "commits" / "00000.json").read_bytes())["environment"]
    if layout == "arrow" and environment["pyarrow"] != pa.__version__:
        pytest.skip(f"written by pyarrow {environment['pyarrow']}, this is {pa.__version__}")
    assert store.digest == WRITTEN[layout]
    names = {str(file.relative_to(golden)) for file in golden.rglob("*") if file.is_file()}
    assert names == {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    for name in names - {"manifest.json", "README.md"}:
        if not name.startswith("commits/"):
            expected = (golden / name).read_bytes()
            if name in ("plan.json", "zarr.json"):
                expected = expected.replace(b'"format": 1', b'"format": 2')
            for old, new in ((DIGESTS[layout], WRITTEN[layout]), (DIGESTS[layout][:16], WRITTEN[layout][:16])):
                expected = expected.replace(old.encode(), new.encode())
            assert (path / name).read_bytes() == expected, name


@layouts
def test_it_converts_to_the_other_layout(tmp_path: Path, layout: str) -> None:
    other = "arrow" if layout == "zarr" else "zarr"
    manifest = convert(GOLDEN / f"v1-{layout}", tmp_path / "store", layout=other)
    assert manifest.content_digest == CONTENT_DIGEST
    if other == "zarr":
        assert manifest.digest == WRITTEN["zarr"]


@layouts
def test_golden_stores_are_small(layout: str) -> None:
    assert sum(file.stat().st_size for file in (GOLDEN / f"v1-{layout}").rglob("*")) < 100_000


def test_the_specification_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    seen: list[type] = [Plan, Commit, Manifest]
    for kind in seen:
        for field in msgspec.structs.fields(kind):
            assert field.encode_name in words, f"{kind.__name__}.{field.name} is not in docs/format.md"
            seen += [t for t in records_in(field.type) if t not in seen]
    assert len(seen) > 12


def records_in(kind: object) -> list[type]:
    """The record classes that a field's type is made of."""
    inner = [found for part in get_args(kind) for found in records_in(part)]
    return [kind, *inner] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else inner
