"""A folder of a web server, as a place from which whole stores are carried, and whose files are read by parts.

Whoever runs a server at an address may be a stranger: `asked` says how it is asked. It lists nothing, and nothing is written.
"""

from __future__ import annotations

import errno
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self, TypeVar
from urllib.parse import quote, urlsplit

from softlabels.errors import ConfigError, Replaced, StorageError, one_line
from softlabels.system import asked
from softlabels.system.asked import Answer, Server
from softlabels.system.depots import PART, Parts, Remote, Version
from softlabels.system.patience import interruptible

T = TypeVar("T")
_AGAIN = "check the address and the network, and run the same command again"
_WHO = "find out which server answers there"
_LONGEST = 180.0  # seconds in which a request is made again
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


@dataclass(frozen=True)
class WebFolder(Remote):
    """See `softlabels.system.depots.Remote`: the paths below `inside` of a server."""

    server: Server = field(compare=False)
    root: str
    inside: str = ""
    lists: ClassVar[bool] = False
    prepares: ClassVar[bool] = False

    def at(self, name: str = "") -> str:
        return "/".join(filter(None, (self.root, self.key(name))))

    def within(self, name: str) -> Self:
        return replace(self, inside=self.key(name))

    followed = within

    def above(self) -> Self:
        return replace(self, inside=self.inside.rpartition("/")[0])

    def top(self) -> Self:
        return replace(self, inside="")

    def overlaps(self, other: object) -> bool:
        return False  # nothing is written there

    def sizes(self) -> Iterator[tuple[str, int]]:
        raise StorageError(f"{self} lists nothing: a web server does not", remedy="name the split: --split=train")

    def list(self, name: str = "") -> Iterator[str]:
        return (found for found, _ in self.sizes())

    def entries(self, name: str) -> dict[str, bool]:
        return {}

    def is_folder(self, name: str = "") -> bool:
        return False

    def exists(self, name: str = "") -> bool:
        try:
            return bool(name) and self.size(name) >= 0
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int:
        return self.stat(name).size

    def stat(self, name: str) -> Version:
        return self._asked("look at", "HEAD", name, {}, self._version)

    def _version(self, found: Answer) -> Version:
        """By its ETag; a server without has the time of the last change, or nothing."""
        if found.size is None:
            raise _Refused("the server does not say how long it is", _WHO)
        return Version(found.size, _tag(found))

    def fetch(self, name: str, start: int, length: int, known: Version | None) -> tuple[memoryview, Version]:
        found = self._part(name, start, length, known)
        if found is None:
            raise StorageError(
                f"cannot read {self.at(name)}: the server gives no parts of files", remedy="pull the whole store"
            )
        return found

    def _part(self, name: str, start: int, length: int, known: Version | None) -> tuple[memoryview, Version] | None:
        """The same; None where the server gives no parts."""
        tag = known.tag if known is not None and known.tag.startswith('"') else ""  # a weak one never matches
        headers = {"Range": f"bytes={start}-{start + length - 1}"} | ({"If-Match": tag} if tag else {})

        def make(found: Answer) -> tuple[memoryview, Version] | int:
            return _read(found, start, length) if found.status == 206 else found.status

        made = self._asked("read", "GET", name, headers, make)
        if made == 412:
            raise Replaced.of(self.at(name))
        if made == 416:  # it has no such byte
            return memoryview(b""), self.stat(name)
        return None if isinstance(made, int) else made

    def opened(self, name: str) -> tuple[int, Iterator[bytes]]:
        """See `Depot`: by parts, or from first to last where the server gives none."""
        found = self._part(name, 0, PART, None)
        if found is None:
            size = self.size(name)
            return size, self._whole(name, size)
        first, version = found

        def pieces() -> Iterator[bytes]:
            yield bytes(first)
            for start in range(PART, version.size, PART):
                data, found = self.fetch(name, start, PART, version)
                if found != version:
                    raise Replaced.of(self.at(name))
                yield bytes(data)

        return version.size, pieces()

    def _whole(self, name: str, size: int) -> Iterator[bytes]:
        with self._words("read", name), self.server.ask("GET", self._path(name), {}) as found:
            _require(found)
            left = size + 1  # it may hold more than it says
            while left > 0 and (piece := found.read(min(PART, left))):
                left -= len(piece)
                yield piece

    def read(self, name: str, limit: int | None = None) -> bytes:
        size, pieces = self.opened(name)
        if limit is not None and size > limit:
            raise StorageError(f"{self.at(name)} is larger than {limit} bytes", remedy="find out what it is")
        return b"".join(pieces)

    def file(self, name: str) -> Parts:
        return Parts(partial(self.part, name), self.size(name))

    def part(self, name: str, start: int, length: int) -> bytes:
        """Some bytes of a file; fewer where it ends."""
        return bytes(self.fetch(name, start, length, None)[0])

    def create(self, name: str, data: bytes, *, staged: str = "") -> bool:
        raise self._read_only()

    def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str = "") -> None:
        raise self._read_only()

    def _read_only(self) -> ConfigError:
        return ConfigError(f"{self} is a web server, to which nothing is pushed", remedy="it is for pull only")

    # Asking

    def _path(self, name: str) -> str:
        return f"/{quote(self.key(name))}"

    def _asked(self, action: str, method: str, name: str, headers: dict[str, str], make: Callable[[Answer], T]) -> T:
        """What is made of the answer; asked again where it fails, for three minutes. Raises `FileNotFoundError`,
        `StorageError`.
        """
        began, pauses = time.monotonic(), iter(asked.PAUSES)
        with self._words(action, name):
            while True:
                try:
                    found: T = interruptible(self._once, method, name, headers, make)
                    return found
                except ssl.SSLCertVerificationError:
                    raise
                except (_Busy, *asked.FAILS):
                    pause = next(pauses, None)
                    if pause is None or time.monotonic() - began > _LONGEST:
                        raise
                time.sleep(pause)

    def _once(self, method: str, name: str, headers: dict[str, str], make: Callable[[Answer], T]) -> T:
        with self.server.ask(method, self._path(name), headers) as found:
            _require(found, part="Range" in headers)
            return make(found)

    @contextmanager
    def _words(self, action: str, name: str) -> Iterator[None]:
        """What goes wrong, as errors of ours, which repeat nothing that the server says but where it sends on to."""
        what = f"cannot {action} {self.at(name)}"
        try:
            yield
        except _Gone:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.at(name)) from None
        except (_Refused, _Busy) as refused:
            remedy = _AGAIN if isinstance(refused, _Busy) else refused.remedy
            raise StorageError(f"{what}: {refused}", remedy=remedy) from None
        except ssl.SSLCertVerificationError as error:
            raise StorageError(
                f"{what}: its certificate is not trusted ({one_line(error.verify_message)})",
                remedy="check the address, or name the file of the authority that signed it: SSL_CERT_FILE=ca.pem",
            ) from None
        except asked.FAILS:
            raise StorageError(f"{what}: no answer in time, or a broken one", remedy=_AGAIN) from None


