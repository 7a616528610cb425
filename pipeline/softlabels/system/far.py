"""Files far away, to be read: an object store, a web server, or a repository of the Hub, by whole names and parts of files.

Every file is read at the version that it had when it was first looked at; another one is `Replaced`. What was asked is kept
(`kept.py`), so that a plan that is looked for, measured and read is one request, and so are all parts of a small file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import ClassVar, Self

from softlabels.errors import Replaced, StorageError
from softlabels.system.depots import Remote, Version
from softlabels.system.kept import Fetched, Range, joined
from softlabels.system.patience import interruptible, result_of
from softlabels.system.read_cache import read_cache

SMALL = 1 << 20  # bytes of a file that is fetched whole, whatever of it is wanted
AHEAD = 1 << 22  # bytes that are fetched at once of a file that is read from its beginning on
_TRIES = 3  # for an answer that breaks off, or is too short


class FarFiles:
    """See `softlabels.system.files.Files`. A folder is what names begin with."""

    near: ClassVar[bool] = False

    def __init__(self, place: Remote, seen: _Seen | None = None) -> None:
        self._place, self._seen = place, seen or _Seen(place)

    def __reduce__(self) -> tuple[object, ...]:  # another process asks by itself, for the same versions
        return type(self), (self._place, self._seen)

    def __str__(self) -> str:
        return str(self._place)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FarFiles) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def lists(self) -> bool:
        return self._place.lists

    @property
    def name(self) -> str:
        return self._place.name

    def at(self, name: str = "") -> object:
        return self._place.at(name)

    def within(self, name: str) -> Self:
        return type(self)(self._place.within(name), self._seen)

    followed = within

    def above(self) -> Self:
        return type(self)(self._place.above(), self._seen)

    def overlaps(self, other: object) -> bool:
        return self._place.overlaps(other._place if isinstance(other, FarFiles) else other)

    def exists(self, name: str = "") -> bool:
        if not name:
            return True
        with suppress(FileNotFoundError):
            self._head(name)
            return True
        return self.is_folder(name)

    def is_folder(self, name: str = "") -> bool:
        above, _, last = name.rpartition("/")
        if name:
            return self._entries(above).get(last, False)
        above, _, last = self._place.key("").rpartition("/")
        return self._seen.entries.get(above, {}).get(last, True)  # where nobody has asked, it is taken to be there

    def names(self, name: str = "") -> list[str]:
        return sorted(self._entries(name))

    def folders(self, name: str = "") -> list[Self]:
        inner, found = f"{name}/" if name else "", self._entries(name)
        return [self.within(inner + entry) for entry in sorted(found) if found[entry]]

    def _entries(self, name: str) -> Mapping[str, bool]:
        key = self._place.key(name)
        if self.lists and key not in self._seen.entries:
            self._seen.entries[key] = self._place.entries(name)
        return self._seen.entries.get(key, {})

    def list(self, name: str = "") -> Iterator[str]:
        return self._place.list(name)

    def size(self, name: str) -> int:
        return self._seen.version(self._place.key(name)).size

    def read(self, name: str, limit: int | None = None) -> bytes:
        key, head = self._place.key(name), self._head(name)
        size = self._seen.version(key).size
        if limit is not None and size > limit:
            raise StorageError(f"{self.at(name)} is larger than {limit} bytes", remedy="find out what it is")
        rest = [(start, min(start + AHEAD, size)) for start in range(len(head), size, AHEAD)]
        self._seen.parts.want([(key, *each) for each in rest])
        return b"".join([head, *(self._seen.read(key, *each) for each in rest)])

    def _head(self, name: str) -> memoryview:
        """The beginning of a file. Raises `FileNotFoundError`."""
        return self._seen.read(self._place.key(name), 0, SMALL)

    def file(self, name: str) -> FarFile:
        return FarFile(self._seen, self._place.key(name))

    def ahead(self, parts: Mapping[str, Sequence[Range]]) -> None:
        keys = {self._place.key(name): ranges for name, ranges in parts.items()}
        wanted = [(key, *each) for key, ranges in keys.items() for each in ranges]
        requests = [(key, *each) for key, ranges in keys.items() for each in self._seen.requests(key, ranges)]
        self._seen.parts.want(requests, beside=wanted)

    def most_files(self) -> int:
        return 1 << 16  # none is held open


class FarFile:
    """See `softlabels.system.files.File`."""

    def __init__(self, seen: _Seen, key: str) -> None:
        self._seen, self._key, self._next = seen, key, 0

    @property
    def size(self) -> int:
        return self._seen.version(self._key).size

    def read_into(self, start: int, out: memoryview) -> int:
        end = start + len(out)
        data = self._seen.read(self._key, start, end, ahead=AHEAD if start == self._next else 0)
        out[: len(data)] = data
        self._next = start + len(data)
        return len(data)


class _Seen:
    """What all views of one place share: the version of each file, by its key, and the parts that are kept."""

    def __init__(self, place: Remote, versions: Mapping[str, Version] | None = None) -> None:
        self._root, self._versions = place.top(), dict(versions or {})
        self.parts, self._cache = Fetched(self._fetch), read_cache()
        self.entries: dict[str, Mapping[str, bool]] = {}  # of folders, by key

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._root, dict(self._versions))

    def version(self, key: str) -> Version:
        """That which is read. Raises `FileNotFoundError`."""
        if key not in self._versions and (part := self.parts.coming(key)) is not None:
            self._result(key, part)
        if key not in self._versions:
            self._pin(key, interruptible(self._root.stat, key))
        return self._versions[key]

    def requests(self, key: str, ranges: Sequence[Range]) -> Iterator[Range]:
        """The parts of a file to be fetched, for ranges of which some are there."""
        missing = [each for each in ranges if not self.parts.has(key, *each)]
        known = self._versions.get(key)
        small = known.size <= SMALL if known else all(end <= SMALL for _, end in missing)
        return joined([*missing, (0, SMALL)] if missing and small else missing)

    def read(self, key: str, start: int, end: int, *, ahead: int = 0) -> memoryview:
        """These bytes of a file, fetched with some `ahead`; fewer where it ends. Raises `FileNotFoundError`, `Replaced`,
        `StorageError`.
        """
        first, part = self.parts.find(key, start, end) or self.parts.want([(key, start, max(end, start + ahead))])[0]
        return self._result(key, part)[start - first : end - first]

    def _result(self, key: str, part: Future[memoryview]) -> memoryview:
        return result_of(part, f"{self._root.at(key)} has not come")

    def _fetch(self, key: str, start: int, end: int) -> memoryview:
        if self._cache is None or key.endswith(".json"):
            return self._asked(key, start, end)
        if key not in self._versions:
            self._pin(key, self._root.stat(key))
        part = f"{self._root.at(key)} {self._versions[key]} {start}-{end}"
        found = self._cache.get(part)
        if found is None:
            self._cache.put(part, found := self._asked(key, start, end))
        return found

    def _asked(self, key: str, start: int, end: int) -> memoryview:
        for left in reversed(range(_TRIES)):
            known = self._versions.get(key)
            if known is not None and start >= known.size:
                return memoryview(b"")
            try:
                data, version = self._root.fetch(key, start, end - start, known)
            except FileNotFoundError:
                if known is None:
                    raise
                raise Replaced.of(self._root.at(key)) from None  # it was there
            self._pin(key, version)
            wanted = max(0, min(end, version.size) - start)
            if len(data) == wanted:
                return data
            if left:
                time.sleep(0.1 * 2 ** (_TRIES - left))
        raise StorageError(
            f"cannot read {self._root.at(key)}: {len(data):,} bytes came instead of {wanted:,}",
            remedy="run the same command again; if that does not help, find out which server answers",
        )

    def _pin(self, key: str, version: Version) -> None:
        if self._versions.setdefault(key, version) != version:
            raise Replaced.of(self._root.at(key))
