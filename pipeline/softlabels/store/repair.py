"""`repair`: what is damaged in a store is set aside, and what follows from the rest is written again. Nothing is invented: the
shards that were set aside are pending, and the command that made the store makes exactly these again, to the same digest.

Files are set aside by moving them into the store's folder `set_aside/1` (2, 3, ... the next times), each under its own path,
where no reader looks; none is deleted. In this order, so that every moment is safe to die at:

1. The plan is written again, where it is not the one that a sound manifest was made of.
2. The card goes, which people may have added to, and the files for other readers, so that none of them takes a hole for
   fill values; then of each damaged shard the commit record and the files; then what does not belong to the store. A sealed
   store is a damaged one to all readers and writers meanwhile, and `repair` goes on.
3. Last goes the manifest, for until then it vouches for the records. Now the store is an unfinished one, and any writer
   goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from softlabels.errors import DamagedManifest, DamagedStore, RunExists, StorageError, StorePathError
from softlabels.store.basis import BASIS_FILE
from softlabels.store.commit import (
    SET_ASIDE,
    STAGING,
    WriterLock,
    place,
    record_path,
    replace_by_way_of_staging,
)
from softlabels.store.durable import make_folder, sync_folder, system_errors
from softlabels.store.layouts import layout_of
from softlabels.store.rules import check_spec
from softlabels.store.seal import check_manifest, check_record
from softlabels.store.spec import (
    BASIS_FOLDER,
    COMMITS,
    FORMAT,
    MANIFEST,
    PLAN,
    RELABEL,
    Commit,
    Manifest,
    Plan,
    Spec,
    pretty_json,
    read_json,
    read_small_file,
    refuse_link,
)
from softlabels.store.verify import (
    CARD,
    RESEAL,
    STRANGER,
    Problem,
    basis_problems,
    shard_problems,
    strangers,
    verify,
)
from softlabels.store.writer import StoreWriter

Progress = Callable[[int], object]
UNVOUCHED = (
    "an older shard with its own commit record would pass: compare with the digest that you know before you use it"
)


@dataclass(frozen=True)
class Repaired:
    """What was wrong with a store, and what was done.

    Attributes:
        problems: what was wrong.
        folder, moved: where files were set aside, and which, by their paths in the store.
        pending: the shards that are still to be made. basis: whether the basis of the tails is.
        before: the digest that its manifest named, where there was one to be read.
        digest: the digest that it has now; None while something is to be made.
    """

    problems: tuple[Problem, ...]
    folder: Path
    moved: tuple[str, ...]
    pending: tuple[int, ...]
    basis: bool
    before: str | None
    digest: str | None


def repair(path: str | Path, *, progress: Progress = lambda shards: None) -> Repaired:
    """Repair one store, sealed or not. It is sealed again where nothing is to be made.

    Args:
        path: the store of one split.
        progress: called with 1 after each shard that was read.

    Raises:
        RunExists: a writer is at work in it.
        DamagedStore: something is damaged that follows from nothing else, such as plan and manifest both; no shard was
            touched.
        StorageError: the system refused to read or write.
    """
    store = Path(path)
    _refuse_links(store, _plan_and_manifest(store)[0].spec)
    with _alone(store):
        plan, manifest = _plan_and_manifest(store)  # again: a writer may have sealed it meanwhile
        _refuse_links(store, plan.spec)
        before, aside = named_digest(store), _Aside(store)
        problems = [*_mend_plan(store, plan, manifest, aside), *_problems(store, plan.spec, manifest, progress)]
        _set_aside(store, plan.spec, problems, aside)
    pending = tuple(shard for shard in range(plan.spec.shards) if not record_path(store, shard).exists())
    basis = plan.spec.basis_shape is not None and not (store / BASIS_FILE).exists()
    if not (pending or basis or (store / MANIFEST).exists()):
        with StoreWriter(store, plan.spec) as writer:
            writer.seal()
    digest = None if pending or basis else named_digest(store)
    return Repaired(tuple(problems), aside.folder, tuple(aside.moved), pending, basis, before, digest)


def _plan_and_manifest(store: Path) -> tuple[Plan, Manifest | None]:
    """The plan that the store was made by, and its manifest: None where there is none, or none that agrees with itself."""
    wrong: DamagedManifest | StorePathError | None = None
    try:
        manifest = read_json(store / MANIFEST, Manifest)
        check_manifest(manifest, str(store / MANIFEST))
        return Plan(format=manifest.format, spec=manifest.spec, about=manifest.about), manifest
    except FileNotFoundError:
        pass
    except (DamagedManifest, StorePathError) as error:  # the latter: of a later format, or so it says
        wrong = error
    try:
        plan = read_json(store / PLAN, Plan)
        check_spec(plan.spec, version=plan.format)
        return plan, None
    except FileNotFoundError:
        if wrong is None:
            raise StorePathError(f"{store} holds no store", remedy="give the path of a store") from None
        what = "is gone"
    except StorePathError:
        raise
    except DamagedManifest as error:
        what = error.what
    raise DamagedManifest(
        f"neither {store / PLAN} ({what}) nor {MANIFEST} says what the store should hold",
        remedy="get one of them again from whoever made the store, or label the transfer set into another folder",
    ) from wrong


def named_digest(store: Path) -> str | None:
    """The digest that stands in a store's manifest, which need not be sound; None where none can be read."""
    try:
        return str(msgspec.json.decode(read_small_file(store / MANIFEST))["digest"])[:64]
    except (OSError, DamagedManifest, msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return None


def earlier_digests(store: Path) -> dict[Path, str | None]:
    """The digest that each manifest names which was set aside, by its folder; None where none can be read."""
    manifests = sorted((store / SET_ASIDE).glob(f"*/{MANIFEST}"))
    return {manifest.parent: named_digest(manifest.parent) for manifest in manifests}


def _refuse_links(store: Path, spec: Spec) -> None:
    for name in (COMMITS, STAGING, SET_ASIDE, BASIS_FOLDER, *(column.name for column in spec.columns)):
        refuse_link(store / name, DamagedStore)


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Keep writers out. Raises `RunExists` where there is one."""
    lock = WriterLock(store)
    try:
        if not lock.alone():
            raise RunExists(f"another process writes to {store}", remedy="wait until it has ended, or stop it")
        yield
        if (store / MANIFEST).exists():
            shutil.rmtree(store / STAGING, ignore_errors=True)
    finally:
        lock.close()


class _Aside:
    """A new folder below `set_aside`, and what was moved into it."""

    def __init__(self, store: Path) -> None:
        before = [int(entry.name) for entry in store.glob(f"{SET_ASIDE}/*") if entry.name.isdecimal()]
        self.store, self.folder = store, store / SET_ASIDE / str(max(before, default=0) + 1)
        self.moved: list[str] = []

    def move(self, name: str) -> None:
        """Move a file or link of the store, where it is there; durable when this returns."""
        source, target = self.store / name, self.folder / name
        if os.path.lexists(source):
            make_folder(target.parent)
            with system_errors("set aside", source):
                source.rename(target)
            sync_folder(target.parent)
            sync_folder(source.parent)
            self.moved.append(name)


def _mend_plan(store: Path, plan: Plan, manifest: Manifest | None, aside: _Aside) -> Iterator[Problem]:
    """Write the plan that a sound manifest was made of, where another stands."""
    data = pretty_json(plan)
    try:
        same = manifest is None or read_small_file(store / PLAN) == data
    except (FileNotFoundError, DamagedManifest):
        same = False
    if not same:
        what = "is not byte for byte what was sealed" if os.path.lexists(store / PLAN) else "is gone"
        aside.move(PLAN)
        replace_by_way_of_staging(store, PLAN, data)
        yield Problem(PLAN, what, RESEAL)


def _problems(store: Path, spec: Spec, manifest: Manifest | None, progress: Progress) -> Iterator[Problem]:
    """What is wrong with a store whose plan is right.

    Raises:
        DamagedStore: rows that are not those of the plan: no shard is to blame.
        StorageError: the system refused to read a file, which need not be damaged.
    """
    for problem in _by_records(store, spec, progress) if manifest is None else verify(store, progress=progress):
        if problem.file == PLAN:
            raise DamagedStore(f"{store / PLAN}: {problem.what}", remedy="label the transfer set into another folder")
        if problem.unread:
            raise StorageError(
                problem.what, remedy="check disk and permissions; delete the file if the disk has lost it"
            )
        yield problem


def _by_records(store: Path, spec: Spec, progress: Progress) -> Iterator[Problem]:
    """What is wrong with a store that is unfinished, or whose manifest is damaged: each shard by its own record."""
    if os.path.lexists(store / MANIFEST):
        yield Problem(MANIFEST, "does not agree with itself", RESEAL)
    yield from basis_problems(store, spec)
    recorded = [shard for shard in range(spec.shards) if os.path.lexists(record_path(store, shard))]
    for shard in recorded:
        path = record_path(store, shard)
        try:
            record = read_json(path, Commit)
            check_record(spec, shard, record, str(path))
            place(store, record)
        except DamagedStore as error:
            yield Problem(str(path.relative_to(store)), error.what, RELABEL, shard)
        else:
            yield from shard_problems(store, spec, record.payload)
        progress(1)
    yield from strangers(store, spec, recorded)


def _set_aside(store: Path, spec: Spec, problems: list[Problem], aside: _Aside) -> None:
    """Move what is damaged, in the order that the module's docstring gives reasons for."""
    layout, damaged = layout_of(spec), any(problem.what != STRANGER for problem in problems)
    if damaged or not (store / MANIFEST).exists():  # sealing writes the card anew, and people may have added to it
        aside.move(CARD)
    if damaged:
        for name in sorted(layout.metadata(spec, "", FORMAT), key=lambda name: name.count("/")):
            aside.move(name)
    for shard in sorted({problem.shard for problem in problems if problem.shard is not None}):
        aside.move(str(record_path(Path(), shard)))
        for name in sorted({layout.path(column, shard) for column in spec.columns}):
            aside.move(name)
    for problem in problems:
        if problem.what == STRANGER or problem.file == BASIS_FILE:
            aside.move(problem.file)
    if damaged:
        aside.move(MANIFEST)