class _Busy(Exception):
    """What may go well the next time."""


class _Gone(Exception):
    """There is no such file."""


class _Refused(Exception):
    """An answer that is of no use, and what to do."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def _require(found: Answer, *, part: bool = False) -> None:
    """Refuse what no answer is that has a file, or, where a `part` was asked for, that or nothing of it."""
    status = found.status
    if status in (404, 410):
        raise _Gone
    if status in (401, 403, 407):
        raise _Refused(f"access is denied ({status})", "a web server is sent no credentials: use another place")
    if 300 <= status < 400:
        raise _Refused(
            f"the server redirects to {_site(found.header('Location'))}, and redirects are not followed",
            "give the address of the server that has the store, if you trust it",
        )
    if status in asked.AGAIN:
        raise _Busy(f"the server answered {status}")
    if status != 200 and not (part and status in (206, 412, 416)):
        raise _Refused(f"the server answered {status}", _WHO)
    if found.header("Content-Encoding").lower() not in ("", "identity"):
        raise _Refused("the answer is compressed, which was not requested", _WHO)


def _site(location: str) -> str:
    """The server in an address, without a path, which may be a secret."""
    try:
        parts = urlsplit(location)
        return (
            f"{one_line(parts.scheme)}://{one_line(parts.netloc.rpartition('@')[2])}"
            if parts.netloc
            else "another path"
        )
    except ValueError:
        return "what is no address"


def _read(found: Answer, start: int, length: int) -> tuple[memoryview, Version]:
    """A part, which is the one that was asked for, or the beginning of it where the file ends."""
    said = _RANGE.fullmatch(found.header("Content-Range"))
    if said is None:
        raise _Refused("the server does not say which part it gives", _WHO)
    first, last, size = map(int, said.groups())
    count = last + 1 - first
    if first != start or count != min(length, size - start) or last >= size:
        raise _Refused(f"bytes {first:,} to {last:,} of {size:,} came instead of {length:,} from {start:,}", _WHO)
    if found.size not in (None, count):
        raise _Refused(f"{found.size:,} bytes came instead of {count:,}", _WHO)
    data = found.read(count)
    if len(data) < count or found.read(1):
        raise EOFError
    return memoryview(data), Version(size, _tag(found))


def _tag(found: Answer) -> str:
    return found.header("ETag") or f"of {found.header('Last-Modified')}"
