"""Stores that somebody made to harm whoever opens them: typed errors only, within little memory and time."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from softlabels.errors import DamagedManifest, DamagedStore, LaterFormat, UnsealedStore
from softlabels.store import Store, open_store
from softlabels.store.digest import blake3_hex, manifest_seal, payload_digest, store_digest
from softlabels.store.json_files import MAX_JSON_BYTES, MAX_RECORD_BYTES, decode_json, encode_json, pretty_json
from softlabels.store.records import Commit, Manifest, Payload
from softlabels.store.spec import Plan
from softlabels.store.verify import verify
from tests.store.samples import KINDS, make_spec, require_sound, sample, write_store

ROOT = Path(__file__).parents[2]
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator, request: pytest.FixtureRequest) -> Store:
    kind = getattr(request, "param", "zarr")
    data = sample(rng, 70, kind)
    return write_store(tmp_path / "store", data, make_spec(data, kind))


def seal_again(path: Path, *, spec: Edit | None = None, payload: Edit | None = None) -> None:
    """Change the specification or the first shard's payload, then make all digests fit again, as a careful attacker would."""
    plan, manifest = (json.loads((path / name).read_bytes()) for name in ("plan.json", "manifest.json"))
    record = json.loads((path / "commits" / "00000.json").read_bytes())
    if spec is not None:
        spec(plan["spec"])
    manifest["spec"] = plan["spec"]
    if payload is not None:
        payload(record["payload"])
    raw = json.dumps(record).encode()
    manifest["commits"][0] = blake3_hex(raw)
    manifest["payloads"][0] = blake3(canonical(record["payload"], Payload)).hexdigest()
    root = blake3(canonical({"format": plan["format"], "spec": plan["spec"]}, None))
    for digest in manifest["payloads"]:
        root.update(bytes.fromhex(digest))
    manifest["digest"], manifest["seal"] = root.hexdigest(), ""
    manifest["seal"] = blake3(canonical(manifest, Manifest)).hexdigest()
    (path / "plan.json").write_bytes(json.dumps(plan).encode())
    (path / "commits" / "00000.json").write_bytes(raw)
    (path / "manifest.json").write_bytes(json.dumps(manifest).encode())


def canonical(value: object, kind: type | None) -> bytes:
    """Canonical JSON, by way of the library's own classes where they take the value."""
    try:
        if kind is not None:
            return encode_json(msgspec.convert(value, kind))
    except msgspec.ValidationError:
        pass
    return msgspec.json.encode(value, order="sorted")


def read_all(path: Path) -> None:
    found = open_store(path)
    for name in found.columns:
        found.column(name)
    _ = found.basis


def put(*where: object) -> Callable[[object], Edit]:
    """An edit that sets the value at a path."""

    def setter(value: object) -> Edit:
        def edit(data: dict[str, Any]) -> None:
            at: Any = data
            for key in where[:-1]:
                at = at[key]
            at[where[-1]] = value

        return edit

    return setter


def test_the_attackers_tool_works(store: Store) -> None:
    """Sealed again without a change, the store opens: the refusals below are not those of a broken digest."""
    seal_again(store.path)
    read_all(store.path)
    seal_again(store.path, spec=put("teacher", "name")("somebody else"))
    read_all(store.path)
    assert open_store(store.path).spec.teacher.name == "somebody else"


