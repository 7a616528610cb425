"""Promise 7: a store that somebody made to harm whoever reads it. Its words, numbers and bytes are replaced, and all digests
made to fit again; what comes of reading it are errors of ours or values, within little memory and time, and an audit hook sees
no code run, nothing imported and no file opened but the store's own, for reading.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import DamagedManifest, SoftLabelsError
from softlabels.store import open_store, reader
from softlabels.store.digest import blake3_hex
from softlabels.store.json_files import decode_json
from softlabels.store.layouts import layout_of
from softlabels.store.spec import Plan
from softlabels.store.verify import verify
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.writers import Acknowledge, Case, Child
from tests.store.test_hostile import json_texts, read_all, seal_again

KINDS = ("zarr", "zstd", "arrow", "topk-zarr", "sequence-zstd", "ragged-arrow", "several-zarr", "ragseveral-arrow")
MEMORY, SECONDS = 256 << 20, 20
ROWS = 16 * 3 + 5
FORBIDDEN = {
    "exec", "compile", "import", "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.putenv",
    "os.posix_spawn", "socket.connect", "socket.bind", "ctypes.dlopen", "os.remove", "os.rename", "os.link", "os.symlink",
    "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown",
}  # fmt: skip
NUMBERS = (
    0,
    1,
    2,
    3,
    16,
    17,
    255,
    1 << 16,
    1 << 24,
    1 << 31,
    1 << 40,
    1 << 50,
    (1 << 63) - 1,
    1 << 64,
    10**40,
    0.5,
    1e308,
)
WORDS = (
    "", "zarr", "arrow", "none", "zstd", "dense", "topk", "lowrank", "prior", "float16", "float64", "object", "int8", "uint64",
    "V16", "logits", "label", "../../etc/passwd", "/etc/passwd", "os.system", "ab" * 32, "../" * 21 + "a", "\x00", "x" * 5000,
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, float("nan"), float("inf"), [], {}, [[]], [1 << 40], {"../x": 1}, ["zarr"] * 99)


Forgery = Callable[[Path, np.random.Generator], str]  # changes a store and says how


def hostile_stores(count: int, seed: int) -> Outcome:
    return _hostile_stores(count, seed, FORGERIES, lambda: None)


def trusted_stores(seed: int) -> Outcome:
    return _hostile_stores(200, seed, (_specification, _record), without_checks)


def _hostile_stores(count: int, seed: int, forgeries: tuple[Forgery, ...], prepare: Callable[[], None]) -> Outcome:
    rng = np.random.default_rng(seed)
    with scratch() as folder:
        for kind in KINDS:
            Case.make(rng, Path(folder) / kind, kind=kind, rows=ROWS)
            read_all(Path(folder) / kind / "whole")  # what is imported and compiled late, is so now
            verify(Path(folder) / kind / "whole")
        with suppress(DamagedManifest):
            decode_json(b'{"format": "1"}', Plan, "plan.json")

        def attack(rng: np.random.Generator) -> None:
            kind, forge = str(rng.choice(KINDS)), forgeries[rng.integers(len(forgeries))]
            with scratch() as place:
                path = Path(shutil.copytree(Path(folder) / kind / "whole", Path(place) / "store"))
                what = f"{kind}, {forge.__name__.strip('_')}: {forge(path, rng)}"
                ended = Child(partial(_read, path, prepare)).go().end(2 * SECONDS)
                assert ended.code == 0, f"{what}: exit code {ended.code}: {ended.error[-300:]}"

        return repeated(count, seed, attack)


def _read(path: Path, prepare: Callable[[], None], acknowledge: Acknowledge) -> int:
    """Read and verify a store; 0 where that succeeds or is refused by an error of ours, which is then said."""
    prepare()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS,) * 2)
    watching = [str(path)]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching and (event in FORBIDDEN or (event == "open" and not _may_open(args, str(path)))):
            watching.clear()
            raise SystemExit(f"{event} {args}")

    sys.addaudithook(watch)
    for work in (read_all, verify):
        try:
            work(path)
        except SoftLabelsError:
            pass
        finally:
            seen, watching = not watching, list(watching)
        if seen:
            return 99
    watching.clear()
    return 0


def _may_open(args: tuple[Any, ...], store: str) -> bool:
    """Whether this is a file of the store, for reading; a link out of it is none, unless it would not be followed."""
    name, _, flags = args
    step = not isinstance(name, int) and "/" not in os.fsdecode(name) and os.fsdecode(name) != ".."
    if step and flags & os.O_NOFOLLOW:  # from the handle of a folder that was opened here before
        return not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    inside = isinstance(name, int) or os.fsdecode(name).startswith(store)
    if inside and not isinstance(name, int) and not flags & os.O_NOFOLLOW:
        inside = os.path.realpath(name).startswith(store)
    return inside and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


def _any_word(what: str, path: Path, rng: np.random.Generator) -> str:
    """Replace one value of the specification or of the first shard's record, most often by another of its type."""
    said = []

    def edit(data: dict[str, Any]) -> None:
        at: Any = data
        where: list[Any] = []
        while True:
            keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
            key = keys[rng.integers(len(keys))]
            where.append(key)
            if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.05:
                break
            at = at[key]
        at[key] = _other(at[key], rng)
        said.append(f"{where} = {str(at[key])[:40]}")

    seal_again(path, **{what: edit})
    return said[0]


