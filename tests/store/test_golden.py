"""Stores of every version of the format stay readable, and the same plan still gives the same store."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from msgspec import UNSET

from softlabels.errors import ConfigError, DamagedManifest, UserError
from softlabels.labels.encoding import DenseEncoding
from softlabels.store import StoreWriter, open_store
from softlabels.store.convert import convert
from softlabels.store.digest import manifest_seal
from softlabels.store.json_files import pretty_json, read_json
from softlabels.store.new_spec import store_spec
from softlabels.store.records import Commit, Manifest
from softlabels.store.spec import MemberSpec, Plan, TeacherSpec, plan_of
from softlabels.store.verify import verify
from softlabels.system.places import folder_of
from tests.store import golden_rows
from tests.store.golden_rows import GOLDEN
from tests.store.places import AnyPath, copy, in_memory
from tests.store.plain_reader import facts
from tests.store.samples import assert_holds, fill
from tests.store.test_round_trip import plain, seen

DENSE = "56ef732499de79ef518e7a75dabed4fc5eca2fd97b7435d9b1a1ffdd7f7e4536"  # what dense labels say, in every version
DIGESTS = {
    "v1-zarr": "d0524619eb7064c435b89b7a64556ed8b28c08943439e5c3f9c7e2069f0f45a5",
    "v1-arrow": "f692d3a1ca225262a532e83de359268004bfcd2c88943326309c134a9a30d961",
    "v2-zarr": "7471bf931fb8f5cb1613abb843d91edd2f81548589441ed00017a5e3f4d611c0",
    "v2-arrow": "30580be1b904567137aa7bf235975547f52cfed1a5e97b3fcafd0c34572a736b",
    "v2-topk-zarr": "562a6e293cdb537f5c42d7eac43ed980392fcb4751517c29aec27768e41a563d",
    "v2-pages-arrow": "9ec0ad75afc05fdfd80c1886faf01e008ca61edb73caa614dfcffa3f77d0d3ed",
    "v2-ragged-arrow": "c6db0db0c78457ebed12ccd805cd2a92674e4ef8274706870289eed7ceee7513",
    "v3-zarr": "4ba8350aa1210c8ee15f6a29002f11ced10a0e38600e5531e3a8377f3d066982",
    "v3-arrow": "119f888385a7856409d322cdb10425dc99cc228c1793f8e4cab65aca7d9087bd",
    "v3-sigmoid-zarr": "20ca789e9fac7613e1844a0d10a5e2a571fa07a2aba479b06fb93ffcbcda53ef",
    "v3-sigmoid-arrow": "3497c31b11d3d08087a62863d9a3673ca8a5c33adbf13c852839e26479eb0d91",
    "v3-values-zarr": "68154de290367d3aa64931d9b5d88cd818c041260810b55a305f0377d26aa5f9",
    "v3-values-arrow": "c3065b1777015d7910330bf916fad61189730e188fdb34aae3fd82eb9d161b35",
    "v3-anchors-zarr": "4b9dce01892efeab9e73dc625c77057206288e0d74a48152a8ff6452e7f999f4",
    "v3-frames-arrow": "3f6e9cbdcd28eea135ed7d0f2540145fa112f4b7c1a53ef4106d31ee09b1fb38",
    "v3-several-zarr": "140227d467b074d7cf347762fc8d679014553119937558e22f8f3d8e0c6fb23b",
    "v3-several-arrow": "16566fa63e46b5e8836aa448c3d44fb1f5957b64a6f680a06d8fb56f960075f8",
}
stores = pytest.mark.parametrize("name", DIGESTS)
dense = pytest.mark.parametrize("name", [name for name in DIGESTS if name.count("-") == 1])
sparse = pytest.mark.parametrize("name", [name for name in DIGESTS if name.startswith("v2-") and name.count("-") == 2])
written = pytest.mark.parametrize("name", [name for name in DIGESTS if not name.startswith("v1")])


def kind_of(name: str) -> str:
    """v2-topk-zarr is topk-zarr."""
    return name.partition("-")[2]


@pytest.fixture
def golden(tmp_path: AnyPath, name: str) -> AnyPath:
    """The store of that name where it lies, or in memory."""
    return copy(GOLDEN / name, tmp_path / name) if in_memory(tmp_path) else GOLDEN / name


@stores
def test_every_store_reads_as_ever(golden: AnyPath, name: str) -> None:
    store = open_store(golden)
    assert (store.digest, store.manifest.format) == (DIGESTS[name], int(name[1]))
    one = store.only(store.targets[0])
    assert (store.rows, one.members, store.chunks, store.layout) == (40, 2, 3, name.rpartition("-")[2])
    assert one.member_weights.tolist() == [0.25, 0.75]
    assert store.spec.preprocessing.arguments == {"size": [3, 2], "scale": 0.5}
    assert_holds(store, golden_rows.rows(kind_of(name)))
    assert store.column("content_key")[1].tolist() == [7 + 13 * i for i in range(16)]
    assert store.find(store.column("content_key")[6:10]).tolist() == [6, 7, 7, 9]
    assert verify(store.path) == []


@dense
def test_dense_labels_read_as_ever(golden: AnyPath) -> None:
    """In numbers that no code made."""
    store = open_store(golden)
    assert (store.content_digest, store.class_names) == (DENSE, ("yes", "no", "perhaps — ü"))
    assert store.column("logits")[39].tolist() == [[-1.25, -0.625, 0.0], [-np.inf, -0.625, 0.0]]
    assert store.column("shift")[39].tolist() == [1.625, 3.0]
    assert store.column("label")[:6].tolist() == [0, 1, 2, 0, -1, 2]
    expected = [0.25 * np.exp(-1.25) / (1 + np.exp(-1.25) + np.exp(-0.625)), 0.0]
    assert np.exp(store.log_probs([39], temperature=1.0))[0, 0] == pytest.approx(expected[0], rel=1e-12)
    assert store.manifest.fidelity["1"].kl_mean == 0


# Sparse labels, decoded here from what plain readers see, with nothing of the library and as docs/format.md says.

SETTINGS: dict[str, dict[str, Any]] = {
    "topk": {"classes": 40, "beta_max": 2.0, "bytes": 2 * (6 + 6 + 4 + 8 + 1 + 2 + 4 + 2)},
    "pages": {"classes": 70_000, "beta_max": 1.0, "bytes": 2 * (4 + 1 + 4 + 4 + 4 + 2)},
    "ragged": {"classes": 40, "beta_max": 1.0, "bytes": 1 + 2 + 2 * (4 + 4 + 4 + 2 + 2)},
}


def log_sum_exp(values: np.ndarray) -> float:
    return math.log(math.fsum(math.exp(value) for value in values))


def tail_log_mass(one: dict[str, np.ndarray], logits: np.ndarray, beta: float, beta_max: float) -> float:
    """g, by Lagrange's polynomials."""
    first, last = float(one["tail_odds"][0]) + math.log(len(logits)), float(one["tail_odds"][1])
    last += log_sum_exp(beta_max * logits)
    curve = [0.0, *(int(step) / 2048 for step in one["tail_curve"])]
    at = [beta_max * math.sin(math.pi * j / (2 * (len(curve) - 1))) ** 2 for j in range(len(curve))]
    total = 0.0
    for j, here in enumerate(at):
        value = first + (last - first) * here / beta_max + curve[j]
        total += value * math.prod((beta - other) / (here - other) for i, other in enumerate(at) if i != j)
    return total


