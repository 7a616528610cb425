"""The commit protocol under death, races, full disks and I/O errors: what was acknowledged is there and right, nothing
partial is visible, and whoever goes on gets the digest of an unbroken run.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.errors import DiskFull, StorageError
from pipeline.store import StoreWriter
from pipeline.store.commit import record_path
from pipeline.store.digest import blake3_hex
from pipeline.store.spec import Commit, Spec
from pipeline.store.verify import verify
from tests.store import kills
from tests.store.samples import KINDS, SPARSE, Sample, assert_holds, fill, make_spec, sample, write_store

ROOT = Path(__file__).parents[2]
kinds = pytest.mark.parametrize("kind", KINDS)
sparse_too = pytest.mark.parametrize("kind", KINDS + SPARSE)


def trial(*arguments: object) -> dict[str, object]:
    """What `tests.store.kills` reports."""
    command = [sys.executable, "-m", "tests.store.kills", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return report | {"errors": done.stderr}


@pytest.mark.parametrize("wanted", [20, pytest.param(100, marks=pytest.mark.slow)])
@sparse_too
def test_killed_writers_lose_nothing(rng: np.random.Generator, kind: str, wanted: int) -> None:
    report = trial("kills", kind, wanted, rng.integers(1 << 30))
    assert report["problems"] == [], report["errors"]
    assert report["kills"] >= wanted  # type: ignore[operator]
    assert report["moments"] > 2  # type: ignore[operator]  # deaths at different stages


@kinds
def test_without_the_protocol_kills_do_damage(rng: np.random.Generator, kind: str) -> None:
    """The negative control: record first, then files under their final names."""
    assert trial("kills", kind, 100, rng.integers(1 << 30), "--naive")["problems"]


@pytest.mark.parametrize("trials", [4, pytest.param(20, marks=pytest.mark.slow)])
@sparse_too
def test_of_several_writers_one_wins_each_shard(rng: np.random.Generator, kind: str, trials: int) -> None:
    report = trial("races", kind, trials, rng.integers(1 << 30))
    assert report["problems"] == [], report["errors"]
    assert report["winners"] > 1  # type: ignore[operator]  # it was a race


def assert_nothing_partial(path: Path) -> set[int]:
    """Every visible shard file is recorded and right; returns the shards that are recorded."""
    recorded, expected = set(), {}
    for shard in range(8):
        if record_path(path, shard).exists():
            recorded.add(shard)
            record = msgspec.json.decode(record_path(path, shard).read_bytes(), type=Commit)
            expected |= {name: file.blake3 for name, file in record.payload.files.items()}
    for file in path.rglob("*"):
        name = str(file.relative_to(path))
        if (
            file.is_file()
            and not name.startswith(("commits/", "staging/", "tail_"))
            and file.suffix not in (".json", ".md")
        ):
            assert blake3_hex(file.read_bytes()) == expected[name]
    for name in ("plan.json", "manifest.json"):
        if (path / name).exists():
            json.loads((path / name).read_bytes())
    return recorded


def go_on(path: Path, data: Sample, spec: Spec, digest: str) -> None:
    """The same command again, with nothing in its way."""
    store = write_store(path, data, spec)
    assert store.digest == digest
    assert verify(path) == []
    assert_holds(store, data)


def write_until_refused(path: Path, data: Sample, spec: Spec) -> tuple[Exception | None, set[int]]:
    """The error that stopped a writer, and the shards it had acknowledged by then."""
    acknowledged = set()
    try:
        with StoreWriter(path, spec, basis=data.basis) as writer:
            for shard in writer.pending:
                fill(writer, data, [shard])
                acknowledged.add(shard)
            writer.seal()
    except (DiskFull, StorageError) as error:
        return error, acknowledged
    return None, acknowledged


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@sparse_too
def test_a_file_size_limit_is_a_full_disk(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data = sample(rng, 130, kind)
    spec = make_spec(data, kind)
    digest = write_store(tmp_path / "whole", data, spec).digest
    largest = max(file.stat().st_size for file in (tmp_path / "whole").rglob("*"))
    refused = 0
    for size in sorted({0, 1, 900, 4000, largest - 1, largest, *rng.integers(0, largest + 100, 8).tolist()}):
        path = tmp_path / str(size)
        with file_size_limit(size):
            error, acknowledged = write_until_refused(path, data, spec)
        if size < largest:
            assert isinstance(error, DiskFull), size
            assert error.exit_code == 75
            assert "make room and run the same command again; finished shards are kept" in str(error)
            refused += 1
        else:
            assert error is None
        assert acknowledged <= assert_nothing_partial(path)
        go_on(path, data, spec, digest)
    assert refused > 3


@pytest.mark.parametrize("sizes", [4, pytest.param(15, marks=pytest.mark.slow)])
@kinds
def test_a_small_disk(tmp_path: Path, rng: np.random.Generator, kind: str, sizes: int) -> None:
    data = sample(rng, 16 * 60)
    spec = make_spec(data, kind, rows_per_shard=160)
    digest = write_store(tmp_path / "whole", data, spec).digest
    room = sum(-(-file.stat().st_size // 4096) * 4096 for file in (tmp_path / "whole").rglob("*")) // 1024
    disk = tmp_path / "disk"
    disk.mkdir()
    full = 0
    for size in [room // 3, *rng.integers(16, int(room * 1.1), sizes - 1)]:  # the first is too small for certain
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], capture_output=True
        ).returncode:
            pytest.skip("this user may not mount a small disk")
        try:
            error, acknowledged = write_until_refused(disk / "store", data, spec)
            full += error is not None
            assert error is None or isinstance(error, DiskFull)
            assert acknowledged <= assert_nothing_partial(disk / "store")
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            go_on(disk / "store", data, spec, digest)
        finally:
            subprocess.run(["umount", disk], check=True)
    assert full > 0


class Failing:
    """Replaces a system call; the `nth` one fails."""

    def __init__(self, call: Callable[..., object], nth: int, code: int) -> None:
        self.call, self.left, self.code, self.failed = call, nth, code, False

    def __call__(self, *args: object, **options: object) -> object:
        self.left -= 1
        if self.left == 0:
            self.failed = True
            raise OSError(self.code, os.strerror(self.code))
        return self.call(*args, **options)


@pytest.mark.parametrize("call", ["fsync", "link", "rename", "mkdir"])
@sparse_too
def test_an_io_error_is_never_acknowledged(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: str, call: str
) -> None:
    data = sample(rng, 32, kind)
    spec = make_spec(data, kind, rows_per_shard=16)
    digest = write_store(tmp_path / "whole", data, spec).digest
    nth = 0
    while True:
        nth += 1 if call != "fsync" else int(rng.integers(1, 4))
        path, code = tmp_path / str(nth), int(rng.choice([errno.EIO, errno.ENOSPC]))
        failing = Failing(getattr(os, call), nth, code)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            error, acknowledged = write_until_refused(path, data, spec)
        if not failing.failed:
            assert error is None
            break
        if error is None:  # a leftover could not be removed, or somebody had made the folder: nothing was lost
            assert verify(path) == []
            continue
        assert isinstance(error, DiskFull if code == errno.ENOSPC else StorageError)
        assert error.exit_code == (75 if code == errno.ENOSPC else 74)
        if path.exists():
            assert acknowledged <= assert_nothing_partial(path)
        go_on(path, data, spec, digest)
    assert nth > 2


class Log:
    """Records flushes, links and renames by path, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str, str]] = []
        fsync, link, rename, replace = os.fsync, os.link, os.rename, os.replace

        def flush(handle: int) -> None:
            self.events.append(("flush", str(Path(f"/proc/self/fd/{handle}").readlink()), ""))
            fsync(handle)

        def named(kind: str, call: Callable[..., None]) -> Callable[..., None]:
            def wrapper(source: object, target: object, **options: object) -> None:
                self.events.append((kind, str(source), str(target)))
                call(source, target, **options)

            return wrapper

        patch.setattr(os, "fsync", flush)
        for name, call in [("link", link), ("rename", rename), ("replace", replace)]:
            patch.setattr(os, name, named(name, call))

    def flushed(self, path: Path | str, before: int, after: int = -1) -> bool:
        return any(event[:2] == ("flush", str(path)) for event in self.events[after + 1 : before])


