"""A folder in memory, of one process: for tests, and to show that the port needs nothing that only a disk has."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Self

from softlabels.errors import Stalled, StorageError
from softlabels.system.patience import AGAIN, patience, slices


@dataclass(eq=False)
class _Shared:
    """What all views of one folder see."""

    files: dict[str, bytes] = field(default_factory=dict)
    writers: dict[str, int] = field(default_factory=dict)  # live ones by lock; -1: one that is alone
    changed: threading.Condition = field(default_factory=threading.Condition)


class MemoryFolder:
    """See `softlabels.system.files.Folder`. A folder is there while a file is below it.

    ::

        folder = MemoryFolder()
        write_store(folder.within("train"), logits, inputs=inputs)
    """

    near = lists = sees_writers = True

    def __init__(self, inside: str = "", shared: _Shared | None = None) -> None:
        self.inside, self._shared = inside, shared or _Shared()

    def __str__(self) -> str:
        return self.at()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryFolder) and (self.inside, self._shared) == (other.inside, other._shared)

    def __hash__(self) -> int:
        return hash((self.inside, id(self._shared)))

    @property
    def name(self) -> str:
        return self.inside.rpartition("/")[2]

    def at(self, name: str = "") -> str:
        return f"memory:/{self._key(name)}"

    def within(self, name: str) -> Self:
        return type(self)(self._key(name), self._shared)

    followed = within

    def above(self) -> Self:
        return type(self)(self.inside.rpartition("/")[0], self._shared)

    def overlaps(self, other: object) -> bool:
        if not isinstance(other, MemoryFolder) or other._shared is not self._shared:
            return False
        here, there = f"{self.inside}/".lstrip("/"), f"{other.inside}/".lstrip("/")
        return here.startswith(there) or there.startswith(here)

    def exists(self, name: str = "") -> bool:
        return self._key(name) in self._shared.files or self.is_folder(name)

    def is_folder(self, name: str = "") -> bool:
        return any(True for _ in self.list(name))

    def names(self, name: str = "") -> list[str]:
        lead = f"{name}/" if name else ""
        return sorted({found.removeprefix(lead).partition("/")[0] for found in self.list(name)})

    def folders(self, name: str = "") -> list[Self]:
        lead = f"{name}/" if name else ""
        return [self.within(lead + entry) for entry in self.names(name) if self.is_folder(lead + entry)]

    def list(self, name: str = "") -> Iterator[str]:
        root, below = f"{self.inside}/".lstrip("/"), f"{self._key(name)}/".lstrip("/")
        yield from (key.removeprefix(root) for key in sorted(self._shared.files) if key.startswith(below))

    def size(self, name: str) -> int:
        return len(self.read(name))

    def read(self, name: str, limit: int | None = None) -> bytes:
        try:
            data = self._shared.files[self._key(name)]
        except KeyError:
            raise FileNotFoundError(self.at(name)) from None
        if limit is not None and len(data) > limit:
            raise StorageError(f"{self.at(name)} is larger than {limit} bytes", remedy="find out what it is")
        return data

    def file(self, name: str) -> _File:
        return _File(self.read(name))

    def ahead(self, parts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """All is at hand."""

    def most_files(self) -> int:
        return 128

    def create(self, name: str, data: bytes, *, staged: str, durable: bool = True) -> bool:
        with self._shared.changed:
            free = self._key(name) not in self._shared.files
            if free:
                self.put(name, data)
        return free

    def put(self, name: str, data: bytes, *, staged: str | None = None, durable: bool = True) -> None:
        with self._shared.changed:
            self._shared.files[self._key(name)] = data

    @contextmanager
    def filled(self, name: str) -> Iterator[BytesIO]:
        out = BytesIO()
        yield out
        self.put(name, out.getvalue())

    def place(self, staged: Mapping[str, str]) -> None:
        for name, target in staged.items():
            with self._shared.changed, suppress(FileNotFoundError):
                self.put(target, self.read(name))  # first there, then gone here: who reads finds it under either name
                self.remove(name)

    def settle(self, names: Iterable[str]) -> None:
        """What is in memory is as durable as it will be."""

    def remove(self, name: str) -> None:
        self._shared.files.pop(self._key(name), None)

    def clear(self, name: str) -> None:
        for found in [name, *self.list(name)]:
            self.remove(found)

    def enter(self, lock: str) -> _Presence:
        return _Presence(self._shared, self._key(lock))

    def busy(self, lock: str) -> bool:
        return self._shared.writers.get(self._key(lock), 0) != 0

    def room(self) -> None:
        return None

    def block(self) -> int:
        return 1

    def _key(self, name: str) -> str:
        return f"{self.inside}/{name}".strip("/")


class MemoryDepot(MemoryFolder):
    """See `softlabels.system.depots.Depot`."""

    prepares = False

    def sizes(self) -> Iterator[tuple[str, int]]:
        yield from ((name, self.size(name)) for name in self.list())

    def opened(self, name: str) -> tuple[int, Iterator[bytes]]:
        data = self.read(name)
        return len(data), iter([data[:9], data[9:]])

    def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str) -> None:
        self.put(name, b"".join(pieces))


class _File:
    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read_into(self, start: int, out: memoryview) -> int:
        part = self._data[start : start + len(out)]
        out[: len(part)] = part
        return len(part)


class _Presence:
    def __init__(self, shared: _Shared, lock: str) -> None:
        self._shared, self._lock, self._held = shared, lock, 0

    def alone(self) -> bool:
        with self._shared.changed:
            self._leave()
            if self._shared.writers.get(self._lock, 0):
                return False
            self._held = self._shared.writers[self._lock] = -1
            return True

    def share(self) -> None:
        with self._shared.changed:
            self._leave()
            if not any(self._shared.changed.wait_for(self._nobody_alone, seconds) for seconds in slices()):
                raise Stalled(
                    f"another thread has been alone in memory:/{self._lock} for {patience():g} s", remedy=AGAIN
                )
            self._held = 1
            self._shared.writers[self._lock] = self._shared.writers.get(self._lock, 0) + 1

    def close(self) -> None:
        with self._shared.changed:
            self._leave()

    def _nobody_alone(self) -> bool:
        return self._shared.writers.get(self._lock, 0) >= 0

    def _leave(self) -> None:
        if self._held:
            self._shared.writers[self._lock] -= self._held
            self._held = 0
            self._shared.changed.notify_all()
