"""`verify`: re-read everything that a sealed store holds and say, for each thing that is wrong, which shard, which file and
what to do. Every byte is covered: shard files and chunks by the commit records, those by the manifest, the manifest by its
seal and by the digests computed again, and the files for other readers by what they should say. Only the card is free: people
may add to it. What `repair` has set aside is no part of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from softlabels.errors import DamagedBasis, DamagedManifest, DamagedStore, SoftLabelsError, StorageError, one_line
from softlabels.store.basis import read_basis
from softlabels.store.chunks import ChunkReader, open_sized
from softlabels.store.columns import Column
from softlabels.store.digest import block_hashes, content_columns
from softlabels.store.json_files import RELABEL, RESTORE, pretty_json, read_json, read_small_file
from softlabels.store.layouts import layout_of
from softlabels.store.paths import BASIS_FILE, CARD, MANIFEST, PLAN, SET_ASIDE, SIGNATURES, STAGING, record_name
from softlabels.store.positions import check_positions
from softlabels.store.reader import Store, open_store
from softlabels.store.records import Commit, Payload
from softlabels.store.seal import make_manifest
from softlabels.store.signatures import read_signatures, signatures_file
from softlabels.store.spec import FORMAT, Plan, Spec
from softlabels.system.files import File, Files
from softlabels.system.places import Place, each_of

RESEAL = "`softlabels repair` writes it again"
STRANGER = "does not belong to the store"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `shard` is None where it concerns the whole store, `unread` True where the system refused to
    read.
    """

    file: str
    what: str
    remedy: str
    shard: int | None = None
    unread: bool = False

    @property
    def where(self) -> str:
        """Shard, file and what is wrong."""
        return one_line(f"{'store' if self.shard is None else f'shard {self.shard}'}: {self.file}: {self.what}", None)

    def __str__(self) -> str:
        return f"{self.where}; {self.remedy}"


def verify(
    path: Place,
    *,
    shards: Collection[int] | None = None,
    progress: Callable[[int], object] = lambda shards: None,
) -> list[Problem]:
    """Check one sealed store; an empty list means that every byte that was read is as it was sealed.

    Args:
        path: the store of one split.
        shards: those of which every byte is read, by default all. Of the others, and of the store as a whole, is checked
            what takes no label to be read: commit records, presence and sizes of all files, plan, manifest, basis and the
            files for other readers.
        progress: called with 1 after each shard.

    Raises:
        StorePathError, UnsealedStore: there is nothing to verify.
        DamagedManifest: what says what the store should hold is itself damaged.
    """
    store = open_store(path, check="never")
    every = range(store.spec.shards)
    read = every if shards is None else shards
    problems = [
        *strangers(store.folder, store.spec, every),
        *_metadata(store),
        *_signatures(store.folder),
        *basis_problems(store.folder, store.spec),
    ]
    records: list[Commit] = []
    for shard in every:
        try:
            records.append(store.record(shard))
        except DamagedManifest as error:
            problems.append(Problem(record_name(shard), error.what, RELABEL, shard))
        else:
            problems += shard_problems(store.folder, store.spec, store.payload(shard), read_all=shard in read)
        progress(1)
    if len(records) == len(every):
        problems += _totals(store, records)
    if set(read) == set(every) and all(problem.shard is None for problem in problems):
        problems += _keys(store)
    return problems


def basis_problems(store: Files, spec: Spec) -> Iterator[Problem]:
    """Whether the basis of the tails is the one that the specification names."""
    try:
        read_basis(store, spec)
    except DamagedBasis as error:
        yield Problem(BASIS_FILE, error.what, error.remedy)


def require_files(store: Store) -> None:
    """Raise `DamagedStore` unless every commit record and every shard file is there with its recorded size: what can be
    seen without reading the labels again. The basis is read.
    """
    read_basis(store.folder, store.spec)
    payloads = each_of(store.folder, lambda shard: store.payloads([shard])[shard], range(store.spec.shards))
    files = [(name, payload) for payload in payloads for name in sorted(payload.files)]
    each_of(store.folder, lambda file: open_sized(store.folder, *file).size, files)


def known_names(spec: Spec, shards: Iterable[int]) -> set[str]:
    """The names of all files of a store of these shards."""
    layout, shards = layout_of(spec), tuple(shards)
    known = {layout.path(column, shard) for column in spec.columns for shard in shards}
    known |= {record_name(shard) for shard in shards}
    known |= {*layout.metadata(spec, "", FORMAT), MANIFEST, PLAN, CARD, SIGNATURES}
    return known | (set() if spec.basis_shape is None else {BASIS_FILE})


def strangers(store: Files, spec: Spec, shards: Iterable[int]) -> Iterator[Problem]:
    """Files and links that a store of these shards does not have; a place that lists nothing names none."""
    known = known_names(spec, shards)
    for found in store.list() if store.lists else ():
        if found not in known and not found.startswith((f"{STAGING}/", f"{SET_ASIDE}/")):
            yield Problem(
                found, STRANGER, "delete it, or find out who put it there (`softlabels repair` sets it aside)"
            )


