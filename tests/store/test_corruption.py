"""Damage that takes more than chance: digests forged to fit, links, files that do not belong, a basis, a disk that does not
read. What chance does, the campaign tries many times (tests/faults/trials_damage.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from softlabels.errors import DamagedBasis, DamagedManifest, DamagedStore, SoftLabelsError
from softlabels.labels.fidelity import Fidelity
from softlabels.labels.lost import LostTable
from softlabels.store import StoreWriter, open_store
from softlabels.store.digest import blake3_hex
from softlabels.store.paths import BASIS_FILE
from softlabels.store.verify import verify
from tests.faults.damage import (
    SHARDS,
    Case,
    complaints,
    read_bytes,
    refusals,
    replay_with_record,
    restored,
    write_bytes,
    write_manifest,
)
from tests.store.conftest import IN_MEMORY, far_folder
from tests.store.places import AnyPath, in_memory
from tests.store.samples import KINDS, SPARSE, require_sound


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    cases = [pytest.param(("local", kind), id=kind) for kind in (*KINDS, *SPARSE, "several-zarr", "ragseveral-arrow")]
    if metafunc.definition.get_closest_marker("on_disk") is None:
        for kind in KINDS + SPARSE:
            slow = [] if kind in IN_MEMORY else [pytest.mark.slow]
            cases.append(pytest.param(("memory", kind), id=f"memory-{kind}", marks=slow))
            far = [] if kind == "topk-zarr" else [pytest.mark.slow]
            cases.append(pytest.param(("far", kind), id=f"far-{kind}", marks=far))
            cases.append(pytest.param(("s3", kind), id=f"s3-{kind}", marks=pytest.mark.slow))
    metafunc.parametrize("case", cases, indirect=True, scope="module")


@pytest.fixture(scope="module")
def case(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    rng_of: Callable[[str], np.random.Generator],
) -> Case:
    where, kind = request.param
    return Case.make(
        rng_of(kind), tmp_path_factory.mktemp(kind) if where == "local" else far_folder(where, request), kind
    )


def read_all(path: AnyPath) -> None:
    """Everything that a store holds."""
    store = open_store(path)
    assert store.basis is None or store.spec.basis_shape is not None
    for name in store.columns:
        store.column(name)


def test_a_sound_store_is_sound(case: Case) -> None:
    assert verify(case.path) == []
    require_sound(case.path)
    assert refusals(case) == []


@pytest.mark.on_disk("a file that is changed while it is open")
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
        **({"fidelity": _better(manifest.fidelity)} if manifest.fidelity else {}),
        **(
            {} if manifest.targets is UNSET else {"targets": {n: _better_table(t) for n, t in manifest.targets.items()}}
        ),
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


def _better(fidelity: dict[str, Fidelity]) -> dict[str, Fidelity]:
    return {t: msgspec.structs.replace(line, kl_mean=0.0) for t, line in fidelity.items()}


def _better_table(lost: LostTable) -> LostTable:
    return msgspec.structs.replace(lost, fidelity=_better(lost.fidelity))


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


@pytest.mark.parametrize(
    "name",
    ["plan.json", "manifest.json", "commits", "commits/00001.json", "logits", "top_class", "tail_basis", BASIS_FILE],
)
def test_links_and_missing_parts(case: Case, name: str) -> None:
    if not (case.path / name).exists():
        pytest.skip("this store has no such file")
    with restored(case.path):
        target = case.path.with_name(f"elsewhere-{Path(name).name}")
        (case.path / name).rename(target)
        if name != "manifest.json":  # without it the store is an unfinished one
            with pytest.raises(SoftLabelsError) as caught:
                read_all(case.path)
            assert isinstance(caught.value, DamagedStore)
            assert Path(name).name in str(caught.value)
        if in_memory(case.path):
            return
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
            assert verify(case.path, shards=()) == [problem]
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
            found = open_store(case.path)
            with pytest.raises(DamagedBasis, match=BASIS_FILE):
                found.only(found.targets[0]).log_probs([0], temperature=2.0)
            (problem,) = verify(case.path)
            assert (problem.file, problem.shard) == (BASIS_FILE, None)
            with pytest.raises(DamagedBasis):
                StoreWriter(case.path, case.store.spec)


@pytest.mark.on_disk("a disk that does not read")
def test_a_disk_that_does_not_read_is_no_damage(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error is named as one, and does not end the process, as it would where a file is mapped."""
    (*_, name) = case.files()

    def preadv(handle: int, buffers: list[memoryview], offset: int) -> int:
        if os.path.realpath(f"/proc/self/fd/{handle}") == str((case.path / name).resolve()):
            raise OSError(5, "Input/output error")
        return 0

    monkeypatch.setattr(os, "preadv", preadv)
    problems = [problem for problem in verify(case.path, shards=(SHARDS - 1,)) if problem.file == name]
    assert [(problem.shard, problem.unread) for problem in problems] == [(SHARDS - 1, True)]
    assert "Input/output error; check the disk" in str(problems[0])


def test_of_a_sample_every_byte_is_read_and_of_the_others_sizes(case: Case) -> None:
    first, *_, last = case.files()
    with restored(case.path):
        for name in (first, last):
            byte = read_bytes(case.path / name, 3, 1)[0]
            write_bytes(case.path / name, 3, bytes([byte ^ 1]))
        assert [problem.file for problem in verify(case.path, shards=(0,))] == [first]
        assert [problem.shard for problem in verify(case.path, shards=(1,))] == []
        assert {problem.shard for problem in verify(case.path)} == {0, SHARDS - 1}
        (case.path / last).write_bytes((case.path / last).read_bytes() + b"x")
        assert [problem.file for problem in verify(case.path, shards=())] == [last]
