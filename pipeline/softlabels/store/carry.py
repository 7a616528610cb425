"""A sealed store from one place to another, as it is: only what is missing, each shard's files before its record, the manifest
last.

What a place holds already is known by its size and its hash, so that whoever is killed goes on. Names follow from the plan and
are never taken from a listing; hashes stand in the commit records, and those of the records in the manifest. A file that turns
out to be another one while it is read is not written.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property

from blake3 import blake3

from softlabels.errors import (
    DamagedManifest,
    DamagedShard,
    DiskFull,
    Interrupted,
    SpecMismatch,
    StorageError,
    StorePathError,
    one_line,
    some,
)
from softlabels.store.basis import read_basis
from softlabels.store.differences import differences
from softlabels.store.digest import blake3_hex, payload_digest
from softlabels.store.json_files import (
    MAX_RECORD_BYTES,
    RELABEL,
    decode_json,
    plain_json,
    pretty_json,
    read_small_file,
)
from softlabels.store.layouts import layout_of
from softlabels.store.paths import BASIS_FILE, CARD, MANIFEST, PLAN, SET_ASIDE, SIGNATURES, STAGING, record_name
from softlabels.store.reader import Store
from softlabels.store.records import Commit, FileRecord
from softlabels.store.seal import check_record
from softlabels.store.signatures import Signature, read_signatures, signatures_file
from softlabels.store.spec import Plan
from softlabels.store.verify import known_names
from softlabels.system.depots import Depot

THREADS = 4
MAX_CARD_BYTES = 1 << 20
_ASIDE = (f"{STAGING}/", f"{SET_ASIDE}/")
_OTHERWISE = "does not hold what was written to it"


class Carrying:
    """One store on its way from `source` to `target`, two places.

    Args:
        read_back: read each file that was written, and compare its hash.
        trusted: take a file that is there with its size for the right one; by default its hash decides.
        progress: called with bytes that are there, and whether they were carried; from several threads, one at a time.
        should_stop: asked between parts of files.

    Raises:
        StorePathError, UnsealedStore, DamagedManifest: `source` holds no sealed store, or one that does not agree with itself.
    """

    def __init__(
        self,
        source: Depot,
        target: Depot,
        *,
        read_back: bool = False,
        trusted: bool = False,
        progress: Callable[[int, bool], object] = lambda count, carried: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.source, self.target = source, target
        self._read_back, self._trusted = read_back, trusted
        self.store = Store(source, check="never")
        self.manifest, self.spec = self.store.manifest, self.store.spec
        self.plan = Plan(
            format=self.manifest.format, spec=self.spec, about=self.manifest.about
        )  # which the seal covers
        self._signatures = read_signatures(source)  # before anything is sent
        self._progress, self._should_stop = progress, should_stop
        self._have: dict[str, int] = {}
        self._staged, self._lock = f"{STAGING}/{uuid.uuid4().hex}", threading.Lock()
        self._error: BaseException | None = None  # of the shard that failed first: the others end after their next part

    def run(self) -> None:
        """Carry what the target lacks.

        Raises:
            SpecMismatch, StorePathError: the target holds something else.
            DamagedShard, DamagedManifest: the source does not hold what its manifest says; nothing of that file was written.
            StorageError: a place refused, or the target does not hold what was written to it.
            DiskFull: before the first file, where possible. Interrupted: `should_stop` said so. Running again goes on.
        """
        self.require_target()
        self._begin()
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="carry")
        try:
            for _ in pool.map(self._shard, range(self.spec.shards)):
                pass
        except BaseException as error:
            self._error = self._error or error
            raise self._error from None
        finally:
            pool.shutdown(cancel_futures=True)
        self._seal()

    def require_target(self) -> None:
        """Look at what the target holds."""
        theirs, manifest = self._standing(PLAN), self._standing(MANIFEST)
        if theirs is not None and theirs != pretty_json(self.plan):
            standing = decode_json(theirs, Plan, str(self.target.at(PLAN)))
            found = differences(plain_json(standing), plain_json(self.plan))
            raise SpecMismatch(
                f"{self.target} holds another store: {some((each.said('there', 'here') for each in found), 3)}",
                remedy="give another place",
            )
        if manifest is not None and manifest != pretty_json(self.manifest):
            raise SpecMismatch(
                f"{self.target} holds a store of the same plan with other labels, or a damaged manifest",
                remedy="give another place; `softlabels verify` and `repair` say which it is",
            )
        self._have = {}
        for name, size in self._found():
            if name not in self._known:
                raise self._holds_other(name)
            self._have[name] = size
        if theirs is None and PLAN not in self._have:  # else another writer has begun meanwhile
            for name in self._have.keys() - {BASIS_FILE}:
                raise self._holds_other(name)

    def _holds_other(self, name: str) -> StorePathError:
        return StorePathError(
            f"{self.target} holds other files ({one_line(name)})",
            remedy="give an empty place, or the one where this store is",
        )

    @cached_property
    def _known(self) -> set[str]:
        """The names of the store's files; a hostile plan has millions, so they are made only where there is one to compare."""
        return known_names(self.spec, range(self.spec.shards))

    def _found(self) -> Iterator[tuple[str, int]]:
        """Names and bytes at the target."""
        aside = _ASIDE if self.target.prepares else ()
        return (each for each in self.target.sizes() if not each[0].startswith(aside))

    def _standing(self, name: str) -> bytes | None:
        try:
            return read_small_file(self.target, name)
        except FileNotFoundError:
            return None

    def _begin(self) -> None:
        """Write the plan, and see whether the place keeps names that are taken."""
        basis = read_basis(self.source, self.spec)
        data = pretty_json(self.plan)
        self._create(PLAN, data)
        free, need = self.target.room(), self.manifest.bytes - sum(self._have.values())
        if free is not None and need > free:
            raise DiskFull(
                f"{self.target} still needs {need:,} bytes and the disk has {free:,} free",
                remedy="make room, or give another place, then run the same command again",
            )
        if self.target.create(PLAN, data, staged=f"{self._staged}.file"):
            raise StorageError(
                f"{self.target} overwrites existing names, so two writers could both believe that they won",
                remedy="use a server that supports If-None-Match",
            )
        if basis is not None:
            self._small(BASIS_FILE, basis.tobytes())

    def _create(self, name: str, data: bytes) -> None:
        """A file that may stand there already, and then must be the same."""
        created = self.target.create(name, data, staged=f"{self._staged}.{uuid.uuid4().hex}.file")
        if created and self._read_back:
            self._require_written(name, data)
        if not created and self._standing(name) != data:
            raise SpecMismatch(
                f"{self.target.at(name)} holds something else, from a writer that started at the same time",
                remedy="give another place",
            )

    def _small(self, name: str, data: bytes) -> None:
        """A file that is replaced where it is another one."""
        if self._have.get(name) != len(data) or self.target.read(name, len(data)) != data:
            self.target.put(name, data, staged=f"{self._staged}.{uuid.uuid4().hex}.file")
            if self._read_back:
                self._require_written(name, data)
        self._have[name] = len(data)

    def _require_written(self, name: str, data: bytes) -> None:
        if self._hash(name) != blake3_hex(data):
            raise StorageError(f"{self.target.at(name)} {_OTHERWISE}", remedy="run the same command again")

    def _shard(self, shard: int) -> None:
        try:
            self._carry_shard(shard)
        except BaseException as error:
            self._error = self._error or error
            raise

    def _carry_shard(self, shard: int) -> None:
        name = record_name(shard)
        data, standing = self._record_data(shard)
        record = decode_json(data, Commit, str(self.source.at(name)))
        if payload_digest(record.payload) != self.manifest.payloads[shard]:
            raise DamagedManifest(f"{self.source.at(name)} is not what the digest was taken of", remedy=RELABEL)
        check_record(self.spec, shard, record, str(self.source.at(name)))
        for file, listed in sorted(record.payload.files.items()):
            self._file(shard, file, listed)
        if not standing:
            self._create(name, data)
            self._have[name] = len(data)

    def _record_data(self, shard: int) -> tuple[bytes, bool]:
        """The bytes of a commit record, and whether it stands at the target; from there if so, which may be nearer."""
        name, sealed = record_name(shard), self.manifest.commits[shard]
        if name in self._have:
            data = read_small_file(self.target, name, MAX_RECORD_BYTES)
            if blake3_hex(data) != sealed:
                raise SpecMismatch(
                    f"{self.target.at(name)} (shard {shard}) records other labels than {self.source} holds",
                    remedy="give another place; where it is damaged, run `softlabels repair` there first",
                )
            return data, True
        try:
            data = read_small_file(self.source, name, MAX_RECORD_BYTES)
        except FileNotFoundError:
            raise DamagedManifest(f"the commit record {self.source.at(name)} is gone", remedy=RELABEL) from None
        if blake3_hex(data) != sealed:
            raise DamagedManifest(f"{self.source.at(name)} (shard {shard}) is not the one sealed", remedy=RELABEL)
        return data, False

    def _file(self, shard: int, name: str, listed: FileRecord) -> None:
        if self._have.get(name) == listed.size and (self._trusted or self._hash(name) == listed.blake3):
            self._count(listed.size, carried=False)
            return
        try:
            size, pieces = self.source.opened(name)
        except FileNotFoundError:
            raise DamagedShard(f"shard {shard} is missing: {self.source.at(name)} is gone", remedy=RELABEL) from None
        where = f"{self.source.at(name)} (shard {shard})"
        if size != listed.size:
            raise DamagedShard(f"{where} has {size:,} bytes, not the recorded {listed.size:,}", remedy=RELABEL)
        self.target.fill(name, self._checked(pieces, listed, where), size, staged=self._staged)
        self._have[name] = size
        if self._read_back and self._hash(name) != listed.blake3:
            raise StorageError(f"{self.target.at(name)} {_OTHERWISE}", remedy="run the same command again")

    def _checked(self, pieces: Iterable[bytes], listed: FileRecord, where: str) -> Iterator[bytes]:
        """The pieces of a file; the last only once the whole is known to be the one that was sealed."""
        hasher, size = blake3(), 0
        held: bytes = b""
        for piece in self._stoppable(pieces):
            hasher.update(piece)
            size += len(piece)
            if size > listed.size:
                break
            if held:
                yield held
                self._count(len(held), carried=True)
            held = piece
        if size != listed.size or hasher.hexdigest() != listed.blake3:
            raise DamagedShard(f"{where} is not the file that was sealed", remedy=RELABEL)
        yield held
        self._count(len(held), carried=True)

    def _hash(self, name: str) -> str:
        """Of a file at the target; "" where it went away."""
        hasher = blake3()
        try:
            _, pieces = self.target.opened(name)
        except FileNotFoundError:
            return ""
        for piece in self._stoppable(pieces):
            hasher.update(piece)
        return hasher.hexdigest()

    def _stoppable(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._should_stop() or self._error is not None:
                raise Interrupted(
                    f"stopped while {self.source} was carried to {self.target}",
                    remedy="run the same command again to resume",
                )
            yield piece

    def _count(self, size: int, *, carried: bool) -> None:
        with self._lock:
            self._progress(size, carried)

    def _seal(self) -> None:
        """What follows from the shards, and last the manifest; then a look at the names and sizes of all."""
        layout = layout_of(self.spec)
        for name, data in layout.metadata(self.spec, self.manifest.digest, self.manifest.format).items():
            self._small(name, data)
        if CARD not in self._have:  # people may have added to it
            with suppress(FileNotFoundError):
                self._small(CARD, read_small_file(self.source, CARD, MAX_CARD_BYTES))
        if self._signatures:
            standing: tuple[Signature, ...] = ()
            with suppress(DamagedManifest):  # which this mends
                standing = read_signatures(self.target)  # others may have signed what is there
            self._small(SIGNATURES, signatures_file(standing, self._signatures))
        self._create(MANIFEST, pretty_json(self.manifest))
        found = dict(self._found())
        wrong = [name for name, size in self._have.items() if found.get(name) != size]
        if wrong or MANIFEST not in found or PLAN not in found:
            raise StorageError(
                f"{self.target} does not list what was written to it ({some(wrong or [MANIFEST])})",
                remedy="find out who else writes there, and run the same command again",
            )