def _metadata(store: Store) -> Iterator[Problem]:
    """Plan, manifest and the files for other readers, where they are not as they should be."""
    written = {PLAN: pretty_json(read_json(store.folder, PLAN, Plan)), MANIFEST: pretty_json(store.manifest)}
    others = layout_of(store.spec).metadata(store.spec, store.digest, store.manifest.format)
    for name, data in (written | others).items():
        what = "is not byte for byte what was sealed"
        try:
            same = read_small_file(store.folder, name) == data
        except FileNotFoundError:
            same, what = False, "is gone"
        except (OSError, SoftLabelsError):
            same = False
        if not same:
            yield Problem(name, what, RESEAL)


def _signatures(store: Files) -> Iterator[Problem]:
    """Whether the file of signatures holds some; whose they are, and whether they are valid, is another question."""
    try:
        found = read_signatures(store)
        sound = not found or read_small_file(store, SIGNATURES) == signatures_file(found)
    except DamagedManifest:
        sound = False
    if not sound:
        yield Problem(
            SIGNATURES, STRANGER, "delete it (`softlabels repair` sets it aside), and have the store signed again"
        )


def shard_problems(store: Files, spec: Spec, payload: Payload, *, read_all: bool = True) -> Iterator[Problem]:
    """What is wrong with a recorded shard: each file's presence and size and, with `read_all`, its digest, the place of its
    chunks, each chunk's digest, and what the chunks hold.
    """
    layout, shard = layout_of(spec), payload.shard
    broken = False
    for name in sorted(payload.files):
        columns = [column for column in spec.columns if layout.path(column, shard) == name]
        try:
            wrong = _file(store, spec, payload, name, columns if read_all else None)
        except (DamagedStore, StorageError) as error:
            broken = True
            yield Problem(name, error.what, error.remedy, shard, unread=isinstance(error, StorageError))
        else:
            broken |= bool(wrong)
            yield from (Problem(name, what, RELABEL, shard) for what in wrong)
    if read_all and not broken:
        yield from _content(store, spec, payload)


def _file(store: Files, spec: Spec, payload: Payload, name: str, columns: list[Column] | None) -> list[str]:
    """What is wrong with one file of a shard, read where its columns are given: which chunks, or the file around them, or its
    own index. Raises `DamagedStore`, `StorageError`.
    """
    if columns is not None:
        store.ahead({name: [(0, 1)]})
    file, whole = open_sized(store, name, payload), payload.files[name]
    if columns is None:
        return []
    same = _digest(file, 0, whole.size) == whole.blake3
    wrong = [
        f"chunk {number} of column {column.name} differs from its digest"
        for column in columns
        for number, chunk in enumerate(payload.chunks[column.name])
        if _digest(file, chunk.offset, chunk.size) != chunk.blake3
    ]
    if wrong or not same:
        return wrong or ["differs from its digest outside the chunks"]
    try:
        places = layout_of(spec).locate(spec, payload.shard, columns, file)
    except ValueError as error:
        return [str(error)]
    return [
        f"plain readers find column {name} elsewhere than the commit record says"
        for name, found in places.items()
        if found != tuple((chunk.offset, chunk.size) for chunk in payload.chunks[name])
    ]


def _digest(file: File, offset: int, size: int) -> str:
    """blake3 of a part of a file."""
    hasher, end, part = blake3(), offset + size, memoryview(bytearray(1 << 20))
    while got := file.read_into(offset, part[: end - offset]):
        hasher.update(part[:got])
        offset += got
    return hasher.hexdigest()


def _content(store: Files, spec: Spec, payload: Payload) -> Iterator[Problem]:
    """Whether the decoded values are those that the content digest was taken of, and can be true."""
    reader = ChunkReader(store, spec)
    keys, blocks, where = blake3(), list[str](), record_name(payload.shard)
    try:
        for chunk in range(spec.shard_chunks(payload.shard)):
            arrays = {column.name: reader.read(payload, column, chunk, check=False) for column in content_columns(spec)}
            keys.update(arrays["content_key"].tobytes())
            blocks += block_hashes(spec, arrays)
            first = spec.shard_rows(payload.shard).start + chunk * spec.cut.rows_per_chunk
            check_positions(spec, arrays, first_row=first)
    except DamagedStore as error:
        yield Problem(where, error.what, RELABEL, payload.shard)
        return
    except ValueError as error:
        yield Problem(where, f"the shard holds labels that cannot be: {error}", RELABEL, payload.shard)
        return
    if keys.hexdigest() != payload.content_keys:
        yield Problem(where, "the content keys are not those recorded", RELABEL, payload.shard)
    if tuple(blocks) != payload.blocks:
        yield Problem(where, "the values are not those that the content digest was taken of", RELABEL, payload.shard)


def _totals(store: Store, records: list[Commit]) -> Iterator[Problem]:
    """Whether the manifest follows from plan and records."""
    plan = read_json(store.folder, PLAN, Plan)
    again = make_manifest(plan, records, store.manifest.commits)  # whose files `Store.record` held against these
    for field in ("digest", "content_digest", "fidelity", "targets", "bytes", "bytes_per_position", "about"):
        if getattr(again, field) != getattr(store.manifest, field):
            yield Problem(MANIFEST, f"its {field} does not follow from the plan and the commit records", RESTORE)


def _keys(store: Store) -> Iterator[Problem]:
    """Whether the rows are those of the specification."""
    keys = blake3()
    for chunk in range(store.chunks):
        keys.update(store.read_chunk("content_key", chunk).tobytes())
    if keys.hexdigest() != store.spec.transfer_set.content_keys:
        yield Problem(PLAN, "the content keys are not those of the transfer set that it names", RESTORE)
