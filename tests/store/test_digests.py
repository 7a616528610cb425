"""The two digests: what they depend on, what they do not, and that they follow from docs/format.md alone."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.convert import convert
from softlabels.store.json_files import encode_json
from softlabels.store.spec import About
from tests.store.samples import KINDS, Sample, assert_holds, fill, make_spec, sample, write_store

kinds = pytest.mark.parametrize("kind", KINDS)


def files_of(path: Path) -> dict[str, bytes]:
    """Every file but those that name times, machines and write ids."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and "commits" not in file.parts and file.name != "manifest.json"
    }


@kinds
def test_the_same_plan_gives_the_same_store(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    """In whatever order, by however many writers, with other words about it and on another machine."""
    data = sample(rng, 300)
    spec = make_spec(data, kind)
    store = write_store(tmp_path / "one", data, spec)
    for shard in rng.permutation(spec.shards):
        with StoreWriter(
            tmp_path / "many", spec, about=About(source="elsewhere"), environment={"machine": "x"}
        ) as writer:
            fill(writer, data, [int(shard)])
    with StoreWriter(tmp_path / "many", spec) as writer:
        manifest = writer.seal()
    assert (manifest.digest, manifest.content_digest) == (store.digest, store.content_digest)
    assert manifest.seal != store.manifest.seal
    one, many = files_of(tmp_path / "one"), files_of(tmp_path / "many")
    assert {name for name in one if one[name] != many.get(name)} <= {"plan.json"}
    assert one.keys() == many.keys()


def test_content_is_the_same_in_every_layout_and_cut(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 200)
    stores: list[Store] = []
    for number, (kind, shard, chunk, embed) in enumerate(
        [("zarr", 48, 16, True), ("zstd", 48, 16, True), ("arrow", 48, 16, False), ("zarr", 256, 64, False),
         ("arrow", 16, 16, True), ("zarr", 96, 48, True)]
    ):  # fmt: skip
        spec = make_spec(data, kind, rows_per_shard=shard, rows_per_chunk=chunk, embed=embed)
        stores.append(write_store(tmp_path / str(number), data, spec))
    assert len({store.content_digest for store in stores}) == 1
    assert len({store.digest for store in stores}) == len(stores)


@pytest.mark.parametrize("change", ["label", "logit", "shift", "key", "order", "fewer rows", "inputs"])
def test_content_that_differs(tmp_path: Path, rng: np.random.Generator, change: str) -> None:
    data = sample(rng, 100)
    store = write_store(tmp_path / "one", data, make_spec(data))
    other, row = data[:], int(rng.integers(100))
    if change == "label":
        other.labels[row] = (other.labels[row] + 2) % 8 - 1
    elif change == "logit":
        other.logits[row, 1, 0] += 0.5
    elif change == "shift":
        other.logits[row, 1] += 64
    elif change == "key":
        other.keys[row, 5] ^= 1
    elif change == "order":
        other = data[np.r_[0:row, row + 1 : 100, row]] if row < 99 else data[::-1]
    elif change == "fewer rows":
        other = data[:99]
    elif change == "inputs":
        other.inputs[row, 0, 0] ^= 1
    again = write_store(tmp_path / "two", other, make_spec(other))
    assert again.digest != store.digest
    assert (again.content_digest != store.content_digest) == (change != "inputs")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *((kind, target) for kind in KINDS for target in KINDS),
        ("several-zarr", "arrow"), ("several-arrow", "zstd"), ("ragseveral-arrow", "arrow"),
    ],
)  # fmt: skip
def test_convert_keeps_the_content(tmp_path: Path, rng: np.random.Generator, kind: str, target: str) -> None:
    data = sample(rng, 110, kind)
    store = write_store(tmp_path / "from", data, make_spec(data, kind))
    layout, compression = ("zarr", "zstd") if target == "zstd" else (target, "none")
    manifest = convert(store.path, tmp_path / "to", layout=layout, compression=compression)
    assert manifest.content_digest == store.content_digest
    assert manifest.lost == store.manifest.lost
    assert_holds(open_store(tmp_path / "to"), data)
    assert manifest.digest == write_store(tmp_path / "direct", data, make_spec(data, target)).digest


