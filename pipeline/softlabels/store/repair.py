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

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from softlabels.errors import DamagedManifest, DamagedStore, LaterFormat, StorageError, StorePathError
from softlabels.store.commit import alone, create, place, replace
from softlabels.store.json_files import RELABEL, bytes_at, pretty_json, read_json, read_small_file
from softlabels.store.layouts import layout_of
from softlabels.store.paths import BASIS_FILE, CARD, FOLDERS, MANIFEST, PLAN, SET_ASIDE, STAGING, record_name
from softlabels.store.records import Commit, Manifest
from softlabels.store.rules import check_spec
from softlabels.store.seal import check_manifest, check_record, was_sealed
from softlabels.store.spec import FORMAT, Plan, Spec
from softlabels.store.verify import RESEAL, STRANGER, Problem, basis_problems, shard_problems, strangers, verify
from softlabels.store.writer import StoreWriter
from softlabels.system.files import Files, Folder
from softlabels.system.patience import this_process
from softlabels.system.places import Target, folder_of, reading

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Repaired:
    """What was wrong with a store, and what was done.

    Attributes:
        problems: what was wrong.
        aside: where files were set aside; None where none were.
        pending: the shards that are still to be made. basis: whether the basis of the tails is.
        before: the digest that its manifest named, where there was one to be read.
        digest: the digest that it has now; None while something is to be made.
    """

    problems: tuple[Problem, ...]
    aside: str | None
    pending: tuple[int, ...]
    basis: bool
    before: str | None
    digest: str | None


def repair(path: Target, *, progress: Progress = lambda shards: None) -> Repaired:
    """Repair one store, sealed or not. It is sealed again where nothing is to be made.

    Args:
        path: the store of one split.
        progress: called with 1 after each shard that was read.

    Raises:
        RunExists: a writer is at work in it.
        DamagedStore: something is damaged that follows from nothing else, such as plan and manifest both; no shard was
            touched.
        ContradictingOutputs, OtherClassOrder: the labels of a store that was never sealed, see `softlabels.checks`.
        StorageError: the system refused to read or write.
    """
    store = folder_of(path)
    _refuse_links(store, _plan_and_manifest(store)[0].spec)
    with alone(store):
        plan, manifest = _plan_and_manifest(store)  # again: a writer may have sealed it meanwhile
        _refuse_links(store, plan.spec)
        before, sealed_before, aside = named_digest(store), was_sealed(store, plan.spec), _new_aside(store)
        problems = [*_mend_plan(store, plan, manifest, aside), *_problems(store, plan.spec, manifest, progress)]
        _set_aside(store, plan.spec, problems, aside)
        store.clear(_reserved(aside))
    pending = tuple(shard for shard in range(plan.spec.shards) if not store.exists(record_name(shard)))
    basis = plan.spec.basis_shape is not None and not store.exists(BASIS_FILE)
    if not (pending or basis or store.exists(MANIFEST)):
        with StoreWriter(store, plan.spec) as writer:
            writer.seal(checked=sealed_before)
    digest = None if pending or basis else named_digest(store)
    where = str(store.at(aside)) if store.exists(aside) else None
    return Repaired(tuple(problems), where, pending, basis, before, digest)


def _plan_and_manifest(store: Files) -> tuple[Plan, Manifest | None]:
    """The plan that the store was made by, and its manifest: None where there is none, or none that agrees with itself."""
    wrong: DamagedManifest | LaterFormat | None = None
    try:
        manifest = read_json(store, MANIFEST, Manifest)
        check_manifest(manifest, str(store.at(MANIFEST)))
        return Plan(format=manifest.format, spec=manifest.spec, about=manifest.about), manifest
    except FileNotFoundError:
        pass
    except (DamagedManifest, LaterFormat) as error:  # the latter: or so it says
        wrong = error
    try:
        plan = read_json(store, PLAN, Plan)
        check_spec(plan.spec, version=plan.format)
        return plan, None
    except FileNotFoundError:
        if wrong is None:
            raise StorePathError(f"{store} holds no store", remedy="give the path of a store") from None
        what = "is gone"
    except DamagedManifest as error:
        what = error.what
    if isinstance(wrong, LaterFormat):
        raise wrong
    raise DamagedManifest(
        f"neither {store.at(PLAN)} ({what}) nor {MANIFEST} says what the store should hold",
        remedy="get one of them again from the store's maker, or label the transfer set into another folder",
    ) from wrong