def probabilities(
    one: dict[str, np.ndarray], basis: np.ndarray | None, temperature: float, settings: Any
) -> np.ndarray:
    """p (C,) of one member's distribution."""
    beta, p = 1 / temperature, np.zeros(settings["classes"])
    ids = one["top_class"].astype(int)
    for page in one.get("top_page", ()):
        ids = ids + 65_536 * (np.arange(len(ids)) >= page)
    stored = one["top_logit"].astype(float)
    logits = stored[np.isfinite(stored)]
    h, tail = log_sum_exp(beta * logits), np.setdiff1d(np.arange(len(p)), ids)
    g = -math.inf if np.isneginf(one["tail_odds"][0]) else tail_log_mass(one, logits, beta, settings["beta_max"])
    total = h + math.log1p(math.exp(g - h))
    p[ids] = np.exp(beta * stored - total)
    x = np.zeros(len(p)) if basis is None else basis[0].astype(float)
    if "tail_fine" in one:
        low, high = one["tail_coarse"] & 15, one["tail_coarse"] >> 4
        steps = [step - 16 if step > 7 else step for step in (int(low[0]), int(high[0]), int(low[1]))]
        scale = one["tail_scale"].astype(float)
        terms = [one["tail_fine"][0] / 127 * scale[0], *(step / 7 * scale[1] for step in steps)]
        x = x + sum(term * vector.astype(float) for term, vector in zip(terms, basis[1:], strict=True))  # type: ignore[index]
    p[tail] = np.exp(g - total + beta * x[tail] - log_sum_exp(beta * x[tail]))
    return p