def canonical(value: object) -> bytes:
    """Canonical JSON as docs/format.md says, written without the library's encoder."""
    if isinstance(value, dict):
        return b"{" + b",".join(canonical(key) + b":" + canonical(value[key]) for key in sorted(value)) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, float):
        return number(value).encode()
    return json.dumps(value, ensure_ascii=False).encode()


def number(value: float) -> str:
    """A float64: the fewest digits that read back as it, plain from 1e-5 up to 1e16, else with a bare exponent."""
    if value == 0 or 1e-5 <= abs(value) < 1e16:
        text = format(Decimal(repr(value)), "f")
        return text if "." in text else f"{text}.0"
    digits, _, exponent = repr(value).partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def test_canonical_json_is_what_the_format_says(rng: np.random.Generator) -> None:
    numbers = [0.0, -0.0, 1.0, 1e-5, 9.999e-6, 1e16, 1e15, 5e-324, 1.7976931348623157e308, 0.1, -2.5e-7]
    numbers += (rng.normal(size=2000) * 10.0 ** rng.integers(-30, 30, 2000)).tolist()
    texts = ["", "ü€😀", 'a"b\\c/d', "\x00\x1f\x7f\n\t\b\f\r\u2028"]
    value = {"z": numbers, "a": {"é": None, "e": True, "Z": [-1, 2**62]}, "t": texts}
    assert encode_json(value) == canonical(value)


def hex_of(data: bytes) -> str:
    return str(blake3(data).hexdigest())


@kinds
def test_digests_from_the_specification_alone(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    """Nothing of the library is used below but the store that it wrote."""
    data: Sample = sample(rng, 110)
    path = write_store(tmp_path / "store", data, make_spec(data, kind, names=True)).path
    plan, manifest = (json.loads((path / name).read_bytes()) for name in ("plan.json", "manifest.json"))
    raw = [(path / "commits" / f"{shard:05}.json").read_bytes() for shard in range(3)]
    payloads = [json.loads(record)["payload"] for record in raw]

    root = blake3(canonical({"format": 2, "spec": plan["spec"]}))
    for payload in payloads:
        root.update(blake3(canonical(payload)).digest())
    assert root.hexdigest() == manifest["digest"]
    assert manifest["payloads"] == [hex_of(canonical(payload)) for payload in payloads]
    assert manifest["commits"] == [hex_of(record) for record in raw]
    assert manifest["seal"] == hex_of(canonical({**manifest, "seal": ""}))

    stored = data.stored()
    names = ("content_key", "label", "logits", "shift")
    content = blake3(
        canonical({"columns": [[n, str(stored[n].dtype), list(stored[n].shape[1:])] for n in names], "rows": 110})
    )
    for payload in payloads:
        first = payload["shard"] * 48
        for number, block in enumerate(payload["blocks"]):
            rows = slice(first + number * 16, min(first + number * 16 + 16, first + payload["rows"]))
            assert block == hex_of(b"".join(stored[n][rows].tobytes() for n in names))
            content.update(bytes.fromhex(block))
        for name, file in payload["files"].items():
            data_ = (path / name).read_bytes()
            assert (file["size"], file["blake3"]) == (len(data_), hex_of(data_))
        for column, chunks in payload["chunks"].items():
            name = f"data-{payload['shard']:05}.arrow" if kind == "arrow" else next(
                n for n in payload["files"] if n.startswith(f"{column}/")
            )  # fmt: skip
            for offset, size, digest in chunks:
                assert digest == hex_of((path / name).read_bytes()[offset : offset + size])
        assert payload["content_keys"] == hex_of(stored["content_key"][first : first + payload["rows"]].tobytes())
    assert content.hexdigest() == manifest["content_digest"]
    assert plan["spec"]["transfer_set"]["content_keys"] == hex_of(data.keys.tobytes())
