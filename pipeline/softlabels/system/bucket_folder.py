"""A folder of an object store, to write: what a commit asks of a place, by a server that may answer late or not at all.

Nobody there knows who is alive (`sees_writers`), so that claims say who is at work, and what is staged goes once the store is
sealed. What decides is `create`: a put that a server refuses where the name is taken. Some accept it and overwrite, so that of
two writers both would win: `enter` tries that first.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from softlabels.errors import Replaced, StorageError
from softlabels.system.bucket import MOST_LISTED, Bucket
from softlabels.system.depots import PART, Parts
from softlabels.system.patience import at_once, interruptible

if TYPE_CHECKING:
    from obstore import WritableFile

    from softlabels.system.bucket import Client

MOST_COPIED = 5 * 1000**3  # bytes of an object that S3 copies in one request
_PROBES = 3  # names that are tried before a server counts as one that overwrites them
_PAUSES = (0.1, 0.4, 1.6, 6.4)  # seconds before a name is asked for again


@dataclass(frozen=True)
class BucketFolder(Bucket):
    """See `softlabels.system.files.Folder`. `once` is the client again, one that sends each request once."""

    once: Client | None = field(default=None, repr=False, compare=False)
    sees_writers: ClassVar[bool] = False
    most_entries: ClassVar[int] = MOST_LISTED

    def exists(self, name: str = "") -> bool:
        if self.key(name):
            with suppress(FileNotFoundError):
                return self.size(name) >= 0
        return super().is_folder(name)

    def is_folder(self, name: str = "") -> bool:
        """The place itself is one unless an object has its name: whether anything lies in it changes while others write."""
        if name or not self.key(""):
            return super().is_folder(name)
        try:
            return not self.size("")  # an empty object is what consoles make of a folder
        except FileNotFoundError:
            return True

    def names(self, name: str = "") -> list[str]:
        return sorted(self.entries(name))

    def folders(self, name: str = "") -> list[Self]:
        inner, found = f"{name}/" if name else "", self.entries(name)
        return [self.within(inner + each) for each in sorted(found) if found[each]]

    def file(self, name: str) -> Parts:
        """Of the content that it has now: once another one stands there, reading raises `Replaced`."""
        known = self.stat(name)

        def part(start: int, length: int) -> bytes:
            with suppress(FileNotFoundError):
                data, found = self.fetch(name, start, length, known)
                if found == known:
                    return bytes(data)
            raise Replaced.of(self.at(name))

        return Parts(part, known.size)

    def create(self, name: str, data: bytes, *, staged: str = "", durable: bool = True) -> bool:
        """Where an answer was lost, and the next one says that the name is taken, what stands there says by whom."""
        import obstore

        pauses, was_lost = iter(_PAUSES), False
        while True:
            with self._asked("create", name):
                try:
                    put = (self.once, self.key(name), data)
                    interruptible(obstore.put, *put, mode="create", use_multipart=False)
                    return True
                except obstore.exceptions.AlreadyExistsError:
                    return was_lost and self._holds(name, data)
                except obstore.exceptions.GenericError:
                    pause = next(pauses, None)
                    if pause is None:
                        raise
            was_lost = True
            time.sleep(pause)

    def _holds(self, name: str, data: bytes) -> bool:
        with suppress(FileNotFoundError):
            return self.size(name) == len(data) and self.read(name) == data
        return False

    def put(self, name: str, data: bytes, *, staged: str | None = None, durable: bool = True) -> None:
        self.fill(name, [data], len(data))

    @contextmanager
    def filled(self, name: str) -> Iterator[_Sink]:
        """Sent in parts where it is large. An upload that is given up shows nothing; S3 keeps its parts until a rule of the
        bucket removes them.
        """
        import obstore

        with self._asked("write", name):
            writer = obstore.open_writer(self.client, self.key(name), buffer_size=PART, max_concurrency=2)
        yield _Sink(self, name, writer)
        with self._asked("write", name):
            interruptible(writer.close)

    def place(self, staged: Mapping[str, str]) -> None:
        """Copied by the server, as far as it does that, then removed."""
        there = [name for name, found in zip(staged, at_once(self._copy, staged.items()), strict=True) if found]
        self._remove(there)

    def _copy(self, names: tuple[str, str]) -> bool:
        """Whether there was something to copy. What is too large for the server is carried through this machine."""
        import obstore

        name, target = names
        try:
            with self._asked("copy", name):
                interruptible(obstore.copy, self.client, self.key(name), self.key(target))
        except FileNotFoundError:
            return False
        except StorageError:
            with suppress(FileNotFoundError):  # another writer has placed it meanwhile
                if self.size(name) <= MOST_COPIED:
                    raise
                size, pieces = self.opened(name)
                self.fill(target, pieces, size)
                return True
            return False
        return True

    def settle(self, names: Iterable[str]) -> None:
        """Whatever a server has confirmed, is durable."""

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._delete([name])

    def _remove(self, names: Sequence[str]) -> None:
        """In one request, where the server has such; some have none, or stop at the first that is gone."""
        try:
            self._delete(names)
        except (FileNotFoundError, StorageError):
            for name in names:
                self.remove(name)

    def _delete(self, names: Sequence[str]) -> None:
        import obstore

        if names:
            with self._asked("remove", names[0]):
                interruptible(obstore.delete, self.client, [*map(self.key, names)])

    def clear(self, name: str) -> None:
        with suppress(StorageError):
            self._remove([*self.list(name)] or [name])

    def enter(self, lock: str) -> _Unseen:
        """Raises `StorageError` for a server that overwrites names that are taken."""
        if not any(self._keeps_taken(lock) for _ in range(_PROBES)):
            raise StorageError(
                f"{self} overwrites existing names, so two workers could both believe that they won",
                remedy="use a server that supports If-None-Match, or write to a folder",
            )
        return _Unseen()

    def _keeps_taken(self, lock: str) -> bool:
        """Whether a name that is taken was refused; nor where another worker, which seals the store, removed it meanwhile."""
        name = f"{lock.rpartition('/')[0]}/{uuid.uuid4().hex}.probe".lstrip("/")
        try:
            first, second = self.create(name, b"first"), self.create(name, b"second")
            return first and not second and self.read(name, 9) == b"first"
        except FileNotFoundError:
            return False
        finally:
            self.clear(name)

    def busy(self, lock: str) -> bool:
        return False

    def block(self) -> int:
        return 1

    @contextmanager
    def _asked(self, action: str, name: str, *, carries: bool = False) -> Iterator[None]:
        try:
            with super()._asked(action, name, carries=False):
                yield
        except FileNotFoundError:
            if action in ("create", "list", "write"):
                raise StorageError(
                    f"there is no bucket at {self.root}", remedy="check the address, or create the bucket"
                ) from None
            raise


class _Sink:
    """See `softlabels.system.files.Sink`."""

    def __init__(self, folder: BucketFolder, name: str, writer: WritableFile) -> None:
        self._folder, self._name, self._writer = folder, name, writer

    def write(self, data: bytes | memoryview) -> None:
        with self._folder._asked("write", self._name):
            if len(data):
                interruptible(self._writer.write, memoryview(data).cast("B"))


class _Unseen:
    """See `softlabels.system.files.Presence`: nobody can tell."""

    def alone(self) -> bool:
        return False

    def share(self) -> None:
        return

    def close(self) -> None:
        return