def _other(value: Any, rng: np.random.Generator) -> Any:
    """Something else in the place of a value of a record."""
    if rng.random() < 0.1 or value is None:
        return (*NUMBERS, *WORDS, *OTHERS)[rng.integers(len(NUMBERS + WORDS + OTHERS))]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return (*NUMBERS, -1, -value, value + 1, value - 1, value * 2, value * 10**6)[rng.integers(len(NUMBERS) + 6)]
    if isinstance(value, str):
        return WORDS[rng.integers(len(WORDS))]
    items = list(value.items()) if isinstance(value, dict) else list(value)
    at = int(rng.integers(len(items))) if items else 0
    some = (items[:at], items[at + 1 :], items[::-1], [*items, *items[at : at + 1]], items * 1000)[rng.integers(5)]
    return dict(some) if isinstance(value, dict) else some


def _specification(path: Path, rng: np.random.Generator) -> str:
    return _any_word("spec", path, rng)


def _record(path: Path, rng: np.random.Generator) -> str:
    return _any_word("payload", path, rng)


def _bytes_of_a_shard(path: Path, rng: np.random.Generator) -> str:
    """Replace some bytes of a shard's file, cut it short or make it longer, and have its digests say that this is right."""
    store = open_store(path)
    payload, layout = store.payload(0), layout_of(store.spec)
    name = str(rng.choice(sorted(payload.files)))
    data = np.frombuffer((path / name).read_bytes(), np.uint8).copy()
    start = int(rng.integers(len(data)))
    stop = min(len(data), start + int(rng.choice([1, 4, 64, len(data)])))
    data[start:stop] = (
        rng.choice([rng.integers(256), 0, 255]) if rng.random() < 0.5 else rng.integers(0, 256, stop - start)
    )
    raw = data.tobytes()
    if rng.random() < 0.2:
        raw = raw[:start] if rng.random() < 0.5 else raw + raw[:start]
    (path / name).write_bytes(raw)

    def edit(record: dict[str, Any]) -> None:
        record["files"][name] = {"size": len(raw), "blake3": blake3_hex(raw)}
        for column in store.spec.columns:
            if layout.path(column, 0) == name:
                for chunk in record["chunks"][column.name]:
                    chunk[2] = blake3_hex(raw[chunk[0] : chunk[0] + chunk[1]])

    seal_again(path, payload=edit)
    return f"{name}, bytes {start} to {stop} of {len(data)}, now {len(raw)}"


def _json(path: Path, rng: np.random.Generator) -> str:
    """A text that is no record in the place of one."""
    name = str(rng.choice(["plan.json", "manifest.json", "commits/00000.json"]))
    kind = str(rng.choice(sorted(json_texts())))
    (path / name).write_bytes(json_texts()[kind])
    return f"{kind} as {name}"


def _no_file(path: Path, rng: np.random.Generator) -> str:
    """A link, a pipe, a folder, a device or a sparse file of a terabyte in the place of a file."""
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    name, what = str(rng.choice(files)), str(rng.choice(["link", "pipe", "folder", "endless", "terabyte"]))
    file = path / name
    file.unlink()
    if what == "link":
        file.symlink_to("/etc/passwd")
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what == "endless":
        file.symlink_to("/dev/zero")
    else:
        file.touch()
        os.truncate(file, 1 << 40)
    return f"{what} as {name}"


def _repeated_key(path: Path, rng: np.random.Generator) -> str:
    """A key that stands twice in the plan or the manifest."""
    name = str(rng.choice(["plan.json", "manifest.json"]))
    text = (path / name).read_text()
    key = str(rng.choice(sorted(json.loads(text))))
    (path / name).write_text(f'{{"{key}": {json.dumps(_other(7, rng))},' + text[1:])
    return f"{key} in {name}"


FORGERIES = (
    _specification,
    _specification,
    _record,
    _record,
    _bytes_of_a_shard,
    _bytes_of_a_shard,
    _json,
    _no_file,
    _repeated_key,
)


def without_checks() -> None:
    """Take the defence away, in this process: what a store says of itself is believed."""
    reader.check_record = lambda *arguments: None  # type: ignore[attr-defined]
    reader.check_manifest = lambda *arguments: None  # type: ignore[attr-defined]


TRIALS = (
    Trial(
        promise=7,
        what="a generated hostile store, with all digests made to fit, read within 256 MB and 20 s",
        count=1000,
        quick=8,
        run=partial(apart, hostile_stores),
        control=partial(apart, trusted_stores),
        control_what="specifications and records are not checked",
        slow=True,
    ),
)
