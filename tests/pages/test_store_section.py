"""What a report says of a store, and which stores it refuses."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels import open_store, write_store
from softlabels.errors import DamagedShard, UnsealedStore
from softlabels.jobs.report import report
from softlabels.pages.slider import Slider
from softlabels.pages.store_section import store_sections
from softlabels.store.spec import MemberSpec, TeacherSpec

GOLDEN = Path(__file__).parent.parent / "store" / "golden"


def plain(html: str) -> str:
    """The text of markup, on one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def array(packed: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(packed["base64"])
    return np.frombuffer(data, np.dtype(packed["dtype"]).newbyteorder("<")).reshape(packed["shape"])


@pytest.fixture
def digits(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two splits of which three rows are the same."""
    inputs, logits = rng.normal(size=(80, 4)).astype(np.float32), rng.normal(size=(80, 2, 5)) * 3
    members = (MemberSpec(model="nets.Wide", weights="ab" * 16, weight=2.0), MemberSpec(model="nets.Deep"))
    teacher = TeacherSpec(name="wide & deep", precision="float32", members=members)
    labels = np.where(np.arange(80) % 4 == 0, -1, logits.mean(axis=1).argmax(axis=1))
    names = ["<b>", "cat", "dog", "eel", "fox"]
    for split, rows in {"train": slice(0, 60), "test": slice(57, 80)}.items():
        write_store(
            tmp_path / "s" / split,
            logits[rows],
            inputs=inputs[rows],
            labels=labels[rows],
            classes=names,
            teacher=teacher,
        )
    return tmp_path / "s"


def test_what_a_store_is(digits: Path) -> None:
    stores = {split: open_store(digits, split=split) for split in ("train", "test")}
    first, train, _ = store_sections(stores, Slider.of([*stores.values()]))
    said = plain(first.html)
    assert "3 of 23 test rows are train rows too" in said
    said = plain(train.html)
    for words in (
        "wide &amp; deep, float32", "nets.Wide, weight 2, weights abababababababab", stores["train"].digest,
        "5 classes (&lt;b&gt;, cat, dog, eel, fox)", "15 of 60 rows have no hard label", "signed by nobody", "all 60 rows",
    ):  # fmt: skip
        assert words in said, words
    [target] = train.data["targets"]
    labels = stores["train"].column("label")
    share = np.bincount(labels[labels >= 0], minlength=5) / (labels >= 0).sum()
    assert np.allclose(array(target["classes"]["hard"]), share, atol=1e-6)
    sizes = sum(
        chunk.size for shard in range(stores["train"].spec.shards)
        for chunks in stores["train"].payload(shard).chunks.values() for chunk in chunks
    )  # fmt: skip
    table = re.findall(
        r"<td class=\"number\">([\d,]+)</td><td class=\"number\">[\d,.]+</td><td class=\"number\">[\d.]+%", train.html
    )
    assert sum(int(each.replace(",", "")) for each in table) == sizes


SLOW = pytest.param("v2-pages-arrow", marks=pytest.mark.slow)  # 70,000 classes


@pytest.mark.parametrize("name", [*sorted({path.name for path in GOLDEN.glob("v*")} - {"v2-pages-arrow"}), SLOW])
def test_every_kind_of_store_has_a_page(name: str, tmp_path: Path) -> None:
    out = report(GOLDEN / name, out=tmp_path / "page.html")
    source = out.read_text(encoding="utf-8")
    assert len(source) < 1_500_000
    stores = [open_store(GOLDEN / name)]
    slider = Slider.of(stores)
    assert ('id="temperature"' in source) == (slider is not None)
    [section] = store_sections({"train": stores[0]}, slider)
    kinds = [each["kind"] for each in section.data["targets"]]
    assert kinds == [stores[0].only(target).encoding.target for target in stores[0].targets]
    json.dumps(section.data, allow_nan=False)
    for kind, found in zip(kinds, section.data["targets"], strict=True):
        if kind != "values":
            assert (array(found["entropy"]["counts"]).sum(axis=-1) == found["positions"]).all()


def test_values_beside_hard_values(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(90, 3, 2))
    hard = (values.mean(axis=1) + 1).astype(np.float32)
    hard[:9] = np.nan
    store = write_store(tmp_path / "s" / "train", values, labels=hard, kind="values", inputs=rng.normal(size=(90, 3)))
    [section] = store_sections({"train": store}, Slider.of([store]))
    said = plain(section.html)
    error = np.sqrt(np.mean((store.values(range(90))[9:, 0] - hard[9:, 0]) ** 2))
    assert f"{error:.4g}" in said
    assert "9 of 90 have no hard value" in said
    [target] = section.data["targets"]
    assert sum(target["outputs"][0]["hard"]) == pytest.approx(1)


def test_values_that_are_all_the_same_but_for_rounding(tmp_path: Path, rng: np.random.Generator) -> None:
    same = [0.1, 1 / 3, 1e6 + 0.1]
    store = write_store(
        tmp_path / "train",
        np.full((61, 7, 3), same),
        kind="values",
        labels=np.full((61, 3), same),
        keys=rng.integers(0, 256, (61, 16), np.uint8),
    )
    [section] = store_sections({"train": store}, None)
    [target] = section.data["targets"]
    for output in target["outputs"]:
        assert max(output["teacher"]) == max(output["hard"]) == 1.0


def test_an_unfinished_store_is_refused_with_the_remedy(digits: Path, tmp_path: Path) -> None:
    (digits / "test" / "manifest.json").unlink()
    with pytest.raises(UnsealedStore, match=r"test is unfinished: 1 of 1 shards.*softlabels repair"):
        report(digits, out=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_damaged_chunk_is_refused(digits: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(digits / "train", copy)
    [chunk] = [path for path in (copy / "logits").rglob("c*") if path.is_file()][:1]
    data = bytearray(chunk.read_bytes())
    data[10] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(DamagedShard, match="logits"):
        report(copy, out=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_several_stores_that_are_read_as_one(tmp_path: Path, rng: np.random.Generator) -> None:
    inputs = rng.normal(size=(40, 3)).astype(np.float32)
    places = [tmp_path / name / "train" for name in "ab"]
    for place in places:
        write_store(place, rng.normal(size=(40, 4)), inputs=inputs)
    out = report([*map(str, places)], out=tmp_path / "page.html")
    source = out.read_text(encoding="utf-8")
    assert all(open_store(place).digest in source for place in places)
    assert "member 1" in source
