"""An attacker's tools: a store is changed in one way or another, and all digests are made to fit again. Each tool takes the
copy of a sound store, and says what it did. What is changed: values of columns, words of the JSON records, their text, bytes of
the shards' files (most of all those between the chunks, by which Zarr and Arrow find these), and names: links, pipes, devices,
sockets, folders, huge and unreadable files.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3

from softlabels.store import shard_writer, writer
from softlabels.store.digest import blake3_hex
from softlabels.store.records import Commit, Manifest, Payload
from softlabels.store.spec import Plan, Spec
from tests.faults.trials_hostile import NUMBERS, OTHERS, WORDS
from tests.store.samples import make_spec, sample, write_store
from tests.store.test_hostile import canonical

ROWS, SEED = 53, 1
ODD = "\x1b]0;owned\x07\x1b[2J\u202eEVIL\nEVIL"
NAMES = ("\x1b[31mx", "x\ny", "\udcff\udcfe", "²²", "-1", "9" * 250, "a" * 64)
FLOATS = (np.nan, np.inf, -np.inf, 65504, -65504, 1e-7, 0.0, -0.0, 6e-8, 1.0, 60000)
INTEGERS = (0, 1, -1, 2, 7, 127, -128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**62, -(2**62), 2**63 - 1)
PIECES = (b"null", b"1e999", b"\\ud800", b"\xff", b"[[[[", b"-0", b"NaN", b'{"format":2,"format":3,', b"\\u001b[2J")
Rng = np.random.Generator
Tool = Callable[
    [Path, str, Path, Rng], str
]  # the store, its kind, a folder that is none of its business, random numbers


@contextmanager
def unchecked() -> Iterator[None]:
    """The library's writer without its own checks."""
    before = shard_writer.check_arrays, writer.check_written
    shard_writer.check_arrays, writer.check_written = lambda *_: None, lambda *_, **__: ()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        shard_writer.check_arrays, writer.check_written = before  # type: ignore[attr-defined]


