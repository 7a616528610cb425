"""The corruption campaign: a sealed store is damaged in every way we can think of, many times each. Reading refuses every
damage that changes content, naming shard and file, before one wrong value is handed out; `verify` finds every changed byte.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.errors import DamagedBasis, DamagedManifest, DamagedStore, SoftLabelsError, StorePathError
from pipeline.store import Store, StoreWriter, open_store
from pipeline.store.basis import BASIS_FILE
from pipeline.store.digest import blake3_hex, manifest_seal
from pipeline.store.layouts import layout_of
from pipeline.store.spec import Manifest, pretty_json
from pipeline.store.verify import verify
from tests.store.samples import KINDS, SPARSE, Sample, make_spec, require_sound, sample, write_store

TRIALS = 50
SHARDS = 3


@dataclass(frozen=True)
class Case:
    """A sealed store, what it holds, and an earlier store of the same specification with other logits."""

    store: Store
    data: Sample
    older: Path

    @property
    def path(self) -> Path:
        return self.store.path

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


@pytest.fixture(scope="module", params=KINDS + SPARSE)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Four classes and two members, so that chunks of different columns have the same size."""
    rng = np.random.default_rng()
    root = tmp_path_factory.mktemp(request.param)
    data = sample(rng, SHARDS * 48, request.param, classes=4 if request.param in KINDS else 7)
    older = data.changed(1.25)
    spec = make_spec(data, request.param)
    write_store(root / "older", older, spec)
    return Case(write_store(root / "store", data, spec), data, root / "older")


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Put every file back as it was."""
    keep = path.with_name("pristine")
    if not keep.exists():
        shutil.copytree(path, keep)
    try:
        yield
    finally:
        for file in path.rglob("*"):
            if file.is_symlink():
                file.unlink()
        for file in keep.rglob("*"):
            target = path / file.relative_to(keep)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            elif not target.exists() or target.read_bytes() != file.read_bytes():
                target.write_bytes(file.read_bytes())


def refusals(case: Case) -> list[DamagedStore]:
    """Read everything chunk by chunk: the refusals met. Whatever is handed out must be the truth."""
    truth = case.data.stored()
    try:
        store = open_store(case.path)
    except DamagedStore as error:
        return [error]
    found = []
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


def read_all(path: Path) -> None:
    """Everything that a store holds."""
    store = open_store(path)
    assert store.basis is None or store.spec.basis_shape is not None
    for name in store.columns:
        store.column(name)


def complaints(path: Path) -> str:
    """What `verify` says, by way of a list or of an error of damage."""
    try:
        return "\n".join(map(str, verify(path)))
    except DamagedStore as error:
        return str(error)
    except StorePathError as error:
        return later_format(error)


def later_format(error: StorePathError) -> str:
    """The one other refusal: the digit of the format's version was hit."""
    if "of store format" not in str(error):
        raise error
    return str(error)