SPECS = {
    "rows: huge": put("transfer_set", "rows")(1 << 40),
    "rows: beyond limits": put("transfer_set", "rows")(1 << 60),
    "rows: more digits than a word": put("transfer_set", "rows")(10**40),
    "rows: negative": put("transfer_set", "rows")(-1),
    "rows: zero": put("transfer_set", "rows")(0),
    "rows: text": put("transfer_set", "rows")("70"),
    "rows: fraction": put("transfer_set", "rows")(70.5),
    "rows: true": put("transfer_set", "rows")(True),
    "classes: huge": put("label_space", "classes")(1 << 24),
    "names: one short": put("label_space", "names")(["a"]),
    "names: long": put("label_space", "names")(["a" * 5000] * 7),
    "chunk: huge": lambda s: s["cut"].update(rows_per_chunk=1 << 30, rows_per_shard=1 << 30),
    "chunk: not in blocks": lambda s: s["cut"].update(rows_per_chunk=7, rows_per_shard=49),
    "shard: huge": put("cut", "rows_per_shard")(1 << 40),
    "shard: no multiple": put("cut", "rows_per_shard")(49),
    "rows and shard: huge": lambda s: (s["cut"].update(rows_per_shard=1 << 40), s["transfer_set"].update(rows=1 << 40)),
    "column: shape huge": put("columns", 4, "shape")([1 << 30, 1 << 30]),
    "column: shape negative": put("columns", 4, "shape")([-1, 2]),
    "column: shape zero": put("columns", 4, "shape")([0, 2]),
    "column: many axes": put("columns", 4, "shape")([1] * 40),
    "column: object": put("columns", 4, "dtype")("object"),
    "column: structured": put("columns", 4, "dtype")("i4,i4"),
    "column: raw": put("columns", 4, "dtype")("V16"),
    "column: path": put("columns", 4, "name")("../../evil"),
    "column: absolute path": put("columns", 4, "name")("/tmp/evil"),
    "column: label of floats": put("columns", 1, "dtype")("float64"),
    "column: wide key": put("columns", 0, "shape")([32]),
    "column: logits of one member": put("columns", 2, "shape")([1, 7]),
    "columns: none": put("columns")([]),
    "columns: repeated": lambda s: s.update(columns=[s["columns"][0]] * 5),
    "columns: one more": lambda s: s["columns"].append({**s["columns"][4], "name": "other"}),
    "columns: order": lambda s: s["columns"].reverse(),
    "layout: unknown": put("layout")("hdf5"),
    "layout: the other": put("layout")("arrow"),
    "compression: unknown": put("compression")("gzip"),
    "weight: negative": put("teacher", "members", 0, "weight")(-1.0),
    "weight: none": lambda s: [m.update(weight=0.0) for m in s["teacher"]["members"]],
    "weight: huge": lambda s: [m.update(weight=1.7e308) for m in s["teacher"]["members"]],
    "members: none": put("teacher", "members")([]),
    "unknown field": put("exec")("import os"),
    "unknown inner field": put("teacher", "class_path")("os.system"),
    "missing field": lambda s: s.pop("cut"),
    "not an object": lambda s: s.update(cut=[16, 16]),
}


@pytest.mark.parametrize("name", SPECS)
def test_hostile_specifications(store: Store, name: str) -> None:
    seal_again(store.path, spec=SPECS[name])
    with pytest.raises((DamagedStore, LaterFormat)):
        read_all(store.path)
    with pytest.raises((DamagedStore, LaterFormat)):
        require_sound(store.path)


def nested(depth: int) -> Edit:
    """Arguments of that depth."""
    arguments: Any = {}
    for level in range(depth - 1):
        arguments = {"a": arguments} if level % 2 else {"a": [1], "b": {"c": 2}, "d": arguments}
    return put("preprocessing", "arguments")(arguments)


@pytest.mark.parametrize("depth", [65, 600])
def test_arguments_that_are_nested_deep(store: Store, depth: int) -> None:
    """What compares two specifications walks through them."""
    seal_again(store.path, spec=nested(64))
    read_all(store.path)
    seal_again(store.path, spec=nested(depth))
    with pytest.raises(DamagedManifest, match="nested more than 64 deep"):
        open_store(store.path)


@pytest.mark.parametrize("key", ["abc", "", "nan", "inf", "-1", "0", "01", "1.0", " 1", "1_0", "²", "9" * 9000])
def test_a_fidelity_of_no_temperature(store: Store, key: str) -> None:
    manifest = json.loads((store.path / "manifest.json").read_bytes())
    manifest["fidelity"][key] = manifest["fidelity"]["1"]
    manifest["seal"] = ""
    manifest["seal"] = blake3(canonical(manifest, Manifest)).hexdigest()
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedManifest, match=r"manifest\.json has the fidelity of .*, which is no temperature"):
        open_store(store.path)