def values(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """The store is written anew, with other numbers in some columns of a shard."""
    data = sample(np.random.default_rng(SEED), ROWS, kind)
    spec, said = make_spec(data, kind), []
    shard, times, add = int(rng.integers(spec.shards)), int(rng.integers(1, 4)), shard_writer.ShardWriter.add

    def forged(self: Any, arrays: dict[str, Any], rows: int) -> None:
        arrays = {name: np.array(each) for name, each in arrays.items()}
        said.extend(_other_values(arrays, rng) for _ in range(times if self._shard == shard else 0))
        add(self, arrays, rows)

    shutil.rmtree(path)
    shard_writer.ShardWriter.add = forged  # type: ignore[method-assign]
    try:
        with unchecked():
            write_store(path, data, spec)
    finally:
        shard_writer.ShardWriter.add = add  # type: ignore[method-assign]
    return f"shard {shard}: {'; '.join(said)}"


def _other_values(arrays: dict[str, Any], rng: Rng) -> str:
    name, how = str(rng.choice(sorted(arrays))), int(rng.integers(6))
    column = arrays[name]
    flat = column.reshape(-1)
    count = int(rng.choice([1, 2, max(1, flat.size // 3), flat.size]))
    at = rng.integers(0, flat.size, count) if count < flat.size else np.arange(flat.size)
    with np.errstate(all="ignore"):
        if how < 2:
            found = FLOATS if column.dtype.kind == "f" else INTEGERS
            flat[at] = np.array(found[rng.integers(len(found))]).astype(column.dtype)
        elif how == 2:
            flat[at] = rng.integers(0, 256, (count, column.itemsize)).astype(np.uint8).view(column.dtype).reshape(-1)
        elif how == 3:
            column[:] = column[rng.permutation(len(column))]
        elif how == 4:
            column[...] = column[..., ::-1].copy()
        else:
            column[:] = column[0].copy()
    return f"{name}, way {how}, {count} numbers"


def records(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """Words of the specification, of a record, of plan or manifest."""
    said: list[str] = []
    part, shard = str(rng.choice(["spec", "spec", "payload", "record", "manifest", "plan"])), int(rng.integers(2))

    def change(record: dict[str, Any]) -> None:
        said.extend(other_word(record, rng) for _ in range(int(rng.integers(1, 3))))

    seal_again(path, part, change, shard)
    return f"{part} {said}"


def names_in_it(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """What it calls its teacher, its classes and its transfer set."""

    def change(spec: dict[str, Any]) -> None:
        spec["teacher"]["name"] = spec["transfer_set"]["name"] = ODD
        for space in (target["label_space"] for target in spec.get("targets", [spec])):
            space["names"] = [f"{number}{ODD}" for number in range(space["classes"])]
        if rng.random() < 0.2:
            spec["transfer_set"]["split"] = ODD

    seal_again(path, "spec", change)
    return "names"


def seal_again(path: Path, part: str, change: Callable[[dict[str, Any]], object], shard: int = 0) -> None:
    """Change a part of what a sealed store says of itself, then make plan, records, manifest and all digests fit."""
    plan, manifest = (json.loads((path / name).read_bytes()) for name in ("plan.json", "manifest.json"))
    place = path / "commits" / f"{shard:05}.json"
    record = json.loads(place.read_bytes())
    if part != "manifest":
        change({"spec": plan["spec"], "plan": plan, "payload": record["payload"], "record": record}[part])
    manifest |= {name: plan[name] for name in ("format", "spec", "about") if name in plan}
    raw, payload = _pretty(record, Commit), record.get("payload")
    manifest["commits"][shard] = blake3_hex(raw)
    manifest["payloads"][shard] = blake3(canonical(payload, Payload)).hexdigest()
    if part == "manifest":
        change(manifest)
    with suppress(KeyError, TypeError, ValueError):  # of a manifest that has no such fields any more
        spec = json.loads(canonical(manifest["spec"], Spec))
        root = blake3(canonical({"format": manifest["format"], "spec": spec}, None))
        for digest in manifest["payloads"]:
            root.update(bytes.fromhex(digest))
        manifest["digest"] = root.hexdigest()
    manifest["seal"] = ""
    manifest["seal"] = blake3(canonical(manifest, Manifest)).hexdigest()
    (path / "plan.json").write_bytes(_pretty(plan, Plan))
    place.write_bytes(raw)
    (path / "manifest.json").write_bytes(_pretty(manifest, Manifest))


def _pretty(record: dict[str, Any], kind: type) -> bytes:
    """As the library writes it, where it could."""
    try:
        return msgspec.json.format(canonical(record, kind), indent=1) + b"\n"
    except (msgspec.MsgspecError, OverflowError):
        return json.dumps(record).encode()


def other_word(record: Any, rng: Rng) -> str:
    """Put something else into a record, somewhere."""
    at, where = record, []
    while at:
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
        where.append(keys[rng.integers(len(keys))])
        inner = at[where[-1]]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.06:
            at[where[-1]] = _other(inner, rng)
            return f"{where} = {str(at[where[-1]])[:40]!r}"
        at = inner
    return "nothing"


def _other(value: Any, rng: Rng) -> Any:
    if rng.random() < 0.1 or value is None:
        return OTHERS[rng.integers(len(OTHERS))]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        numbers = (
            *NUMBERS,
            -1,
            -value,
            value + 1,
            value - 1,
            value * 2,
            value * 16,
            value / 3,
            5e-324,
            -1e308,
            1 << 62,
        )
        return numbers[rng.integers(len(numbers))]
    if isinstance(value, str):
        return (*WORDS, ODD, "a\nb", "\u202e", "nan", "1e400", "train", "test")[rng.integers(len(WORDS) + 7)]
    items = list(value.items()) if isinstance(value, dict) else list(value)
    at = int(rng.integers(len(items))) if items else 0
    some = (items[:at], items[at + 1 :], items[::-1], items + items[at : at + 1], items * 50)[rng.integers(5)]
    return dict(some) if isinstance(value, dict) else some


def texts(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """Bytes of a JSON file; of those that only plain readers need, too."""
    readers = ("zarr.json", "state.json", "dataset_info.json", "signatures.json", "README.md")
    name = str(rng.choice(["plan.json", "manifest.json", "commits/00000.json", *readers]))
    text = bytearray((path / name).read_bytes() if (path / name).exists() else b"{}")
    for _ in range(int(rng.integers(1, 6))):
        at, how = int(rng.integers(len(text) or 1)), int(rng.integers(4))
        if how == 0:
            text[at : at + 1] = bytes([rng.integers(256)])
        elif how == 1:
            del text[at : at + int(rng.integers(1, 50))]
        elif how == 2:
            text[at:at] = PIECES[rng.integers(len(PIECES))]
        else:
            text[at:at] = text[:at][-40:]
    (path / name).write_bytes(bytes(text))
    return name


def framing(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """Bytes of a shard's file, most often between the chunks: what Zarr's index and Arrow's messages say of them."""
    record = json.loads((path / "commits" / "00000.json").read_bytes())["payload"]
    name = str(rng.choice(sorted(record["files"])))
    data = np.frombuffer((path / name).read_bytes(), np.uint8).copy()
    here = {
        column: chunks
        for column, chunks in record["chunks"].items()
        if len(record["files"]) == 1 or name.startswith(f"{column}/")
    }
    between = np.ones(len(data), bool)
    for start, size, _ in (chunk for chunks in here.values() for chunk in chunks):
        between[start : start + size] = rng.random() < 0.1
    places = np.flatnonzero(between) if between.any() else np.arange(len(data))
    for _ in range(int(rng.integers(1, 5))):
        start = int(rng.choice(places))
        stop = min(len(data), start + int(rng.choice([1, 2, 4, 8, 64])))
        odd = (0, 255, 1, 127, 128)
        data[start:stop] = odd[rng.integers(5)] if rng.random() < 0.5 else rng.integers(0, 256, stop - start)
    raw = data.tobytes()
    if rng.random() < 0.15:
        raw = raw[: int(rng.integers(1, len(raw)))] if rng.random() < 0.5 else raw + raw[-64:]
    (path / name).write_bytes(raw)

    def change(payload: dict[str, Any]) -> None:
        payload["files"][name] = {"size": len(raw), "blake3": blake3_hex(raw)}
        for column in here:
            for chunk in payload["chunks"][column]:
                chunk[2] = blake3_hex(raw[chunk[0] : chunk[0] + chunk[1]])

    seal_again(path, "payload", change)
    return f"{name}, now {len(raw)} bytes"


def names(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """What stands under a name of the store, or of one that a command would give, is something else."""
    write_id = json.loads((path / "commits" / "00000.json").read_bytes())["write_id"]
    known = sorted(str(file.relative_to(path)) for file in path.rglob("*"))
    known += [
        "staging", "staging/lock", f"staging/{write_id}", f"staging/{write_id}/0", "set_aside", "set_aside/1", "set_aside/9",
        "commits/²².json", "commits/x.json", "commits/99999.json", "commits/-1.json", "tail_basis", "input", "zarr.json",
        "state.json", "dataset_info.json", *(f"{folder}{name}" for folder in ("", "staging/", "set_aside/") for name in NAMES),
    ]  # fmt: skip
    said = []
    for _ in range(int(rng.integers(1, 3))):
        name, what = str(rng.choice(known)), str(rng.choice(sorted(STRANGE)))
        said.append(f"{name!r}: {what}")
        put_strange(path / name, what, outside)
    return ", ".join(said)


STRANGE: dict[str, Callable[[Path, Path], object]] = {
    "link to a file": lambda place, outside: place.symlink_to(outside / "secret"),
    "link to a folder": lambda place, outside: place.symlink_to(outside),
    "link to nothing": lambda place, outside: place.symlink_to(outside / "new"),
    "link to itself": lambda place, _: place.symlink_to(place.name),
    "hard link": lambda place, outside: os.link(outside / "secret", place),
    "pipe": lambda place, _: os.mkfifo(place),
    "endless device": lambda place, _: place.symlink_to("/dev/zero"),
    "socket": lambda place, _: _socket(place),
    "folder": lambda place, _: place.joinpath("0").mkdir(parents=True),
    "terabyte": lambda place, _: (place.touch(), os.truncate(place, 1 << 40)),
    "nothing in it": lambda place, _: place.touch(),
    "unreadable": lambda place, _: (place.write_text("x"), place.chmod(0)),
}  # fmt: skip


def put_strange(place: Path, what: str, outside: Path) -> None:
    """Put something strange under a name, in the place of what is there."""
    with suppress(OSError):  # of a name that is too long, or below one that is no folder any more
        if os.path.lexists(place):
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        STRANGE[what](place, outside)


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


def unsealed(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """The manifest is gone, and something is wrong besides."""
    (path / "manifest.json").unlink()
    tool = (names, texts)[rng.integers(2)]
    return f"unsealed, {tool(path, kind, outside, rng)}"


TOOLS: tuple[Tool, ...] = (
    values,
    values,
    records,
    records,
    names_in_it,
    texts,
    framing,
    framing,
    names,
    names,
    unsealed,
)