def named_digest(store: Files) -> str | None:
    """The digest that stands in a store's manifest, which need not be sound; None where none can be read."""
    try:
        return str(msgspec.json.decode(read_small_file(store, MANIFEST))["digest"])[:64]
    except (OSError, DamagedManifest, msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return None


def _refuse_links(store: Files, spec: Spec) -> None:
    """Before anything is touched: what lies behind such a link would not even be set aside."""
    for name in (*FOLDERS, *(column.name for column in spec.columns)):
        store.is_folder(name)


def _new_aside(store: Folder) -> str:
    """The name of a folder below `set_aside` that is not there yet. Where nobody sees another `repair`, it is reserved, so that
    neither writes over what the other set aside.
    """
    before = [int(name) for name in store.names(SET_ASIDE) if name.isascii() and name.isdigit()]
    number = max(before, default=0) + 1
    while not (store.sees_writers or _reserve(store, f"{SET_ASIDE}/{number}")):
        number += 1
    return f"{SET_ASIDE}/{number}"


def _reserve(store: Folder, aside: str) -> bool:
    """False where another `repair` has reserved it, or has filled it since these folders were listed."""
    if not create(store, _reserved(aside), f"{this_process()} {uuid.uuid4().hex}".encode()):
        return False
    if store.names(aside):
        store.clear(_reserved(aside))
        return False
    return True


def _reserved(aside: str) -> str:
    """The name that reserves it."""
    return f"{STAGING}/{aside.replace('/', '-')}"


def _move(store: Folder, aside: str, name: str) -> None:
    """Move a file or link of the store below `aside`, where it is there; durable when this returns."""
    if store.exists(name):
        store.place({name: f"{aside}/{name}"})
        store.settle([f"{aside}/{name}", name])


def _mend_plan(store: Folder, plan: Plan, manifest: Manifest | None, aside: str) -> Iterator[Problem]:
    """Write the plan that a sound manifest was made of, where another stands."""
    data = pretty_json(plan)
    if manifest is not None and bytes_at(store, PLAN) != data:
        what = "is not byte for byte what was sealed" if store.exists(PLAN) else "is gone"
        _move(store, aside, PLAN)
        replace(store, PLAN, data)
        yield Problem(PLAN, what, RESEAL)


def _problems(store: Folder, spec: Spec, manifest: Manifest | None, progress: Progress) -> Iterator[Problem]:
    """What is wrong with a store whose plan is right.

    Raises:
        DamagedStore: rows that are not those of the plan: no shard is to blame.
        StorageError: the system refused to read a file, which need not be damaged.
    """
    found = _by_records(store, spec, progress) if manifest is None else verify(reading(store), progress=progress)
    for problem in found:
        if problem.file == PLAN:
            raise DamagedStore(f"{store.at(PLAN)}: {problem.what}", remedy="label the transfer set into another folder")
        if problem.unread:
            disk = "check disk and permissions; delete the file if the disk has lost it"
            raise StorageError(problem.what, remedy=disk if store.near else problem.remedy)
        yield problem


def _by_records(store: Folder, spec: Spec, progress: Progress) -> Iterator[Problem]:
    """What is wrong with a store that is unfinished, or whose manifest is damaged: each shard by its own record."""
    if store.exists(MANIFEST):
        yield Problem(MANIFEST, "does not agree with itself", RESEAL)
    yield from basis_problems(store, spec)
    recorded = [shard for shard in range(spec.shards) if store.exists(record_name(shard))]
    for shard in recorded:
        name = record_name(shard)
        try:
            record = read_json(store, name, Commit)
            check_record(spec, shard, record, str(store.at(name)))
            place(store, [record])
        except DamagedStore as error:
            yield Problem(name, error.what, RELABEL, shard)
        else:
            yield from shard_problems(store, spec, record.payload)
        progress(1)
    yield from strangers(store, spec, recorded)


def _set_aside(store: Folder, spec: Spec, problems: list[Problem], aside: str) -> None:
    """Move what is damaged, in the order that the module's docstring gives reasons for."""
    layout, damaged = layout_of(spec), any(problem.what != STRANGER for problem in problems)
    if damaged or not store.exists(MANIFEST):  # sealing writes the card anew, and people may have added to it
        _move(store, aside, CARD)
    if damaged:
        for name in sorted(layout.metadata(spec, "", FORMAT), key=lambda name: name.count("/")):
            _move(store, aside, name)
    for shard in sorted({problem.shard for problem in problems if problem.shard is not None}):
        _move(store, aside, record_name(shard))
        for name in sorted({layout.path(column, shard) for column in spec.columns}):
            _move(store, aside, name)
    for problem in problems:
        if problem.what == STRANGER or problem.file == BASIS_FILE:
            _move(store, aside, problem.file)
    if damaged:
        _move(store, aside, MANIFEST)