def test_a_record_whose_number_is_no_digit(store: Store) -> None:
    (store.path / "commits" / "².json").write_text("{}")
    assert [problem.file for problem in verify(store.path)] == ["commits/².json"]
    (store.path / "manifest.json").unlink()
    with pytest.raises(UnsealedStore, match="2 of 2 shards"):
        open_store(store.path)


def first_chunk(column: str, index: int) -> Callable[[object], Edit]:
    return put("chunks", column, 0, index)


PAYLOADS = {
    "offset: negative": first_chunk("logits", 0)(-1),
    "offset: beyond the file": first_chunk("logits", 0)(1 << 40),
    "offset: overflows": first_chunk("logits", 0)(1 << 63),
    "size: beyond the file": first_chunk("logits", 1)(1 << 20),
    "size: huge": first_chunk("logits", 1)(1 << 31),
    "size: beyond limits": first_chunk("logits", 1)((1 << 31) + 1),
    "size: zero": first_chunk("logits", 1)(0),
    "size: one byte": first_chunk("logits", 1)(1),
    "size: fraction": first_chunk("logits", 1)(1.5),
    "digest: short": first_chunk("logits", 2)("ab"),
    "digest: a path": first_chunk("logits", 2)("../" * 21 + "a"),
    "file: huge": lambda p: p["files"].update({name: {"size": 1 << 50, "blake3": "0" * 64} for name in p["files"]}),
    "file: outside": lambda p: p["files"].update({"../../etc/passwd": {"size": 1, "blake3": "0" * 64}}),
    "file: renamed": lambda p: p["files"].update({"/etc/passwd": p["files"].pop(next(iter(p["files"])))}),
    "files: none": put("files")({}),
    "chunks: one more": lambda p: p["chunks"]["logits"].append(p["chunks"]["logits"][0]),
    "chunks: one fewer": lambda p: p["chunks"]["logits"].pop(),
    "chunks: no column": lambda p: p["chunks"].pop("logits"),
    "chunks: another column": lambda p: p["chunks"].update(evil=p["chunks"].pop("logits")),
    "chunks: an object": first_chunk("logits", 0)({}),
    "shard: another": put("shard")(1),
    "rows: others": put("rows")(47),
    "rows: huge": put("rows")(1 << 40),
    "blocks: none": put("blocks")([]),
    "unknown field": put("evil")(1),
    "chunk of another column": lambda p: p["chunks"].update(logits=p["chunks"]["label"], label=p["chunks"]["logits"]),
}


@pytest.mark.parametrize("store", KINDS, indirect=True)
@pytest.mark.parametrize("name", PAYLOADS)
def test_hostile_commit_records(store: Store, name: str) -> None:
    seal_again(store.path, payload=PAYLOADS[name])
    with pytest.raises(DamagedStore, match=r"00000.json|shard 0|shift|logits|label"):
        read_all(store.path)


def json_texts() -> dict[str, bytes]:
    return {
        "empty": b"",
        "a list": b"[]",
        "deep lists": b"[" * 200_000,
        "deep objects": b'{"spec":' * 200_000,
        "deep arguments": b'{"spec":{"preprocessing":{"arguments":{"a":' + b"[" * 100_000,
        "NaN": b'{"format": NaN}',
        "infinity": b'{"format": Infinity}',
        "many digits": b'{"format": ' + b"9" * 100_000 + b"}",
        "huge exponent": b'{"format": 1e99999}',
        "another type": b'{"format": "1"}',
        "no UTF-8": b'{"format": "\xff\xfe"}',
        "half a surrogate": b'{"format": "\\ud800"}',
        "zero bytes": bytes(1000),
        "a comment": b'{"format": 1 /* one */}',
        "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    }


@pytest.mark.parametrize("text", json_texts())
@pytest.mark.parametrize("file", ["plan.json", "manifest.json", "commits/00000.json"])
def test_hostile_json(store: Store, file: str, text: str) -> None:
    (store.path / file).write_bytes(json_texts()[text])
    with pytest.raises(DamagedStore, match=Path(file).name):
        read_all(store.path)


@pytest.mark.parametrize("file", ["plan.json", "manifest.json"])
def test_a_repeated_key_does_not_hide_an_edit(store: Store, file: str) -> None:
    """The last one counts for every reader of JSON; a text in which another stands before it is not what was sealed."""
    text = (store.path / file).read_bytes()
    (store.path / file).write_bytes(b'{"about": {"source": "hidden"},' + text[1:])
    assert file in str(verify(store.path)[0])
    edited = text.replace(b'"rows": 70', b'"rows": 70,\n"rows": 71')
    assert edited != text
    (store.path / file).write_bytes(edited)
    with pytest.raises(DamagedManifest):
        open_store(store.path)


@pytest.mark.parametrize("file", ["plan.json", "manifest.json"])
def test_a_later_format_is_named(store: Store, file: str) -> None:
    path = store.path / file
    path.write_bytes(path.read_bytes().replace(b'"format": 2', b'"format": 4, "views": []', 1))
    with pytest.raises(
        LaterFormat, match=rf"{file} is of store format 4, .* reads up to 3; install a newer softlabels"
    ):
        open_store(store.path)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150)
