"""Ways to damage a sealed store, and what reading and `verify` make of it. Each mutation returns the file that must be named.
Imports no torch.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from softlabels.errors import DamagedStore, LaterFormat
from softlabels.store import Store, open_store
from softlabels.store.digest import blake3_hex, manifest_seal, payload_digest
from softlabels.store.json_files import pretty_json, read_json
from softlabels.store.layouts import layout_of
from softlabels.store.paths import record_name
from softlabels.store.reader import Check
from softlabels.store.records import Commit, Manifest
from softlabels.store.spec import plan_of
from softlabels.store.verify import verify
from softlabels.system.places import folder_of
from tests.store.places import AnyPath, copy
from tests.store.samples import KINDS, Sample, make_spec, sample, write_store

SHARDS = 3


@dataclass(frozen=True)
class Case:
    """A sealed store as it was made, its folder (or that of a copy), what it holds, and an earlier store of the same
    specification with other logits.
    """

    store: Store
    path: AnyPath
    data: Sample
    older: AnyPath

    @classmethod
    def make(cls, rng: np.random.Generator, root: AnyPath, kind: str) -> Self:
        """Four classes and two members, so that chunks of different columns have the same size."""
        data = sample(rng, SHARDS * 48, kind, classes=4 if kind in KINDS else 7)
        older, spec = data.changed(1.25), make_spec(data, kind)
        write_store(root / "older", older, spec)
        store = write_store(root / "store", data, spec)
        for shard in range(SHARDS):  # read now: its folder will be damaged
            store.record(shard)
        return cls(store, root / "store", data, root / "older")

    def files(self) -> list[str]:
        """Shard files, by their path in the store."""
        return [name for shard in range(SHARDS) for name in self.store.payload(shard).files]

    def places(self) -> list[tuple[str, str, int, int]]:
        """(file, column, offset, size) of every chunk."""
        layout = layout_of(self.store.spec)
        return [
            (layout.path(column, shard), column.name, chunk.offset, chunk.size)
            for shard in range(SHARDS)
            for column in self.store.spec.columns
            for chunk in self.store.payload(shard).chunks[column.name]
        ]


@contextmanager
def restored(path: AnyPath) -> Iterator[None]:
    """Put every file back as it was."""
    keep = path.with_name("pristine")
    if not keep.exists():
        copy(path, keep)
    try:
        yield
    finally:
        for file in path.rglob("*"):
            if file.is_symlink() or (file.is_file() and not (keep / str(file.relative_to(path))).exists()):
                file.unlink()
        for file in keep.rglob("*"):
            target = path / str(file.relative_to(keep))
            if file.is_dir():
                target.mkdir(exist_ok=True)
            elif not target.exists() or target.read_bytes() != file.read_bytes():
                target.write_bytes(file.read_bytes())


def refusals(case: Case, check: Check = "first") -> list[DamagedStore]:
    """Read everything chunk by chunk: the refusals met. Whatever is handed out must be the truth."""
    truth = case.data.stored()
    try:
        store = open_store(case.path, check=check)
    except DamagedStore as error:
        return [error]
    found: list[DamagedStore] = []
    for name in store.columns:
        for chunk in range(store.chunks):
            try:
                values = store.read_chunk(name, chunk)
            except DamagedStore as error:
                found.append(error)
            else:
                rows = slice(chunk * store.rows_per_chunk, (chunk + 1) * store.rows_per_chunk)
                assert values.tobytes() == truth[name][rows].tobytes(), "a wrong value was handed out"
    return found


def complaints(path: AnyPath) -> str:
    """What `verify` says, by way of a list or of an error of damage."""
    try:
        return "\n".join(map(str, verify(path)))
    except DamagedStore as error:
        return str(error)
    except LaterFormat as error:  # the digit of the format's version was hit
        return str(error)


def write_bytes(path: AnyPath, offset: int, data: bytes) -> None:
    if not isinstance(path, Path):
        whole = path.read_bytes()
        path.write_bytes(whole[:offset] + data + whole[offset + len(data) :])
        return
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def read_bytes(path: AnyPath, offset: int, size: int) -> bytes:
    return path.read_bytes()[offset : offset + size]


def flip(case: Case, rng: np.random.Generator) -> str:
    name, _, offset, size = case.places()[rng.integers(len(case.places()))]
    at = offset + int(rng.integers(size))
    (old,) = read_bytes(case.path / name, at, 1)
    write_bytes(case.path / name, at, bytes([old ^ int(rng.integers(1, 256))]))
    return name


def delete_file(case: Case, rng: np.random.Generator) -> str:
    name = str(rng.choice(case.files()))
    (case.path / name).unlink()
    return name


def zero_chunk(case: Case, rng: np.random.Generator) -> str:
    name, _, offset, size = case.places()[rng.integers(len(case.places()))]
    write_bytes(case.path / name, offset, bytes(size))
    return name


def zero_tail(case: Case, rng: np.random.Generator) -> str:
    name = str(rng.choice(case.files()))
    first = max(offset + size for file, _, offset, size in case.places() if file == name)
    start = int(rng.integers(first))
    write_bytes(case.path / name, start, bytes((case.path / name).stat().st_size - start))
    return name


def swap(case: Case, rng: np.random.Generator, wanted: Callable[[tuple[str, str], tuple[str, str]], bool]) -> str:
    """Exchange two chunks of equal size and different bytes."""
    places = case.places()
    pairs = [
        (a, b)
        for a in places
        for b in places
        if a[3] == b[3] and wanted(a[:2], b[:2])
        and read_bytes(case.path / a[0], a[2], a[3]) != read_bytes(case.path / b[0], b[2], b[3])
    ]  # fmt: skip
    if not pairs:  # columns whose chunks have one size are rare
        return swap_files(case, rng)
    a, b = pairs[rng.integers(len(pairs))]
    one, two = read_bytes(case.path / a[0], a[2], a[3]), read_bytes(case.path / b[0], b[2], b[3])
    write_bytes(case.path / a[0], a[2], two)
    write_bytes(case.path / b[0], b[2], one)
    return a[0]


def swap_in_file(case: Case, rng: np.random.Generator) -> str:
    return swap(case, rng, lambda a, b: a == b)


def swap_between_shards(case: Case, rng: np.random.Generator) -> str:
    return swap(case, rng, lambda a, b: a[0] != b[0] and a[1] == b[1])


def swap_between_columns(case: Case, rng: np.random.Generator) -> str:
    return swap(case, rng, lambda a, b: a[1] != b[1])


def swap_files(case: Case, rng: np.random.Generator) -> str:
    one = str(rng.choice(case.files()))
    keep = (case.path / one).read_bytes()  # parts of a column that says the same of all rows have the same bytes
    two = str(rng.choice([name for name in case.files() if (case.path / name).read_bytes() != keep]))
    (case.path / one).write_bytes((case.path / two).read_bytes())
    (case.path / two).write_bytes(keep)
    return one


def truncate(case: Case, rng: np.random.Generator) -> str:
    name = str(rng.choice(case.files()))
    data = (case.path / name).read_bytes()
    (case.path / name).write_bytes(data[: int(rng.integers(len(data)))])
    return name


def extend(case: Case, rng: np.random.Generator) -> str:
    name = str(rng.choice(case.files()))
    with (case.path / name).open("ab") as file:
        file.write(rng.bytes(int(rng.integers(1, 100))))
    return name


def replay(case: Case, rng: np.random.Generator) -> str:
    """An older file of the same shard, of the same size where nothing is compressed."""
    soft = ("logits", "shift", "values", "top_logit", "data")
    names = [
        name for name in case.files() if name.partition("/")[0].rpartition(".")[2].startswith(soft) or "/" not in name
    ]
    name = str(
        rng.choice([name for name in names if not filecmp.cmp(case.older / name, case.path / name, shallow=False)])
    )
    shutil.copyfile(case.older / name, case.path / name)
    return name


def replay_with_record(case: Case, rng: np.random.Generator) -> str:
    """An older shard as a whole, with its own commit record."""
    shard = int(rng.integers(SHARDS))
    for name in [*case.store.payload(shard).files, f"commits/{shard:05}.json"]:
        (case.path / name).write_bytes((case.older / name).read_bytes())
    return f"commits/{shard:05}.json"


def link(case: Case, rng: np.random.Generator) -> str:
    """The same bytes, but behind a link."""
    name = str(rng.choice(case.files()))
    elsewhere = case.path.with_name("elsewhere")
    shutil.copyfile(case.path / name, elsewhere)
    (case.path / name).unlink()
    (case.path / name).symlink_to(elsewhere)
    return name


def shard_of(file: str) -> int | None:
    """The shard whose file this is: data-00002.arrow, logits/c.2.0.0, commits/00002.json; None of other files."""
    digits = Path(file).name.replace("-", ".").split(".")
    return next((int(part) for part in digits if part.isdigit()), None)


def leaves(value: object, at: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*at, key))
    else:
        yield at


def edit(path: Path, rng: np.random.Generator) -> tuple[object, ...]:
    """Change one leaf of a JSON file, plausibly."""
    data = json.loads(path.read_bytes())
    all_leaves = list(leaves(data))
    where = all_leaves[rng.integers(len(all_leaves))]
    at = data
    for key in where[:-1]:
        at = at[key]  # type: ignore[index]
    old = at[where[-1]]
    if isinstance(old, bool) or old is None or isinstance(old, dict | list):
        new: object = "x"
    elif isinstance(old, int | float):
        new = old + int(rng.integers(1, 40))
    else:
        new = old[:-1] + ("0" if old[-1:] != "0" else "1")
    at[where[-1]] = new  # type: ignore[index]
    path.write_bytes(json.dumps(data).encode())
    return where


def flip_anywhere(case: Case, rng: np.random.Generator) -> str:
    """Shard files with their indices and padding, commit records, plan, manifest, metadata of other readers; not the card."""
    names = [
        str(f.relative_to(case.path)) for f in sorted(case.path.rglob("*")) if f.is_file() and f.name != "README.md"
    ]
    name = str(rng.choice(names))
    at = int(rng.integers((case.path / name).stat().st_size))
    (old,) = read_bytes(case.path / name, at, 1)
    write_bytes(case.path / name, at, bytes([old ^ int(rng.integers(1, 256))]))
    return name


def edit_json(case: Case, rng: np.random.Generator) -> str:
    """A value of manifest, plan or a commit record, but for those that only `verify` compares, and the format, which is asked
    for first.
    """
    return edit_one_of(case, rng, "manifest.json", "plan.json", f"commits/{rng.integers(SHARDS):05}.json")


def edit_manifest(case: Case, rng: np.random.Generator) -> str:
    """The same of the manifest alone."""
    return edit_one_of(case, rng, "manifest.json")


def edit_one_of(case: Case, rng: np.random.Generator, *names: str) -> str:
    """Change a value in one of these files."""
    name = str(rng.choice(names))
    whole = (case.path / name).read_bytes()
    while edit(case.path / name, rng)[0] in (("about", "format") if name == "plan.json" else ("format",)):
        (case.path / name).write_bytes(whole)
    return name


def add_to_card(case: Case) -> None:
    """What people may do."""
    with (case.path / "README.md").open("a") as card:
        card.write("Of the teacher that Ada trained.\n")


def add_shard(case: Case, rng: np.random.Generator) -> str:
    """The files of a shard under the next number, with a record that says so."""
    shard, layout, files = int(rng.integers(SHARDS)), layout_of(case.store.spec), {}
    record = case.store.record(shard)
    for column in case.store.spec.columns:
        name, more = layout.path(column, shard), layout.path(column, SHARDS)
        shutil.copyfile(case.path / name, case.path / more)
        files[more] = record.payload.files[name]
    payload = msgspec.structs.replace(record.payload, shard=SHARDS, files=files)
    (case.path / record_name(SHARDS)).write_bytes(pretty_json(msgspec.structs.replace(record, payload=payload)))
    return record_name(SHARDS)


def list_shard(case: Case, rng: np.random.Generator) -> str:
    """The same, with a plan and a manifest that list it, sealed anew; the digest, which others have pinned, stays."""
    name, manifest = add_shard(case, rng), case.store.manifest
    payload, spec = read_json(folder_of(case.path), name, Commit).payload, manifest.spec
    rows = msgspec.structs.replace(spec.transfer_set, rows=spec.rows + spec.cut.rows_per_shard)
    spec = msgspec.structs.replace(spec, transfer_set=rows)
    (case.path / "plan.json").write_bytes(pretty_json(plan_of(spec, manifest.about)))
    write_manifest(
        case.path,
        msgspec.structs.replace(
            manifest,
            spec=spec,
            payloads=(*manifest.payloads, payload_digest(payload)),
            commits=(*manifest.commits, blake3_hex((case.path / name).read_bytes())),
        ),
    )
    return "manifest.json"


def write_manifest(path: AnyPath, manifest: Manifest) -> None:
    """Sealed anew, as whoever edits it may do."""
    sealed = msgspec.structs.replace(manifest, seal=manifest_seal(manifest))
    (path / "manifest.json").write_bytes(pretty_json(sealed))
