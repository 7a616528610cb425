"""What `repair` does with each kind of damage, what it refuses, and how the store is bound until it is whole again. Many more
kinds of damage, and its death at every moment, are tried in tests/faults/trials_damage.py.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
import zarr

from softlabels.errors import (
    DamagedBasis,
    DamagedManifest,
    DamagedShard,
    DamagedStore,
    MissingShard,
    RunExists,
    SpecMismatch,
    StorageError,
    StorePathError,
    UnsealedStore,
    UserError,
)
from softlabels.store import StoreWriter, open_store
from softlabels.store import repair as repairing
from softlabels.store.basis import resumable_basis
from softlabels.store.layouts import layout_of
from softlabels.store.paths import BASIS_FILE, CLAIMS
from softlabels.store.repair import Repaired, named_digest, repair
from softlabels.store.spec import FORMAT
from softlabels.store.verify import verify
from softlabels.system.files import Presence
from softlabels.system.places import folder_of
from tests.store.places import AnyPath, copy, in_memory, lock_left, on_disk, remove_folder
from tests.store.samples import KINDS, SPARSE, Sample, assert_holds, fill, make_spec, sample, write_store
from tests.store.test_writer import snapshot

GOLDEN = Path(__file__).parent / "golden"
kinds = pytest.mark.parametrize("kind", ["zarr", *SPARSE])


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator, kind: str) -> tuple[Path, Sample]:
    """A sealed store of three shards, and what it holds."""
    data = sample(rng, 130, kind)
    write_store(tmp_path / "store", data, make_spec(data, kind))
    return tmp_path / "store", data


def damage(path: Path, shard: int, column: str = "label") -> None:
    """Flip a byte of a shard."""
    file = next(path.glob(f"*{column}/c.{shard}*"), path / f"data-{shard:05}.arrow")
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)


def aside_of(path: AnyPath, found: Repaired) -> AnyPath:
    assert found.aside is not None
    aside = path / "set_aside" / found.aside.rpartition("/")[2]
    assert str(aside) == found.aside
    return aside


@kinds
def test_a_sound_store_is_left_alone(store: tuple[Path, Sample]) -> None:
    path, _ = store
    before = snapshot(path)
    found = repair(path)
    assert (found.problems, found.aside, found.pending) == ((), None, ())
    assert found.digest == found.before == open_store(path).digest
    assert snapshot(path) == before
    assert not (path / "staging").exists()


@pytest.mark.parametrize("kind", ["zarr", *SPARSE, "several-zarr", "ragseveral-arrow"])
def test_a_damaged_shard_is_set_aside_and_made_again(store: tuple[Path, Sample], kind: str) -> None:
    path, data = store
    digest, card = open_store(path).digest, (path / "README.md").read_bytes()
    damage(path, 1)
    broken = snapshot(path)
    found = repair(path)
    assert (found.pending, found.digest, found.before) == ((1,), None, digest)
    aside = snapshot(aside_of(path, found))
    assert {"README.md", "manifest.json", "commits/00001.json"} < set(aside)
    assert snapshot(path) == {name: data for name, data in broken.items() if name not in aside} | {
        f"set_aside/1/{name}": broken[name] for name in aside
    } | {f"staging/{name}": data for name, data in lock_left(path).items()}
    with pytest.raises(UnsealedStore, match=r"under repair .*: 2 of 3 shards .*run the command that began it again"):
        open_store(path)
    with StoreWriter(path, make_spec(data, kind), basis=data.basis) as writer:
        assert writer.pending == [1]
        fill(writer, data)
        assert writer.seal().digest == digest
    assert_holds(open_store(path), data)
    assert (path / "README.md").read_bytes() == card
    assert verify(path) == []  # what was set aside is no part of the store
    assert snapshot(path / "set_aside" / "1") == aside


@pytest.mark.parametrize("kind", ["zarr", "arrow"])
def test_plain_readers_see_no_hole(store: tuple[Path, Sample], kind: str) -> None:
    path, data = store
    damage(path, 0)
    repair(path)
    if kind == "zarr":
        with on_disk(path) as there, pytest.raises(FileNotFoundError):
            zarr.open_group(there, mode="r")
    write_store(path, data, make_spec(data, kind))
    with on_disk(path) as there:
        if kind == "zarr":
            group = zarr.open_group(there, mode="r")
            assert set(group) == {"content_key", "label", "logits", "shift", "input"}
            assert np.array_equal(group["label"][:], data.labels)  # type: ignore[index]
        else:
            datasets = pytest.importorskip("datasets")
            assert datasets.load_from_disk(str(there))["label"][:] == data.labels.tolist()


@kinds
def test_a_store_whose_shards_are_all_damaged_keeps_plan_and_basis(store: tuple[Path, Sample], kind: str) -> None:
    path, data = store
    digest = open_store(path).digest
    for shard in range(3):
        damage(path, shard)
    assert repair(path).pending == (0, 1, 2)
    kept = (path / "plan.json").read_bytes()
    with pytest.raises(SpecMismatch, match="begun with another specification"):
        StoreWriter(path, make_spec(data, kind, split="test"), basis=data.basis)
    assert (path / "plan.json").read_bytes() == kept
    if data.basis is not None:
        found = resumable_basis(path)
        assert found is not None
        assert found.tobytes() == data.basis.tobytes()
    assert write_store(path, data, make_spec(data, kind)).digest == digest


@kinds
@pytest.mark.parametrize("how", [pytest.param("cut", marks=pytest.mark.slow), "changed", "gone"])
def test_what_follows_from_the_rest_is_written_again(store: tuple[Path, Sample], kind: str, how: str) -> None:
    """Each file that a plain reader needs, and ours: verify names it, repair puts it back."""
    path, _ = store
    digest, whole = open_store(path).digest, snapshot(path)
    readers = sorted(layout_of(open_store(path).spec).metadata(open_store(path).spec, digest, FORMAT))
    assert set(readers) == set(readers) & set(whole)
    for name in ("manifest.json", "plan.json", *readers):
        if how == "gone":
            (path / name).unlink()
        else:
            (path / name).write_bytes(whole[name][:-20] if how == "cut" else whole[name].replace(b"e", b"f", 1))
        if name in readers:
            assert [problem.file for problem in verify(path)] == [name]
        found = repair(path)
        assert (found.pending, found.digest) == ((), digest), name
        assert verify(path) == []
        remove_folder(path / "set_aside")
        assert snapshot(path) == whole


@pytest.mark.parametrize("kind", ["zarr"])
def test_plan_and_manifest_are_not_made_up(store: tuple[Path, Sample]) -> None:
    path, _ = store
    (path / "plan.json").write_bytes(b"{}")
    (path / "manifest.json").write_bytes(b"{}")
    before = snapshot(path)
    with pytest.raises(
        DamagedManifest, match=r"neither .*plan.json .* nor manifest.json says .*; get one of them again"
    ):
        repair(path)
    assert snapshot(path) == before
    (path / "plan.json").unlink()
    with pytest.raises(DamagedManifest, match=r"plan.json \(is gone\) nor manifest.json"):
        repair(path)
    (path / "manifest.json").unlink()
    with pytest.raises(StorePathError, match="holds no store"):
        repair(path)


@pytest.mark.parametrize("kind", ["zarr", "arrow"])
def test_a_damaged_manifest_and_its_digest(store: tuple[Path, Sample]) -> None:
    """The store is what its records say; whether that is what it was, the digest shows."""
    path, _ = store
    manifest = open_store(path).manifest
    wrong = msgspec.structs.replace(manifest, digest="0" * 64)
    (path / "manifest.json").write_bytes(msgspec.json.encode(wrong))
    found = repair(path)
    assert (found.before, found.digest) == ("0" * 64, manifest.digest)
    assert named_digest(folder_of(aside_of(path, found))) == "0" * 64
    (path / "manifest.json").write_bytes(b"\xff")
    assert named_digest(folder_of(path)) is None


@pytest.mark.parametrize("kind", SPARSE)
def test_a_basis_is_the_same_one_again_or_none(store: tuple[Path, Sample], kind: str) -> None:
    path, data = store
    assert data.basis is not None
    digest, spec = open_store(path).digest, make_spec(data, kind)
    (path / BASIS_FILE).write_bytes(data.basis.tobytes()[::-1])
    found = repair(path)
    assert (found.pending, found.basis, found.digest) == ((), True, None)
    assert (aside_of(path, found) / BASIS_FILE).read_bytes() == data.basis.tobytes()[::-1]
    assert resumable_basis(path) is None
    with pytest.raises(DamagedBasis, match=r"is gone: .*; get this file again from the store's maker"):
        StoreWriter(path, spec)
    with pytest.raises(UserError, match="this is not the specification's basis"):
        StoreWriter(path, spec, basis=data.basis[::-1])
    assert not (path / BASIS_FILE).exists()
    with StoreWriter(path, spec, basis=data.basis) as writer:
        assert writer.seal().digest == digest
    assert verify(path) == []
    assert_holds(open_store(path), data)


@pytest.mark.parametrize("kind", SPARSE)
def test_an_unfinished_store_that_lost_its_basis_gets_it_again(
    kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """No repair is needed, for the plan names its digest. A sealed store is damaged without it."""
    data, path = sample(rng, 130, kind), tmp_path / "store"
    spec = make_spec(data, kind)
    with StoreWriter(path, spec, basis=data.basis) as writer:
        fill(writer, data, [0])
    (path / BASIS_FILE).unlink()
    assert resumable_basis(path) is None
    assert data.basis is not None
    with pytest.raises(UserError, match="this is not the specification's basis"):
        StoreWriter(path, spec, basis=data.basis[::-1])
    assert_holds(write_store(path, data, spec), data)
    (path / BASIS_FILE).unlink()
    with pytest.raises(DamagedBasis, match=r"run `softlabels repair`"):
        resumable_basis(path)


@pytest.mark.parametrize("kind", ["zarr", "arrow"])
def test_a_manifest_that_names_no_digest(store: tuple[Path, Sample]) -> None:
    path, _ = store
    (path / "manifest.json").write_bytes(b"")
    found = repair(path)
    assert (found.pending, found.before) == ((), None)


@pytest.mark.parametrize("kind", ["zarr", "arrow"])
def test_a_store_that_is_sealed_while_repair_begins(
    store: tuple[Path, Sample], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = store
    (path / "manifest.json").unlink()
    entered = folder_of(path).enter("staging/lock")
    entered.close()
    begin = type(entered).alone

    def seals_first(lock: Presence) -> bool:
        monkeypatch.setattr(type(entered), "alone", begin)
        write_store(path, data, make_spec(data, kind))
        return lock.alone()

    monkeypatch.setattr(type(entered), "alone", seals_first)
    found = repair(path)
    assert (found.problems, found.aside, found.digest) == ((), None, open_store(path).digest)


@kinds
@pytest.mark.parametrize("broken", ["label", "manifest.json", None])
def test_what_people_wrote_on_the_card_is_kept(store: tuple[Path, Sample], broken: str | None) -> None:
    """Sealing writes it anew, here or once the shards are made again, also where only the manifest was gone."""
    path, _ = store
    card = (path / "README.md").read_bytes() + b"Of the teacher that Ada trained."
    (path / "README.md").write_bytes(card)
    if broken == "label":
        damage(path, 1)
    elif broken is not None:
        (path / broken).write_bytes(b"{}")
    else:
        (path / "manifest.json").unlink()
    assert (aside_of(path, repair(path)) / "README.md").read_bytes() == card


@pytest.mark.parametrize("kind", ["zarr", "arrow"])
def test_a_repair_that_died_before_it_wrote_the_plan_again(
    store: tuple[Path, Sample], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = store
    (path / "plan.json").write_bytes(b"{}")
    with monkeypatch.context() as patch:
        patch.setattr(repairing, "replace", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repair(path)
    with pytest.raises(DamagedManifest, match=r"has a manifest.json and no plan.json; run `softlabels repair`, then"):
        StoreWriter(path, make_spec(data, kind), basis=data.basis)
    assert repair(path).digest is not None
    assert_holds(open_store(path), data)


@pytest.mark.on_disk("links")
@pytest.mark.parametrize("kind", ["zarr"])
@pytest.mark.parametrize("name", ["commits", "logits", "set_aside"])
def test_folders_that_are_links_are_refused(store: tuple[Path, Sample], name: str, tmp_path: Path) -> None:
    path, _ = store
    damage(path, 1)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path / name, elsewhere) if (path / name).exists() else elsewhere.mkdir()
    (path / name).symlink_to(elsewhere)
    before = snapshot(elsewhere)
    with pytest.raises(DamagedStore, match=rf"{name} is a link, .*; put the file or folder itself there"):
        repair(path)
    assert snapshot(elsewhere) == before


@pytest.mark.on_disk("a disk that does not read")
@pytest.mark.parametrize("kind", ["zarr", "arrow"])
def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(
    store: tuple[Path, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = store
    before = snapshot(path)

    def preadv(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(StorageError, match="Input/output error; check disk and permissions"):
        repair(path)
    assert {name: data for name, data in snapshot(path).items() if name != "staging/lock"} == before


@pytest.mark.parametrize("kind", ["zarr"])
def test_rows_of_another_plan_are_refused(store: tuple[Path, Sample]) -> None:
    """Every shard agrees with its record, and yet the keys are not those of the plan: no shard is to blame."""
    path, _ = store
    (path / "plan.json").unlink()
    manifest = open_store_of(path)
    before = snapshot(path)
    with pytest.raises(DamagedStore, match="content keys are not those of the transfer set"):
        repair(path)
    now = snapshot(path)
    assert {name: now[name] for name in before} == before
    assert open_store(path).manifest == manifest


def open_store_of(path: Path):  # type: ignore[no-untyped-def]
    """Forge a manifest, sound in itself, that names other keys."""
    from softlabels.store.digest import store_digest
    from softlabels.store.json_files import read_json
    from softlabels.store.records import Manifest
    from tests.faults.damage import write_manifest

    manifest = read_json(folder_of(path), "manifest.json", Manifest)
    keys = msgspec.structs.replace(manifest.spec.transfer_set, content_keys="0" * 64)
    forged = msgspec.structs.replace(manifest, spec=msgspec.structs.replace(manifest.spec, transfer_set=keys))
    forged = msgspec.structs.replace(forged, digest=store_digest(forged, forged.payloads))
    write_manifest(path, forged)
    return read_json(folder_of(path), "manifest.json", Manifest)


@kinds
def test_an_unfinished_store(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    """Shards that are damaged before the store is sealed; what a dead writer left staged is put in place."""
    data = sample(rng, 130, kind)
    spec = make_spec(data, kind)
    digest = write_store(tmp_path / "whole", data, spec).digest
    path = tmp_path / "store"
    with StoreWriter(path, spec, basis=data.basis) as writer:
        fill(writer, data, [0, 2])
        if writer.folder.sees_writers:
            with pytest.raises(RunExists, match=r"another process writes to .*; wait until it has ended, or stop it"):
                repair(path)
        record = writer.record(2)
    folder_of(path).put(f"{CLAIMS}/1-0", b"process 1 on another\nanother\nanother start\nid\n0\n")
    with pytest.raises(RunExists, match=r"process 1 on another claims shards of .*; if it has died, remove .*claims"):
        repair(path)  # locks may not tell of another machine
    folder_of(path).clear(CLAIMS)
    staged = path / "staging" / record.write_id
    staged.mkdir()
    for number, name in enumerate(sorted(record.payload.files)):  # as if it had died before it placed them
        (path / name).rename(staged / str(number))
    assert (repair(path).problems, repair(path).pending) == ((), (1,))
    damage(path, 0)
    found = repair(path)
    assert ({problem.shard for problem in found.problems}, found.pending) == ({0}, (0, 1))
    last = next(path.glob("*label/c.2*"), path / "data-00002.arrow")
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(
        DamagedShard, match=r"bytes, not the recorded .*; run `softlabels repair`, then the same command"
    ):
        StoreWriter(path, spec, basis=data.basis)
    last.unlink()
    with pytest.raises(MissingShard, match="is gone; run `softlabels repair`, then the same command again"):
        StoreWriter(path, spec, basis=data.basis)
    assert repair(path).pending == (0, 1, 2)
    assert write_store(path, data, spec).digest == digest
    assert verify(path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_belong_is_set_aside_and_the_store_stays_sealed(store: tuple[Path, Sample]) -> None:
    path, data = store
    manifest = (path / "manifest.json").stat().st_ino
    (path / "commits" / "00099.json").write_bytes(b"x")
    (path / "evil").write_bytes(b"x") if in_memory(path) else (path / "evil").symlink_to("/etc")
    assert {problem.file for problem in verify(path)} == {"commits/00099.json", "evil"}
    found = repair(path)
    evil = aside_of(path, found) / "evil"
    assert evil.exists() if in_memory(path) else evil.is_symlink()
    assert (aside_of(path, found) / "commits" / "00099.json").read_bytes() == b"x"
    assert (path / "manifest.json").stat().st_ino == manifest
    assert_holds(open_store(path), data)
    assert verify(path) == []


@pytest.mark.parametrize("name", sorted(entry.name for entry in GOLDEN.iterdir() if entry.name.startswith("v1")))
def test_a_store_of_an_older_format_stays_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    copy(GOLDEN / name, path)
    digest = open_store(path).digest
    (path / "manifest.json").write_bytes(b"{}")
    found = repair(path)
    assert (found.digest, open_store(path).manifest.format) == (digest, 1)