@given(data=st.data(), value=values)
def test_any_value_anywhere(golden_records: dict[str, dict[str, Any]], data: st.DataObject, value: object) -> None:
    """One value of a real plan, commit record or manifest is replaced by anything: decoded or refused, nothing else."""
    name = data.draw(st.sampled_from(sorted(golden_records)))
    record = copy.deepcopy(golden_records[name])
    at: Any = record
    while True:
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = value
    kind: Any = {"plan": Plan, "manifest": Manifest, "commit": Commit}[name]
    try:
        decoded = decode_json(json.dumps(record).encode(), kind, f"{name}.json")
    except (DamagedManifest, LaterFormat):
        return
    assert msgspec.json.decode(pretty_json(decoded), type=kind) == decoded


@pytest.fixture(scope="module")
def golden_records(
    tmp_path_factory: pytest.TempPathFactory, rng_of: Callable[[str], np.random.Generator]
) -> dict[str, dict[str, Any]]:
    data = sample(rng_of("records"), 40)
    path = write_store(tmp_path_factory.mktemp("records") / "store", data, make_spec(data, names=True)).path
    return {
        "plan": json.loads((path / "plan.json").read_bytes()),
        "manifest": json.loads((path / "manifest.json").read_bytes()),
        "commit": json.loads((path / "commits" / "00000.json").read_bytes()),
    }