@sparse
@pytest.mark.parametrize("temperature", [1.0, 1.7, 8.0])
def test_sparse_labels_read_as_ever(name: str, temperature: float) -> None:
    what = name.split("-")[1]
    store, data, settings = open_store(GOLDEN / name), golden_rows.rows(kind_of(name)), SETTINGS[what]
    assert (store.classes, store.manifest.bytes_per_position) == (settings["classes"], settings["bytes"])
    columns = {column: values for column, values in plain(store.path, data).items() if column in store.soft_columns}
    found = np.exp(store.log_probs(range(store.rows), temperature=temperature))
    if data.document is not None:
        found = found[data.document > 0]
    assert len(found) == len(columns["top_logit"]) == (112 if what == "ragged" else 40)
    bare = 0
    for n, p in enumerate(found):
        members = [{column: values[n, m] for column, values in columns.items()} for m in range(2)]
        each = [probabilities(member, data.basis, temperature, settings) for member in members]
        np.testing.assert_allclose(p, 0.25 * each[0] + 0.75 * each[1], rtol=1e-9, atol=1e-15)
        bare += sum(bool(np.isneginf(member["tail_odds"]).all()) for member in members)
    assert bare > 0


def test_topk_labels_read_as_ever() -> None:
    """Row 2's second member at T = 1/2, at the end of what the tail knows, in numbers that no code made."""
    store = open_store(GOLDEN / "v2-topk-zarr")
    expected = {
        "top_class": [19, 22, 25], "top_logit": [-1.625, 0.0, -0.875],
        "tail_odds": [-0.25, 0.75], "tail_curve": [-481, -492, -3, -14],
        "tail_fine": [-36], "tail_coarse": [0x2E, 0x06], "tail_scale": [0.75, 1.0], "label_logit": -0.625,
    }  # fmt: skip
    assert {name: store.column(name)[2, 1].tolist() for name in store.soft_columns} == expected
    p = np.exp(store.log_probs([2], temperature=0.5, weights=[0, 1])[0])
    odds = math.exp(0.75 - 14 / 2048)
    mass = odds / (1 + odds)
    rest = math.exp(-3.25) + 1 + math.exp(-1.75)
    assert p[[19, 22, 25]] == pytest.approx(np.array([math.exp(-3.25), 1, math.exp(-1.75)]) / rest * (1 - mass))
    assert p.sum() - p[[19, 22, 25]].sum() == pytest.approx(mass)
    # Classes 0 and 1 of the tail: prior, then the coefficients -36 of 127 times 0.75, -2, 2 and 6 of 7.
    x0 = -2.0 + -36 * 0.75 / 127 * -0.375 + -2 / 7 * 1.25 + 2 / 7 * -1.125 + 6 / 7 * 0.5
    x1 = -1.375 + -36 * 0.75 / 127 * 0.25 + -2 / 7 * 1.875 + 2 / 7 * -0.5 + 6 / 7 * 1.125
    assert p[1] / p[0] == pytest.approx(math.exp(2 * (x1 - x0)))


def test_class_ids_of_two_pages_read_as_ever() -> None:
    store = open_store(GOLDEN / "v2-pages-arrow")
    assert store.column("top_class")[28].tolist() == [[31_780, 1244], [4178, 4181]]
    assert store.column("top_page")[28].tolist() == [[1], [0]]
    p = np.exp(store.log_probs([28], temperature=2.0, weights=[0, 1])[0])
    assert sorted(np.argsort(p)[-2:]) == [65_536 + 4178, 65_536 + 4181]
    p = np.exp(store.log_probs([28], temperature=2.0, weights=[1, 0])[0])
    assert sorted(np.argsort(p)[-2:]) == [31_780, 65_536 + 1244]


def test_ragged_rows_read_as_ever() -> None:
    store = open_store(GOLDEN / "v2-ragged-arrow")
    assert (store.positions, store.spec.ragged) == (4, True)
    assert store.column("positions")[:6].tolist() == [1, 2, 3, 4, 4, 1]
    assert store.column("document")[3:6].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [1, 0, 0, 0]]
    assert store.column("position_mask")[3:6].tolist() == [[1, 0, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]]