def write_bytes(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def read_bytes(path: Path, offset: int, size: int) -> bytes:
    return path.read_bytes()[offset : offset + size]


# Each mutation damages content, and returns the file that must be named.


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
    if case.store.spec.compression == "zstd":  # compressed columns rarely have chunks of one size
        return swap_files(case, rng)
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
    names = [name for name in case.files() if name.startswith(("logits", "shift", "top_logit", "data"))]
    name = str(
        rng.choice([name for name in names if not filecmp.cmp(case.older / name, case.path / name, shallow=False)])
    )
    shutil.copyfile(case.older / name, case.path / name)
    return name


def replay_with_record(case: Case, rng: np.random.Generator) -> str:
    """An older shard as a whole, with its own commit record."""
    shard = int(rng.integers(SHARDS))
    for name in [*case.store.payload(shard).files, f"commits/{shard:05}.json"]:
        shutil.copyfile(case.older / name, case.path / name)
    return f"commits/{shard:05}.json"


def link(case: Case, rng: np.random.Generator) -> str:
    """The same bytes, but behind a link."""
    name = str(rng.choice(case.files()))
    elsewhere = case.path.with_name("elsewhere")
    shutil.copyfile(case.path / name, elsewhere)
    (case.path / name).unlink()
    (case.path / name).symlink_to(elsewhere)
    return name


CONTENT = [
    flip, delete_file, zero_chunk, zero_tail, swap_in_file, swap_between_shards, swap_between_columns, swap_files, truncate,
    extend, replay, replay_with_record, link,
]  # fmt: skip


@pytest.mark.parametrize("mutate", CONTENT, ids=lambda mutate: mutate.__name__)
def test_damaged_content_is_refused(
    case: Case, rng: np.random.Generator, mutate: Callable[[Case, np.random.Generator], str]
) -> None:
    for _ in range(TRIALS):
        with restored(case.path):
            file = mutate(case, rng)
            found = refusals(case)
            assert found, f"{file}: damage was not seen"
            about = [str(error) for error in found]
            assert any(file in text and f"shard {case_shard(file)}" in text for text in about), (file, about)
            assert {error.exit_code for error in found} == {3}
            said = complaints(case.path)
            assert file in said
            assert f"shard {case_shard(file)}" in said


def case_shard(file: str) -> int:
    """The shard whose file this is: data-00002.arrow, logits/c.2.0.0, commits/00002.json."""
    digits = Path(file).name.replace("-", ".").split(".")
    return int(next(part for part in digits if part.isdigit()))


def test_every_changed_byte_of_every_file_is_found(case: Case, rng: np.random.Generator) -> None:
    """Shard files with their indices and padding, commit records, plan, manifest, metadata of other readers."""
    names = [str(f.relative_to(case.path)) for f in case.path.rglob("*") if f.is_file() and f.name != "README.md"]
    for name in names * -(-3 * TRIALS // len(names)):
        with restored(case.path):
            size = (case.path / name).stat().st_size
            at = int(rng.integers(size))
            (old,) = read_bytes(case.path / name, at, 1)
            write_bytes(case.path / name, at, bytes([old ^ int(rng.integers(1, 256))]))
            said = complaints(case.path)
            assert Path(name).name in said, f"byte {at} of {name}: {said!r}"
            try:
                refusals(case)  # what is handed out is true in any case
            except StorePathError as error:
                later_format(error)


def test_a_sound_store_is_sound(case: Case) -> None:
    assert verify(case.path) == []
    require_sound(case.path)
    assert refusals(case) == []


def test_without_the_check_a_flip_does_come_through(case: Case, rng: np.random.Generator) -> None:
    """The negative control: the trials above can fail."""
    if case.store.spec.compression == "zstd":
        pytest.skip("most flips do not decompress")
    truth, wrong = case.data.stored(), 0
    for _ in range(TRIALS):
        with restored(case.path):
            flip(case, rng)
            store = open_store(case.path, check="never")
            with suppress(DamagedStore):  # numbers of positions that cannot be
                wrong += any(store.column(name).tobytes() != truth[name].tobytes() for name in store.columns)
    assert wrong > TRIALS / 2


def test_a_chunk_is_checked_once_or_always(case: Case) -> None:
    """`first` trusts what it has seen once; `always` does not."""
    name, column, offset, size = case.places()[0]
    with restored(case.path):
        first, always = open_store(case.path), open_store(case.path, check="always")
        for store in (first, always):
            store.read_chunk(column, 0)
        byte = read_bytes(case.path / name, offset + size // 2, 1)[0]
        write_bytes(case.path / name, offset + size // 2, bytes([byte ^ 1]))
        if case.store.spec.compression == "none":
            first.read_chunk(column, 0)
        with pytest.raises(DamagedStore, match="shard 0"):
            always.read_chunk(column, 0)
        with pytest.raises(DamagedStore, match="shard 0"):
            open_store(case.path).read_chunk(column, 0)


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


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "commits/00001.json"])
def test_edited_json_is_refused(case: Case, rng: np.random.Generator, name: str) -> None:
    for _ in range(TRIALS):
        with restored(case.path):
            where = edit(case.path / name, rng)
            said = complaints(case.path)
            assert Path(name).name in said, where
            if where[0] == "about":  # words for people: in the plan they are only compared by `verify`
                continue
            if where[0] == "format":
                continue
            found = refusals(case)
            assert found, where
            assert all(Path(name).name in str(error) for error in found), where


def test_a_manifest_sealed_again_after_an_edit(case: Case, rng: np.random.Generator) -> None:
    """Whoever edits may also compute the seal anew. What a consumer pins, the digest, cannot be kept then: either opening
    refuses, or `verify` finds it.
    """
    manifest = case.store.manifest
    wrong = "0" * 64
    edits = {
        "digest": wrong,
        "content_digest": wrong,
        "bytes": manifest.bytes + 1,
        "bytes_per_position": 3.0,
        "payloads": (wrong, *manifest.payloads[1:]),
        "commits": (wrong, *manifest.commits[1:]),
        "fidelity": {t: msgspec.structs.replace(line, kl_mean=0.0) for t, line in manifest.fidelity.items()},
        "spec": msgspec.structs.replace(
            manifest.spec, transfer_set=msgspec.structs.replace(manifest.spec.transfer_set, content_keys=wrong)
        ),
    }
    for field, value in edits.items():
        with restored(case.path):
            forged = msgspec.structs.replace(manifest, **{field: value})
            write_manifest(case.path, forged)
            assert complaints(case.path), field
            if field in ("digest", "payloads", "spec"):
                with pytest.raises(DamagedManifest):
                    open_store(case.path)


def test_a_forged_shard_cannot_keep_the_digest(case: Case, rng: np.random.Generator) -> None:
    """Another shard, its own record, manifest and seal made to fit: the digest that was pinned is gone all the same."""
    with restored(case.path):
        replay_with_record(case, rng)
        commits = tuple(
            blake3_hex((case.path / "commits" / f"{shard:05}.json").read_bytes()) for shard in range(SHARDS)
        )
        write_manifest(case.path, msgspec.structs.replace(case.store.manifest, commits=commits))
        found = refusals(case)
        assert found
        assert all("not what the store's digest was taken of" in str(error) for error in found)


def write_manifest(path: Path, manifest: Manifest) -> None:
    sealed = msgspec.structs.replace(manifest, seal=manifest_seal(manifest))
    (path / "manifest.json").write_bytes(pretty_json(sealed))


@pytest.mark.parametrize(
    "name",
    ["plan.json", "manifest.json", "commits", "commits/00001.json", "logits", "top_class", "tail_basis", BASIS_FILE],
)
def test_links_and_missing_parts(case: Case, name: str, tmp_path: Path) -> None:
    if not (case.path / name).exists():
        pytest.skip("this store has no such file")
    with restored(case.path):
        target = tmp_path / "elsewhere"
        (case.path / name).rename(target)
        if name != "manifest.json":  # without it the store is an unfinished one
            with pytest.raises(SoftLabelsError) as caught:
                read_all(case.path)
            assert isinstance(caught.value, DamagedStore)
            assert Path(name).name in str(caught.value)
        (case.path / name).symlink_to(target)
        with pytest.raises(DamagedStore, match="is a link"):
            read_all(case.path)
        assert all("is a link" in str(error) for error in refusals(case))
        assert "is a link" in complaints(case.path)


def test_files_that_do_not_belong(case: Case) -> None:
    for name in ("evil.py", "commits/00099.json", "logits/c.9.0.0", "data-00009.arrow"):
        if not (case.path / name).parent.exists():
            continue
        with restored(case.path):
            (case.path / name).write_bytes(b"x")
            assert refusals(case) == []
            (problem,) = verify(case.path)
            assert (problem.file, problem.shard) == (name, None)
            assert "does not belong to the store; delete it" in str(problem)
            with pytest.raises(DamagedStore, match="is damaged in 1 places"):
                require_sound(case.path)
            (case.path / name).unlink()


def test_a_damaged_basis_is_refused(case: Case, rng: np.random.Generator) -> None:
    """Flipped, cut, extended, gone or another store's: no reader gets it, and `verify` names it."""
    whole = (case.path / BASIS_FILE).read_bytes() if (case.path / BASIS_FILE).exists() else b""
    if not whole:
        pytest.skip("dense labels have no basis")
    at = int(rng.integers(len(whole)))
    flipped = whole[:at] + bytes([whole[at] ^ int(rng.integers(1, 256))]) + whole[at + 1 :]
    for data in (flipped, whole[:-1], whole[:-2], whole + b"00", bytes(len(whole)), whole[2:] + whole[:2], b"", None):
        with restored(case.path):
            (case.path / BASIS_FILE).unlink()
            if data is not None:
                (case.path / BASIS_FILE).write_bytes(data)
            with pytest.raises(DamagedBasis, match=BASIS_FILE):
                _ = open_store(case.path).basis
            with pytest.raises(DamagedBasis, match=BASIS_FILE):
                open_store(case.path).log_probs([0], temperature=2.0)
            (problem,) = verify(case.path)
            assert (problem.file, problem.shard) == (BASIS_FILE, None)
            with pytest.raises(DamagedBasis):
                StoreWriter(case.path, case.store.spec)