def in_little_memory(path: Path, megabytes: int, column: str = "logits") -> str:
    """Open and read a store in a process with limited memory and time; what it says."""
    code = f"""
        import resource, sys
        import numpy, pyarrow
        from softlabels.errors import SoftLabelsError
        from softlabels.store import open_store
        from softlabels.store.verify import verify
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ({megabytes} << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        for work in (lambda s: open_store(s).read_chunk({column!r}, 0), lambda s: print(verify(s)[0])):
            try:
                work({str(path)!r})
            except SoftLabelsError as error:
                print(type(error).__name__, str(error)[:500])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.on_disk("another process")
@pytest.mark.parametrize("store", ["zstd"], indirect=True)
@pytest.mark.parametrize(
    ("megabytes", "words"),
    [(8, "does not decompress to"), (1024, "does not describe shard 0 as the plan cuts it")],  # by its length already
)
def test_a_decompression_bomb(store: Store, megabytes: int, words: str) -> None:
    """A short chunk that decompresses to a gigabyte, with digests that fit."""
    frame = pa.Codec("zstd").compress(bytes(megabytes << 20), asbytes=True)
    assert len(frame) < 200_000
    payload = store.payload(0)
    name = "logits/c.0.0.0"
    (store.path / name).write_bytes(frame + b"crc.")

    def edit(data: dict[str, Any]) -> None:
        data["files"][name] = {"size": len(frame) + 4, "blake3": blake3_hex(frame + b"crc.")}
        data["chunks"]["logits"] = [[0, len(frame) + 4, blake3_hex(frame + b"crc.")]] * len(payload.chunks["logits"])

    seal_again(store.path, payload=edit)
    said = in_little_memory(store.path, 200)
    assert "shard 0" in said
    assert words in said


@pytest.mark.on_disk("another process")
def test_a_shard_that_claims_to_be_huge(store: Store) -> None:
    """A sparse file of 1 TB, a chunk of 2 GB: refused by the size that the plan cuts, before it is read."""
    name = "logits/c.0.0.0"
    os.truncate(store.path / name, 1 << 40)

    def edit(data: dict[str, Any]) -> None:
        data["files"][name]["size"] = 1 << 40
        data["chunks"]["logits"][0][1] = 1 << 31

    seal_again(store.path, payload=edit)
    assert "DamagedManifest" in in_little_memory(store.path, 300)


@pytest.mark.on_disk("another process")
def test_a_specification_of_a_trillion_rows(store: Store) -> None:
    seal_again(store.path, spec=SPECS["rows and shard: huge"])
    assert "DamagedManifest" in in_little_memory(store.path, 100)


@pytest.mark.on_disk("another process")
@pytest.mark.parametrize("file", ["plan.json", "manifest.json", "commits/00000.json"])
def test_json_files_that_are_too_large(store: Store, file: str) -> None:
    os.truncate(store.path / file, (MAX_RECORD_BYTES if file.startswith("commits") else MAX_JSON_BYTES) + 1)
    said = in_little_memory(store.path, 100)
    assert "is larger than" in said
    assert Path(file).name in said


@pytest.mark.on_disk("pipes, and folders that are empty")
@pytest.mark.parametrize("file", ["plan.json", "manifest.json", "commits/00001.json", "shift/c.1.0"])
@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_is_no_file_does_not_hold_us_up(store: Store, file: str, what: str) -> None:
    (store.path / file).unlink()
    os.mkfifo(store.path / file) if what == "pipe" else (store.path / file).mkdir()
    with pytest.raises(DamagedStore, match=Path(file).name):
        read_all(store.path)


AUDIT = """
    import sys
    from softlabels.store import open_store
    from softlabels.store.verify import verify

    def watch(event, args):
        # a name without a folder is opened from the handle of one
        outside = event == "open" and isinstance(args[0], str) and "/" in args[0] and not args[0].startswith(store)
        if watching and (event in FORBIDDEN or outside):
            print("FORBIDDEN", event, args, flush=True)

    FORBIDDEN = {"exec", "compile", "import", "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect"}
    sys.addaudithook(watch)
    for watching in (False, True):  # what is imported late, is imported the first time
        for store in sys.argv[1:]:
            opened = open_store(store)
            for name in opened.columns:
                opened.column(name)
            opened.log_probs([0, 1], temperature=2.0)
            if watching:
                print("read", opened.layout)
            verify(store)
"""


@pytest.mark.on_disk("another process")
def test_reading_imports_and_runs_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    """An audit hook watches a sound store of each kind, and one whose words name code, being read and verified."""
    data = sample(rng, 40)
    paths = [write_store(tmp_path / kind, data, make_spec(data, kind)).path for kind in KINDS]
    evil = write_store(tmp_path / "evil", data, make_spec(data)).path
    words = {"class_path": "os.system", "init_args": {"command": "touch /tmp/pwned"}, "__reduce__": ["os.system", "id"]}
    seal_again(evil, spec=lambda spec: spec["preprocessing"].update(function="os.system", arguments=words))
    command = [sys.executable, "-c", textwrap.dedent(AUDIT), *map(str, [*paths, evil])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FORBIDDEN" not in done.stdout, done.stdout
    assert done.stdout.split("\n")[:4] == ["read zarr", "read zarr", "read arrow", "read zarr"]


def test_digests_of_forged_stores_follow_the_format(store: Store) -> None:
    """The helper above and the library agree on what the digests are."""
    manifest = store.manifest
    assert store_digest(manifest, [payload_digest(store.payload(shard)) for shard in range(2)]) == manifest.digest
    assert manifest_seal(manifest) == manifest.seal
