"""Real writer processes that are killed, or that race each other. Run as `python -m tests.store.kills ...`; forks of one warm
interpreter, so that a kill costs milliseconds; prints one JSON line of what it saw. Imports no torch.

    kills KIND KILLS SEED [--naive]     SIGKILL at random moments, resumed until done (`--naive`: without the commit protocol)
    races KIND TRIALS SEED              several writers with different bytes on all shards at once
    fill KIND PATH SEED                 one plain writer, to be killed from outside
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np

from pipeline.store import StoreWriter, open_store, writer
from pipeline.store.basis import BASIS_FILE, read_basis
from pipeline.store.commit import create_only, record_path
from pipeline.store.digest import blake3_hex
from pipeline.store.durable import make_folder, write_file
from pipeline.store.spec import Commit, Plan, pretty_json, read_json
from pipeline.store.verify import verify
from tests.store.samples import Sample, fill, make_spec, sample, write_store

ROWS, SHARDS, WRITERS = 16 * 7 + 3, 4, 4


def rows_of(seed: int, kind: str) -> Sample:
    return sample(np.random.default_rng(seed), ROWS, kind)


def write(
    path: Path, data: Sample, kind: str, acknowledge: Callable[[int], object], order: list[int] | None = None
) -> None:
    """Write what is pending, saying so after each shard (-1: sealed)."""
    with StoreWriter(path, make_spec(data, kind, rows_per_shard=32), basis=data.basis) as store:
        for shard in order or store.pending:
            if shard in store.pending:
                fill(store, data, [shard])
                acknowledge(shard)
        store.seal()
        acknowledge(-1)


def naive(path: Path, files: dict[int, dict[str, bytes]], record: Commit) -> None:
    """What a writer without the protocol would do: the record, then the files under their final names."""
    shard = record.payload.shard
    staged = path / "staging" / record.write_id
    make_folder(staged.parent)
    write_file(staged, pretty_json(record))
    create_only(staged, record_path(path, shard))
    for name, data in files[shard].items():
        make_folder((path / name).parent)
        for part in range(0, len(data), 512):  # a slow disk
            time.sleep(0.0005)
            with (path / name).open("ab") as file:
                file.write(data[part : part + 512])


def without_protocol() -> None:
    """Take the defence away: the negative control of the trial."""
    files: dict[int, dict[str, bytes]] = {}
    encode = {}
    from pipeline.store import arrow_layout, zarr_layout

    for layout in (arrow_layout.ArrowLayout, zarr_layout.ZarrLayout):
        encode[layout] = layout.encode

        def keeping(self, spec, shard, arrays):  # type: ignore[no-untyped-def]
            encoded = encode[type(self)](self, spec, shard, arrays)
            files[shard] = encoded.files
            return encoded

        layout.encode = keeping  # type: ignore[method-assign]
    writer.stage = lambda path, files_: STAGE(path, files_) if "plan.json" in files_ else os.urandom(16).hex()  # type: ignore[attr-defined]
    writer.commit = lambda path, record: naive(path, files, record)  # type: ignore[attr-defined]


STAGE = writer.stage  # type: ignore[attr-defined]


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child; its error, if any, goes to our standard error and makes its exit code 1."""
    child = os.fork()
    if child == 0:
        _leave(work)
    return child