def test_targets_read_as_ever() -> None:
    """Row 39, position 2, of three targets, in numbers that no code made."""
    store = open_store(GOLDEN / "v3-several-zarr")
    assert (store.targets, store.positions, store.spec.ragged) == (("class", "tag", "box"), 4, False)
    assert (store.spec.folds, store.spec.views, store.spec.transfer_set.rows) == (5, 1, 40)
    assert [(parent.digest[:1], parent.how) for parent in store.spec.parents] == [("1", "merged"), ("2", "re-encoded")]  # type: ignore[union-attr]
    assert (store.column("fold")[39], store.column("position_mask")[39].tolist()) == (2, [0, 1, 1, 1])
    expected: dict[str, Any] = {
        "class.label": 1, "class.logits": [[-1.25, -0.625, 0.0]] * 2, "class.shift": [0.0, 1.375],
        "tag.label": [1, -1, 0], "tag.logits": [[2.25, 2.875, 3.5], [3.625, -3.75, -3.125]],
        "box.label": [158.0, 158.25, 158.5, 158.75], "box.values": [[0.75, 1.375, 2.0, 2.625], [2.125, 2.75, 3.375, -4.0]],
    }  # fmt: skip
    assert {name: store.column(name)[39, 2].tolist() for name in expected} == expected
    p = store.only("tag").probabilities([39], temperature=2.0)[0, 2, 0]
    assert p == pytest.approx(0.25 / (1 + math.exp(-1.125)) + 0.75 / (1 + math.exp(-1.8125)), rel=1e-12)
    assert store.only("box").values([39])[0, 2].tolist() == [1.78125, 2.40625, 3.03125, -2.34375]
    assert store.only("class").class_names == ("cell", "none", "other")
    errors = store.manifest.lost["box"].errors
    assert errors is not None
    assert (errors.rmse, store.manifest.lost["tag"].fidelity["4"].top1_agreement) == (0.0, 1.0)


def test_labels_that_are_known_at_one_temperature_read_as_ever() -> None:
    store = open_store(GOLDEN / "v3-frames-arrow")
    assert (store.positions, store.spec.ragged, store.column("positions")[:6].tolist()) == (4, True, [4, 4, 3, 4, 4, 4])
    assert store.column("label")[:2].tolist() == [[-1, -1, 1, 2], [-1, 0, -1, 2]]
    assert store.log_probs([5], temperature=2.0).shape == (1, 4, 3)
    with pytest.raises(ConfigError, match="known at temperature 2 only"):
        store.log_probs([5], temperature=1.0)
    salted = open_store(GOLDEN / "v3-anchors-zarr")
    assert (salted.spec.transfer_set.key_rule, salted.positions, salted.spec.ragged) == (3, 4, False)


@stores
def test_others_read_it_as_ever(tmp_path: Path, name: str) -> None:
    copy(GOLDEN / name, tmp_path / "store")
    data = golden_rows.rows(kind_of(name))
    found = plain(tmp_path / "store", data)
    for column, values in seen(data).items():
        assert found[column].tobytes() == values.tobytes()
    if data.basis is not None:
        values = np.frombuffer((tmp_path / "store" / "tail_basis" / "c.0.0").read_bytes(), "<f2")
        assert np.array_equal(values.reshape(-1, 40), data.basis)


