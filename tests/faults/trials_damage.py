"""Promises 5 and 14: a sealed store is damaged in every way we can think of. Reading refuses whatever changes content, naming
the shard, before one wrong value is handed out; `verify` says where; and after `repair` the writer makes exactly what was
damaged again, to the same digest.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from softlabels.errors import DamagedStore, LaterFormat, UnsealedStore
from softlabels.store import Store, reader
from softlabels.store import repair as repairing
from softlabels.store.json_files import read_json
from softlabels.store.layouts import layout_of
from softlabels.store.paths import SET_ASIDE, record_name
from softlabels.store.reader import Check
from softlabels.store.records import Commit, without_blocks
from softlabels.store.repair import repair
from softlabels.store.verify import verify
from softlabels.system.local import LocalFolder
from tests.faults import damage
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.damage import Case, complaints, refusals, restored
from tests.store.samples import KINDS, SPARSE, TARGETS, assert_holds, write_store

Mutation = Callable[[Case, np.random.Generator], str]
ENDS = (damage.zero_chunk, damage.zero_tail, damage.truncate, damage.extend)
GONE = (damage.delete_file, damage.link)
SWAPS = (damage.swap_in_file, damage.swap_between_shards, damage.swap_between_columns, damage.swap_files)
EVERY = (damage.flip, *ENDS, *GONE, *SWAPS, damage.replay, damage.replay_with_record, damage.edit_json, damage.flip_anywhere,
         damage.add_shard)  # fmt: skip


@cache
def sealed(kind: str) -> Case:
    """A store that trials damage and restore; the same in every process."""
    folder = scratch()
    atexit.register(folder.cleanup)
    return Case.make(np.random.default_rng(len(kind)), Path(folder.name) / kind, kind)


def any_case(rng: np.random.Generator) -> Case:
    return sealed(str(rng.choice(KINDS + SPARSE + TARGETS)))


def refused(
    mutations: tuple[Mutation, ...], rng: np.random.Generator, *, check: Check = "first", kind: str = ""
) -> None:
    """Damage a store, then read it all and verify it: both name file and shard, and nothing wrong comes through."""
    case = sealed(kind) if kind else any_case(rng)
    mutate = mutations[rng.integers(len(mutations))]
    with restored(case.path):
        file = mutate(case, rng)
        where = f"{mutate.__name__} of {file} ({case.path.parent.name})"
        try:
            found = refusals(case, check)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        assert found, f"{where}: not seen"
        shard = damage.shard_of(file)
        words = file if shard is None else f"shard {shard}"
        assert any(file in str(error) and words in str(error) for error in found), f"{where}: not named"
        assert {error.exit_code for error in found} == {3}, f"{where}: another exit code"
        said = complaints(case.path)
        assert file in said, f"{where}: verify says {said!r}"
        assert words in said, f"{where}: verify says {said!r}"


def found_by_verify(mutations: tuple[Mutation, ...], rng: np.random.Generator, *, check: Check = "first") -> None:
    """What need not concern a reader (an index, padding, a file beside the others): `verify` names it, and what a reader
    hands out is true.
    """
    case = any_case(rng)
    mutate = mutations[rng.integers(len(mutations))]
    with restored(case.path):
        file = mutate(case, rng)
        said = complaints(case.path)
        assert Path(file).name in said, f"{mutate.__name__} of {file}: verify says {said!r}"
        with suppress(LaterFormat):
            refusals(case, check)


def attacks(attack: Callable[..., None], *mutations: Mutation, count: int, seed: int, **how: object) -> Outcome:
    return repeated(count, seed, partial(attack, mutations, **how))


def unchecked(*mutations: Mutation, seed: int, attack: Callable[..., None] = refused) -> Outcome:
    """The control: chunks are not compared with their digests."""
    return attacks(attack, *mutations, count=60, seed=seed, check="never")


def plain(seed: int) -> Outcome:
    """The control of files that are gone: plain zarr reads the store."""
    import zarr

    def attack(rng: np.random.Generator) -> None:
        case = sealed("zarr")
        with restored(case.path):
            file = damage.delete_file(case, rng)
            name = file.partition("/")[0]
            values = np.asarray(zarr.open_group(case.path, mode="r")[name][:])  # type: ignore[index]
            assert values.tobytes() == case.data.stored()[name].tobytes(), f"{file}: fill values were handed out"

    return repeated(30, seed, attack)


def without(mutation: Mutation, seed: int, *patches: tuple[object, str, object]) -> Outcome:
    """The control: a check of the reader taken out."""
    with ExitStack() as stack:
        for where, name, stand_in in patches:
            stack.enter_context(patch.object(where, name, stand_in))
        return attacks(refused, mutation, count=60, seed=seed)


def any_record(store: Store, shard: int) -> tuple[Commit, bytes]:
    return without_blocks(read_json(LocalFolder(store.path), record_name(shard), Commit))


def any_manifest(manifest: object, where: str) -> None:
    pass


def mended(rng: np.random.Generator, *, mend: bool = True) -> None:
    """Damage a copy of a store, repair it and let the writer go on. Without `mend`, only the manifest is taken away."""
    case = any_case(rng)
    with scratch() as folder:
        here = replace(case, path=Path(folder) / "store")
        shutil.copytree(case.path, here.path)
        mutate = EVERY[rng.integers(len(EVERY))]
        file = mutate(here, rng)
        damage.add_to_card(here)
        try:
            assert Path(file).name in complaints(here.path), "verify does not name it"
            before = contents(here.path)
            if mend:
                found = repair(here.path)
                require_nothing_lost(here.path, before)
                assert bool(found.pending or found.basis) == (found.digest is None)
                assert set(found.pending) <= {problem.shard for problem in found.problems}, "a sound shard is queued"
            else:
                (here.path / "manifest.json").unlink()
            kept = {name: standing(here.path, name) for name in recorded_files(here) if mend}
            require_restored(here)
            assert kept == {name: standing(here.path, name) for name in kept}, "a sound shard was written again"
        except AssertionError as error:
            raise AssertionError(f"{mutate.__name__} of {file}: {error}") from error


def require_restored(case: Case) -> None:
    """The command that made the store, again: the store is what it was."""
    try:
        store = write_store(case.path, case.data, case.store.spec)
    except DamagedStore as error:
        raise AssertionError(f"the writer refuses: {error}") from error
    assert store.digest == case.store.digest, "another digest"
    problems = verify(case.path)
    assert not problems, "; ".join(map(str, problems[:3]))
    assert_holds(store, case.data)


def contents(path: Path) -> dict[str, bytes]:
    """What stands in a store, by path; of links their target."""
    return {
        str(file.relative_to(path)): bytes(file.readlink()) if file.is_symlink() else file.read_bytes()
        for file in path.rglob("*")
        if (file.is_symlink() or file.is_file()) and "staging" not in file.parts
    }


def require_nothing_lost(path: Path, before: dict[str, bytes]) -> None:
    """What stood in the store stands there still, or was set aside under its own path."""
    now = contents(path)
    for name, data in before.items():
        places = [name, *(f"{SET_ASIDE}/{number}/{name}" for number in range(1, 9))]
        assert data in [now.get(place) for place in places], f"{name} is lost"


def recorded_files(case: Case) -> list[str]:
    """The files of the shards that have a record."""
    shards = [shard for shard in range(damage.SHARDS) if (case.path / record_name(shard)).exists()]
    layout = layout_of(case.store.spec)
    return sorted({layout.path(column, shard) for column in case.store.spec.columns for shard in shards})


def standing(path: Path, name: str) -> tuple[int, int]:
    """Which file it is, and when it was written."""
    status = (path / name).lstat()
    return status.st_ino, status.st_mtime_ns


def killed_repairs(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_killed, EVERY, lambda: None))


def killed_careless_repairs(seed: int) -> Outcome:
    return repeated(40, seed, partial(_killed, (damage.replay_with_record,), _manifest_first))


def _killed(mutations: tuple[Mutation, ...], prepare: Callable[[], None], rng: np.random.Generator) -> None:
    """Kill `repair` at one of its renames and flushes; then another repair or the writer goes on."""
    case = any_case(rng)
    with scratch() as folder:
        here = replace(case, path=Path(folder) / "store")
        shutil.copytree(case.path, here.path)
        mutate = mutations[rng.integers(len(mutations))]
        file = mutate(here, rng)
        damage.add_to_card(here)
        before, twin = contents(here.path), Path(folder) / "twin"
        shutil.copytree(here.path, twin, symlinks=True)
        nth = int(rng.integers(_steps(twin, prepare))) + 1
        try:
            _die(here.path, nth, prepare)
            require_nothing_lost(here.path, before)
            _require_no_hole(here)
            unfinished = False
            try:
                refusals(here)
            except UnsealedStore:
                unfinished = True
            except LaterFormat:
                pass
            if not unfinished or rng.random() < 0.5:
                repair(here.path)
                require_nothing_lost(here.path, before)
            require_restored(here)
        except AssertionError as error:
            raise AssertionError(f"{mutate.__name__} of {file}, killed at {nth}: {error}") from error


def _steps(path: Path, prepare: Callable[[], None]) -> int:
    """How many renames and flushes repairing this store takes."""
    done, counted = os.pipe()
    code = _in_child(path, prepare, lambda: os.write(counted, b"."))
    os.close(counted)
    with os.fdopen(done, "rb") as pipe:
        steps = len(pipe.read())
    assert code == 0, f"repair ended with {code}"
    return steps


def _die(path: Path, nth: int, prepare: Callable[[], None]) -> None:
    """Repair in a child that kills itself at the nth rename or flush."""
    left = itertools.count(nth - 1, -1)
    code = _in_child(path, prepare, lambda: next(left) or os.kill(os.getpid(), signal.SIGKILL))
    assert code == -signal.SIGKILL, f"repair was not killed; it ended with {code}"


def _in_child(path: Path, prepare: Callable[[], None], step: Callable[[], object]) -> int:
    """How `repair` ends in a child that calls `step` before each rename and flush."""
    child = os.fork()
    if child == 0:
        prepare()
        for name in ("rename", "replace", "fsync"):
            call = getattr(os, name)

            def stepped(*args: object, call: Callable[..., object] = call, **options: object) -> object:
                step()
                return call(*args, **options)

            setattr(os, name, stepped)
        try:
            repair(path)
        except BaseException as error:
            os.write(2, f"repair failed: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _require_no_hole(case: Case) -> None:
    """Where a shard's file was set aside, plain readers do not open the folder and take the hole for fill values."""
    layout = layout_of(case.store.spec)
    files = {layout.path(column, shard) for column in case.store.spec.columns for shard in range(damage.SHARDS)}
    moved = any(os.path.lexists(case.path / SET_ASIDE / "1" / name) for name in files)
    whole = all((case.path / name).exists() for name in files)
    opens = (case.path / "zarr.json").exists() or (case.path / "state.json").exists()
    assert not (moved and opens and not whole), "plain readers find a hole"