def _leave(work: Callable[[], None]) -> NoReturn:
    code = 0
    try:
        work()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def visible(path: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file outside staging."""
    return {
        str(file.relative_to(path)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file() and "staging" not in file.relative_to(path).parts
    }


def faults(path: Path, acknowledged: set[int], before: dict[str, tuple[int, int]]) -> list[str]:
    """What is wrong with an unfinished store after a kill."""
    found = []
    expected: dict[str, str] = {}
    for shard in range(SHARDS):
        if record_path(path, shard).exists():
            record = msgspec.json.decode(record_path(path, shard).read_bytes(), type=Commit)
            expected |= {name: file.blake3 for name, file in record.payload.files.items()}
            if shard in acknowledged:
                found += [
                    f"shard {shard}: {name} missing" for name in record.payload.files if not (path / name).exists()
                ]
        elif shard in acknowledged:
            found.append(f"acknowledged shard {shard} is gone")
    now = visible(path)
    for name in now:
        if name.startswith(("commits/", "plan.json", "manifest.json", "README.md")) or name.endswith(".json"):
            continue
        if name == BASIS_FILE:  # there before the plan is, and whole
            spec = read_json(path / "plan.json", Plan).spec if "plan.json" in now else None
            found += [f"{name} is not what the plan names"] if spec and read_basis(path, spec) is None else []
            continue
        if name not in expected:
            found.append(f"{name} is visible but not recorded")
        elif blake3_hex((path / name).read_bytes()) != expected[name]:
            found.append(f"{name} is visible and wrong")
    data = {n: v for n, v in before.items() if not n.endswith(".json") or n.startswith("commits/")}
    found += [
        f"{name} was written again" for name in data if name in now and now[name] != data[name] and name != "README.md"
    ]
    return found


def kills(kind: str, wanted: int, seed: int) -> dict[str, object]:
    """Stores whose writers are killed again and again, each until one gets through by luck or eight were killed; goes on
    until `wanted` writers were killed or something is wrong.
    """
    rng = np.random.default_rng(seed)
    data = rows_of(seed, kind)
    problems: list[str] = []
    killed, moments = 0, set()
    with tempfile.TemporaryDirectory() as folder:
        digest = write_store(Path(folder) / "whole", data, make_spec(data, kind, rows_per_shard=32)).digest
        usual = min(_seconds(Path(folder) / f"timed{n}", data, kind) for n in range(3))
        for trial in itertools.count():
            if killed >= wanted or problems:
                break
            path = Path(folder) / str(trial)
            acknowledged: set[int] = set()
            for attempt in range(9):
                before = visible(path)
                delay = 3600.0 if attempt == 8 else float(rng.uniform(0, usual * 1.1))
                code, said = _killed_after(delay, path, data, kind)
                acknowledged |= said
                problems += [f"trial {trial}: {what}" for what in faults(path, acknowledged - {-1}, before)]
                if code not in (0, -signal.SIGKILL):
                    problems.append(f"trial {trial}: the writer failed with {code}")
                    break
                if code == 0:
                    break
                killed += 1
                moments.add((len(said), len(acknowledged)))
            else:
                problems.append(f"trial {trial}: never finished")
            try:
                problems += [f"trial {trial}: {problem}" for problem in verify(path)]
                if open_store(path).digest != digest:
                    problems.append(f"trial {trial}: another digest")
            except Exception as error:
                problems.append(f"trial {trial}: {error}")
    return {"kills": killed, "moments": len(moments), "problems": problems}


def _seconds(path: Path, data: Sample, kind: str) -> float:
    started = time.monotonic()
    os.waitpid(fork(lambda: write(path, data, kind, lambda shard: None)), 0)
    return time.monotonic() - started


def _killed_after(delay: float, path: Path, data: Sample, kind: str) -> tuple[int, set[int]]:
    """Exit code of a writer that gets SIGKILL after `delay` seconds, and the shards that it acknowledged."""
    ours, theirs = os.pipe()
    child = fork(lambda: write(path, data, kind, lambda shard: os.write(theirs, bytes([shard % 256]))))
    os.close(theirs)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.0002)
    else:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as pipe:
        said = {byte if byte < 128 else -1 for byte in pipe.read()}
    return os.waitstatus_to_exitcode(status), said


def races(kind: str, trials: int, seed: int) -> dict[str, object]:
    """Writers with the same keys and different logits, on every shard at once, in different orders."""
    data = rows_of(seed, kind)
    versions = [data.changed(1 + n / 7) for n in range(WRITERS)]
    problems: list[str] = []
    winners: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        for trial in range(trials):
            path = Path(folder) / str(trial)
            orders = [np.random.default_rng([seed, trial, n]).permutation(SHARDS).tolist() for n in range(WRITERS)]
            codes = _race(path, versions, orders, kind)
            if any(codes):
                problems.append(f"trial {trial}: exit codes {codes}")
                continue
            problems += [f"trial {trial}: {problem}" for problem in verify(path)]
            for shard, owners in _owners(path, versions).items():
                winners |= set(owners)
                if len(owners) != 1:
                    problems.append(f"trial {trial}: shard {shard} holds the bytes of writers {owners}")
            if (path / "staging").exists():
                problems.append(f"trial {trial}: staging is left: {list((path / 'staging').iterdir())}")
    return {"winners": len(winners), "problems": problems}


def _race(path: Path, versions: list[Sample], orders: list[list[int]], kind: str) -> list[int]:
    """Exit codes of writers that start together."""
    ours, theirs = os.pipe()

    def start(version: Sample, order: list[int]) -> int:
        def work() -> None:
            os.close(theirs)
            os.read(ours, 1)  # all start when the parent closes its end
            write(path, version, kind, lambda shard: None, order)

        return fork(work)

    children = [start(version, order) for version, order in zip(versions, orders, strict=True)]
    os.close(theirs)
    os.close(ours)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _owners(path: Path, versions: list[Sample]) -> dict[int, list[int]]:
    """Whose logits stand in each shard."""
    store = open_store(path)
    columns = {name: store.column(name) for name in store.soft_columns}
    found = {}
    for shard in range(SHARDS):
        rows = np.array(store.spec.shard_rows(shard))
        found[shard] = [
            n for n, version in enumerate(versions)
            if all(version[rows].stored()[name].tobytes() == values[rows].tobytes() for name, values in columns.items())
        ]  # fmt: skip
    return found


def main(arguments: list[str]) -> None:
    task, kind, what, seed = arguments[:4]
    if task == "fill":
        write(Path(what), rows_of(int(seed), kind), kind, lambda shard: print(shard, flush=True))
        return
    if "--naive" in arguments:
        without_protocol()
    run = {"kills": kills, "races": races}[task]
    print(json.dumps(run(kind, int(what), int(seed))))


if __name__ == "__main__":
    main(sys.argv[1:])