@sparse_too
def test_names_appear_only_after_their_content_is_flushed(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What a power cut may tear: every link and rename comes after the flush of its file, and the folder is flushed before
    the next step.
    """
    data = sample(rng, 32, kind)
    path = tmp_path / "store"
    with StoreWriter(path, make_spec(data, kind, rows_per_shard=16), basis=data.basis) as writer:
        log = Log(monkeypatch)
        for shard in writer.pending:
            fill(writer, data, [shard])
            log.events.append(("acknowledged", str(shard), ""))
        writer.seal()
        log.events.append(("sealed", "", ""))
    kinds_of = Counter(event[0] for event in log.events)
    assert kinds_of["link"] == 2
    assert kinds_of["rename"] >= 2 * (1 if kind.endswith("arrow") else 5)
    done = -1
    for at, (event, source, target) in enumerate(log.events):
        if event in ("link", "rename", "replace"):
            folder = Path(target).parent
            later = next(n for n, e in enumerate(log.events) if n > at and e[0] in ("acknowledged", "sealed"))
            assert log.flushed(source, at), f"{source} was not flushed before it became {target}"
            assert log.flushed(folder, later, at), f"{folder} was not flushed after {target} appeared"
        if (
            event == "link"
        ):  # the record: its shard's files lie flushed in staging, before; the record is flushed before any rename
            staged = Path(source).parent
            assert log.flushed(staged, at), "the staging folder was not flushed"
            first = next(n for n, e in enumerate(log.events) if n > at and e[0] in ("rename", "acknowledged"))
            assert log.flushed(path / "commits", first, at)
        done = at
    assert done > 10
    manifest = next(n for n, e in enumerate(log.events) if e[2].endswith("manifest.json"))
    assert log.flushed(path / "commits", manifest, next(n for n, e in enumerate(log.events) if e[0] == "acknowledged"))


def test_a_record_names_no_file_outside_the_store(tmp_path: Path, rng: np.random.Generator) -> None:
    """An unfinished store from a stranger: resuming it must not move files about."""
    data = sample(rng, 32)
    spec = make_spec(data, "arrow", rows_per_shard=16)
    path = tmp_path / "store"
    with StoreWriter(path, spec) as writer:
        fill(writer, data, [0])
        record = writer.record(0)
    staged = path / "staging" / record.write_id
    staged.mkdir()
    (staged / "0").write_bytes(b"evil")
    files = {"../victim": next(iter(record.payload.files.values()))}
    forged = msgspec.structs.replace(record, payload=msgspec.structs.replace(record.payload, files=files))
    record_path(path, 0).write_bytes(msgspec.json.encode(forged))
    with pytest.raises(Exception, match=r"00000.json does not describe shard 0 as the plan cuts it"):
        StoreWriter(path, spec)
    assert not (tmp_path / "victim").exists()


STRACE = shutil.which("strace")


def writes_with(tool: list[str], kind: str, path: Path, seed: int) -> subprocess.CompletedProcess[str]:
    command = [*tool, sys.executable, "-m", "tests.store.kills", "fill", kind, str(path), str(seed)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def sweep(tmp_path: Path, rng: np.random.Generator, kind: str, call: str, moments: list[int]) -> int:
    """Kill a writer at the n-th `call`, for each n; how many were hit."""
    seed = int(rng.integers(1 << 30))
    data = kills.rows_of(seed, kind)
    spec = make_spec(data, kind, rows_per_shard=32)
    digest = write_store(tmp_path / "whole", data, spec).digest
    hit = 0
    for nth in moments:
        path = tmp_path / f"{call}{nth}"
        assert STRACE is not None
        inject = [
            STRACE,
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:signal=SIGKILL:when={nth}",
        ]
        done = writes_with(inject, kind, path, seed)
        if "ptrace" in done.stderr or "PTRACE" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr[:80]}")
        assert done.returncode in (0, -9, 137), done.stderr
        hit += done.returncode != 0
        acknowledged = {int(line) for line in done.stdout.split()} - {-1}
        assert acknowledged <= assert_nothing_partial(path)
        go_on(path, data, spec, digest)
    return hit


@pytest.mark.skipif(STRACE is None, reason="strace is not on this machine")
@pytest.mark.parametrize("moments", [2, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", ["write", "fsync", "link", "rename"])
@pytest.mark.parametrize("kind", ["zarr", "arrow"])
def test_killed_at_a_system_call(tmp_path: Path, rng: np.random.Generator, kind: str, call: str, moments: int) -> None:
    counted = {"link": 5, "rename": 8, "fsync": 42} if kind == "arrow" else {"link": 5, "rename": 28, "fsync": 91}
    later = rng.permutation(np.arange(2, counted.get(call, 40) + 1))[: moments - 1]
    assert sweep(tmp_path, rng, kind, call, [1, *later.tolist()]) > 0
