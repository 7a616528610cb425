"""The order of the commit protocol's steps, and whose files it moves. What kills, power cuts, full and failing disks and races
do to it: tests/faults.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from softlabels.errors import DamagedManifest
from softlabels.store import StoreWriter
from softlabels.store.paths import record_name
from tests.store.samples import KINDS, SPARSE, fill, make_spec, sample

sparse_too = pytest.mark.parametrize("kind", KINDS + SPARSE)


class Log:
    """Records flushes, links and renames by path, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str, str]] = []
        fsync, link, rename, replace = os.fsync, os.link, os.rename, os.replace

        def flush(handle: int) -> None:
            self.events.append(("flush", str(Path(f"/proc/self/fd/{handle}").readlink()), ""))
            fsync(handle)

        def named(kind: str, call: Callable[..., None]) -> Callable[..., None]:
            def wrapper(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int, **options: object) -> None:
                folders = [Path(f"/proc/self/fd/{handle}").readlink() for handle in (src_dir_fd, dst_dir_fd)]
                self.events.append((kind, str(folders[0] / source), str(folders[1] / target)))
                call(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **options)

            return wrapper

        patch.setattr(os, "fsync", flush)
        for name, call in [("link", link), ("rename", rename), ("replace", replace)]:
            patch.setattr(os, name, named(name, call))

    def flushed(self, path: Path | str, before: int, after: int = -1) -> bool:
        return any(event[:2] == ("flush", str(path)) for event in self.events[after + 1 : before])


@pytest.mark.on_disk("flushes and renames, seen at the system's calls")
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
    assert kinds_of["link"] == 3  # two records and the manifest
    assert kinds_of["rename"] >= 2 * (1 if kind.endswith("arrow") else 5)
    done = -1
    for at, (event, source, target) in enumerate(log.events):
        if event in ("link", "rename", "replace"):
            folder = Path(target).parent
            later = next(n for n, e in enumerate(log.events) if n > at and e[0] in ("acknowledged", "sealed"))
            assert log.flushed(source, at), f"{source} was not flushed before it became {target}"
            assert log.flushed(folder, later, at), f"{folder} was not flushed after {target} appeared"
        # The record: its shard's files lie flushed in staging, before; the record is flushed before any rename.
        if event == "link" and not target.endswith("manifest.json"):
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
    (path / record_name(0)).write_bytes(msgspec.json.encode(forged))
    with pytest.raises(Exception, match=r"00000.json does not describe shard 0 as the plan cuts it"):
        StoreWriter(path, spec)
    assert not (tmp_path / "victim").exists()


def test_the_record_of_another_writer_names_no_file_outside_the_store_either(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """It appears while a shard is being written, after what was there was checked."""
    data = sample(rng, 32)
    spec = make_spec(data, "arrow", rows_per_shard=16)
    path = tmp_path / "store"
    with StoreWriter(path, spec) as writer:
        fill(writer, data, [0])
        record = writer.record(0)
        files = {"../victim": next(iter(record.payload.files.values()))}
        payload = msgspec.structs.replace(record.payload, shard=1, files=files)
        (path / record_name(1)).write_bytes(msgspec.json.encode(msgspec.structs.replace(record, payload=payload)))
        staged = path / "staging" / record.write_id
        staged.mkdir()
        (staged / "0").write_bytes(bytes(next(iter(files.values())).size))
        with pytest.raises(DamagedManifest, match=r"00001.json is no record of shard 1"):
            fill(writer, data, [1])
    assert not (tmp_path / "victim").exists()