def _manifest_first() -> None:
    """The defence taken away: the manifest, which vouches for the records, goes first."""
    in_order = repairing._set_aside

    def careless(store: LocalFolder, spec: object, problems: object, aside: str) -> None:
        repairing._move(store, aside, "manifest.json")
        in_order(store, spec, problems, aside)  # type: ignore[arg-type]

    repairing._set_aside = careless  # type: ignore[assignment]


NEVER = "digests of chunks not compared"


def _five(what: str, count: int, quick: int, *mutations: Mutation, attack: Callable[..., None] = refused) -> Trial:
    """A trial of promise 5 whose control reads without comparing the chunks' digests."""
    return Trial(
        5, what, count, quick,
        lambda count, seed: attacks(attack, *mutations, count=count, seed=seed),
        lambda seed: unchecked(*mutations, seed=seed, attack=attack),
        NEVER,
    )  # fmt: skip


def _five_without(
    what: str,
    count: int,
    quick: int,
    mutation: Mutation,
    name: str,
    *patches: tuple[object, str, object],
    control: Mutation | None = None,
) -> Trial:
    """A trial of promise 5 whose control takes another check out of the reader."""
    return Trial(
        5, what, count, quick,
        lambda count, seed: attacks(refused, mutation, count=count, seed=seed),
        lambda seed: without(control or mutation, seed, *patches),
        name,
    )  # fmt: skip