@pytest.mark.slow
@pytest.mark.on_disk("another process")
def test_others_read_it_without_us() -> None:
    """In a process that cannot import this project."""
    paths = {name: str(GOLDEN / name) for name in DIGESTS if name.startswith("v3")}
    command = [sys.executable, "-I", str(GOLDEN.with_name("plain_reader.py")), *paths.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for name, path in paths.items():
        expected = {column: facts(values) for column, values in seen(golden_rows.rows(kind_of(name))).items()}
        assert {column: each for column, each in found[path].items() if column != "tail_basis"} == expected, name


@written
def test_the_same_plan_still_gives_the_same_store(tmp_path: Path, name: str) -> None:
    """Byte for byte, but for records of the environment; Arrow's own framing is that of the pyarrow that wrote it."""
    golden, path = GOLDEN / name, tmp_path / "store"
    golden_rows.write(path, name)
    store = open_store(path)
    assert store.content_digest == open_store(golden).content_digest
    if store.layout == "arrow" and pyarrow_of(golden) != pa.__version__:
        pytest.skip(f"written by pyarrow {pyarrow_of(golden)}, this is {pa.__version__}")
    assert store.digest == DIGESTS[name]
    names = {str(file.relative_to(golden)) for file in golden.rglob("*") if file.is_file()}
    assert names == {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    for file in names - {"manifest.json", "README.md"}:
        if not file.startswith("commits/"):
            assert (path / file).read_bytes() == (golden / file).read_bytes(), file


@stores
def test_it_is_resumed_as_ever(tmp_path: AnyPath, name: str) -> None:
    """Without its second shard and what sealed it: the same store again, to the byte where nothing tells the machine."""
    path, data = copy(GOLDEN / name, tmp_path / "store"), golden_rows.rows(kind_of(name))
    for file in (*open_store(path).payload(1).files, "commits/00001.json", "manifest.json", "README.md"):
        (path / file).unlink()
    with StoreWriter(path, golden_rows.spec(name), basis=data.basis) as writer:
        assert writer.pending == [1]
        fill(writer, data)
        manifest = writer.seal(checked=True)
    assert manifest.content_digest == open_store(GOLDEN / name).content_digest
    assert manifest.digest == DIGESTS[name] or (name.endswith("arrow") and pyarrow_of(path) != pa.__version__)
    assert verify(path) == []
    assert_holds(open_store(path), data)


def pyarrow_of(path: AnyPath) -> str:
    """The version that wrote the first shard."""
    environment: dict[str, str] = json.loads((path / "commits" / "00000.json").read_bytes())["environment"]
    return environment["pyarrow"]


@stores
def test_it_converts_to_the_other_layout(tmp_path: AnyPath, golden: AnyPath, name: str) -> None:
    source = open_store(golden)
    other = "arrow" if source.layout == "zarr" else "zarr"
    if source.spec.ragged:
        with pytest.raises(UserError, match=r"are ragged .* Zarr holds regular arrays; keep the layout arrow"):
            convert(source.path, tmp_path / "store", layout=other)
        other = "arrow"
    manifest = convert(source.path, tmp_path / "store", layout=other)
    assert (manifest.format, manifest.content_digest) == (max(2, int(name[1])), source.content_digest)
    assert verify(tmp_path / "store") == []
    if name in ("v1-arrow", "v2-arrow"):
        assert manifest.digest == DIGESTS["v2-zarr"]


def test_golden_stores_are_small() -> None:
    files = [file for name in DIGESTS for file in (GOLDEN / name).rglob("*")]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 480_000


def test_version_1_holds_nothing_of_version_2(tmp_path: Path) -> None:
    path = copy(GOLDEN / "v2-topk-zarr", tmp_path / "store")
    for file in ("plan.json", "manifest.json"):
        (path / file).write_bytes((path / file).read_bytes().replace(b'"format": 2', b'"format": 1'))
    manifest = read_json(folder_of(path), "manifest.json", Manifest)
    sealed = msgspec.structs.replace(manifest, seal=manifest_seal(manifest))
    (path / "manifest.json").write_bytes(pretty_json(sealed))
    with pytest.raises(DamagedManifest, match="format 1 holds neither topk labels nor sequences"):
        open_store(path)


def test_version_2_holds_nothing_of_version_3(tmp_path: Path) -> None:
    path = copy(GOLDEN / "v3-zarr", tmp_path / "store")
    manifest = msgspec.structs.replace(read_json(folder_of(path), "manifest.json", Manifest), format=2)
    sealed = msgspec.structs.replace(manifest, seal=manifest_seal(manifest))
    (path / "manifest.json").write_bytes(pretty_json(sealed))
    with pytest.raises(DamagedManifest, match=r"format 2 has no transfer_set\.key_rule and no teacher\.floor"):
        open_store(path)


@pytest.mark.parametrize(
    ("facts", "version"),
    [({}, 2), ({"key_rule": 1}, 2), ({"key_rule": 2}, 3), ({"key_rule": 3}, 3), ({"floor": 1e-3}, 3)],
)
def test_the_earliest_format_that_holds_it_is_written(facts: dict[str, float], version: int) -> None:
    teacher = TeacherSpec(name="t", precision="", members=(MemberSpec(model="m"),))
    if "floor" in facts:
        teacher, facts = msgspec.structs.replace(teacher, floor=facts["floor"]), {}
    spec = store_spec(DenseEncoding(), teacher=teacher, name="n", keys=np.zeros((20, 16), np.uint8), classes=3, **facts)
    plan = plan_of(spec)
    assert plan.format == version
    assert (b"key_rule" in pretty_json(plan) or b"floor" in pretty_json(plan)) == (version == 3)


@pytest.mark.parametrize("facts", [{"key_rule": 4}, {"floor": 0.0}, {"floor": -1.0}])
def test_fields_of_version_3_have_limits(facts: dict[str, float]) -> None:
    teacher = TeacherSpec(name="t", precision="", members=(MemberSpec(model="m"),), floor=facts.pop("floor", UNSET))
    with pytest.raises(UserError, match=r"key_rule|floor"):
        store_spec(DenseEncoding(), teacher=teacher, name="n", keys=np.zeros((20, 16), np.uint8), classes=3, **facts)


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