TRIALS = (
    _five("a byte of a chunk flipped", 600, 12, damage.flip),
    _five(
        "a byte of any file flipped, or a shard's files added", 600, 12, damage.flip_anywhere, damage.add_shard,
        attack=found_by_verify,
    ),
    _five("files cut, lengthened or zeroed from a place on, chunks zeroed", 500, 12, *ENDS),
    _five("chunks and files exchanged", 500, 12, *SWAPS),
    _five("an older file of the same shard put back", 200, 6, damage.replay),
    Trial(
        5, "files deleted, or replaced by links", 300, 8,
        lambda count, seed: attacks(refused, *GONE, count=count, seed=seed), plain, "read by plain zarr",
    ),
    _five_without(
        "an older shard put back with its own record", 200, 6, damage.replay_with_record,
        "records not compared with the manifest", (Store, "_record", any_record),
    ),
    _five_without(
        "a shard added to files and manifest", 100, 4, damage.list_shard,
        "digest not computed again on opening", (reader, "check_manifest", any_manifest),
    ),
    _five_without(
        "a value in manifest, plan or commit record changed", 300, 8, damage.edit_json,
        "seal and digest not compared", (reader, "check_manifest", any_manifest), control=damage.edit_manifest,
    ),
    Trial(
        14, "each of these, then verify, repair and the writer", 600, 12,
        lambda count, seed: repeated(count, seed, mended),
        lambda seed: repeated(20, seed, partial(mended, mend=False)), "only the manifest taken away",
    ),
    Trial(
        14, "repair killed at a rename or a flush", 300, 5,
        lambda count, seed: apart(killed_repairs, count, seed),
        lambda seed: apart(killed_careless_repairs, seed), "the manifest set aside first", slow=True,
    ),
)  # fmt: skip
