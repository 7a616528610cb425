"""A folder of an object store (S3, Google Cloud Storage, Azure), by obstore.

Credentials are taken from the environment by obstore, and stay there: what it says of an error, which may repeat a signed
address, is never shown. Of it are taken the status and the code that the server gave.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

from softlabels.errors import Replaced, SoftLabelsError, StorageError
from softlabels.system.depots import PART, Parts, Remote, Version
from softlabels.system.patience import in_time, interruptible, patience, stalled

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import AzureStore, GCSStore, S3Store

    Client = AzureStore | GCSStore | S3Store

ELSEWHERE = "127.0.0.1:0"  # a proxy that is not there, behind which all other servers lie
MOST_LISTED = 1 << 22  # objects
MOST_ENTRIES = 1 << 16  # of a folder
_PAGE = 1000  # objects that are listed at once
_MOST_PARTS = 9000  # of an upload; S3 takes 10,000
_RENEW = (
    "check the credentials in the environment and what they allow, renew them where they have expired, and run the same "
    "command again; "
)
_RIGHTS = (
    "ask its owner for the right to do this, or set credentials that have it (docs/places.md), and run the same command "
    "again; "
)
_UNSET = "set the variables that docs/places.md lists for such an address, and run the same command again; "
_AGAIN = "check the address and the network, and run the same command again; "
_KEPT = "what was carried is kept"
_CODE = re.compile(
    r"(?:<Code>|\(code: )([A-Za-z]{1,40})(?:</Code>|\)$)", re.MULTILINE
)  # the latter: of one of many deletes
_NOT_ALLOWED = ("AccessDenied", "AuthorizationPermissionMismatch")  # of credentials that are valid
_REFUSED = re.compile(r"Expired|Token|Signature|AccessKey|Authentication|Authorization|Forbidden")


@dataclass(frozen=True)
class Bucket(Remote):
    """See `softlabels.system.depots.Depot`: the keys below `inside`, of a place that messages call `root`."""

    client: Client = field(repr=False, compare=False)  # nobody knows what it would show
    root: str
    inside: str = ""
    lists: ClassVar[bool] = True
    prepares: bool = False
    most_entries: ClassVar[int] = MOST_ENTRIES

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
        if not isinstance(other, Bucket) or other.root != self.root:
            return False
        here, there = f"{self.inside}/".lstrip("/"), f"{other.inside}/".lstrip("/")
        return here.startswith(there) or there.startswith(here)

    # Reading

    def sizes(self, name: str = "") -> Iterator[tuple[str, int]]:
        """See `Depot`; without empty objects, which consoles make of folders: no file of a store is empty."""
        import obstore

        lead, below, count = len(self.inside) + bool(self.inside), self.key(name), 0
        within = f"{below}/" * bool(below)
        with self._asked("list", name):
            pages = obstore.list(self.client, below or None, chunk_size=_PAGE)
            for page in _in_time(pages, f"the listing of {self.at(name)} has not ended", whole=True):
                count += len(page)
                if count > MOST_LISTED:
                    raise StorageError(
                        f"the listing of {self.at(name)} has not ended after {MOST_LISTED:,} objects",
                        remedy="give the address of one store",
                    )
                files = [(found["path"], found["size"]) for found in page if found["size"]]
                if any(not path.startswith(within) for path, _ in files):
                    raise StorageError(f"{self.root} lists keys outside of the request", remedy=_AGAIN + _KEPT)
                yield from ((path[lead:], size) for path, size in files)

    def list(self, name: str = "") -> Iterator[str]:
        return (found for found, _ in self.sizes(name))

    def exists(self, name: str = "") -> bool:
        try:
            return bool(name) and self.size(name) >= 0
        except FileNotFoundError:
            return self.is_folder(name)

    def size(self, name: str) -> int:
        import obstore

        with self._asked("look at", name):
            return interruptible(obstore.head, self.client, self.key(name))["size"]

    def opened(self, name: str) -> tuple[int, Iterator[bytes]]:
        import obstore

        with self._asked("read", name):
            found = interruptible(obstore.get, self.client, self.key(name))

        def pieces() -> Iterator[bytes]:
            with self._asked("read", name):
                pieces = found.stream(min_chunk_size=PART)
                yield from map(bytes, _in_time(pieces, f"{self.at(name)} has not come"))

        return found.meta["size"], pieces()

    def read(self, name: str, limit: int | None = None) -> bytes:
        size, pieces = self.opened(name)
        data = bytearray()
        for piece in () if limit is not None and size > limit else pieces:  # it may hold more than it says
            data += piece
            if limit is not None and len(data) > limit:
                break
        if limit is not None and max(size, len(data)) > limit:
            raise StorageError(f"{self.at(name)} is larger than {limit} bytes", remedy="find out what it is")
        return bytes(data)

    def file(self, name: str) -> Parts:
        return Parts(partial(self.part, name), self.size(name))

    def part(self, name: str, start: int, length: int) -> bytes:
        """Some bytes of a file; fewer where it ends."""
        import obstore

        with self._asked("read", name):
            data = bytes(interruptible(obstore.get_range, self.client, self.key(name), start=start, length=length))
        if len(data) > length:
            raise StorageError(
                f"cannot read {self.at(name)}: {len(data)} bytes came instead of {length}", remedy=_AGAIN
            )
        return data

    def stat(self, name: str) -> Version:
        import obstore

        with self._asked("look at", name, carries=False):
            return _version(interruptible(obstore.head, self.client, self.key(name)))

    def fetch(self, name: str, start: int, length: int, known: Version | None) -> tuple[memoryview, Version]:
        import obstore

        wanted: GetOptions = {"range": (start, start + length)}
        if known is not None and known.tag.startswith('"'):  # a weak one never matches
            wanted["if_match"] = known.tag
        with self._asked("read", name, carries=False):
            try:
                found = obstore.get(self.client, self.key(name), options=wanted)
                pieces = _each(found.stream(min_chunk_size=length))  # two at most: an answer may go on without end
                return memoryview(b"".join(islice(pieces, 2))), _version(found.meta)
            except obstore.exceptions.PreconditionError:
                raise Replaced.of(self.at(name)) from None
            except obstore.exceptions.GenericError as error:
                if not _ends_before(error):
                    raise
        return memoryview(b""), self.stat(name)

    @property
    def _skips(self) -> bool:
        """Whether a listing can begin behind a key. That of Azure begins anew."""
        return not self.root.startswith("az:")

    def entries(self, name: str) -> dict[str, bool]:
        import obstore

        below, found, empty = self.key(name), dict[str, bool](), 0
        lead = f"{below}/" if below else ""
        after = lead

        def pages() -> Iterator[Any]:
            if not self._skips:
                yield from obstore.list(self.client, below or None, chunk_size=_PAGE)
            while self._skips and (
                page := next(obstore.list(self.client, below or None, offset=after, chunk_size=_PAGE), None)
            ):
                yield page

        with self._asked("list", name, carries=False):
            for page in _in_time(pages(), f"the listing of {self.at(name)} has not ended", whole=True):
                before = dict(found)
                for each in page:
                    path: str = each["path"]
                    first, is_folder, _ = path[len(lead) :].partition("/")
                    again = self._skips and first in before and (before[first] or not is_folder)
                    empty += not each["size"]  # see `sizes`; one may be called as the folder itself
                    inside = path.startswith(lead) or (not each["size"] and f"{path}/" == lead)
                    if not inside or (again and each["size"]) or max(len(found), empty) > self.most_entries:
                        raise StorageError(
                            f"{self.at(name)} lists keys outside of the request, or more than {self.most_entries:,}",
                            remedy="give the address of one store, and check who answers there",
                        )
                    if each["size"]:
                        found[first] = found.get(first, False) or bool(is_folder)
                if len(page) < _PAGE:
                    break  # it was the last one
                after = f"{lead}{first}/\U0010ffff" if is_folder else path  # go on behind a folder
        return found

    # Writing

    def create(self, name: str, data: bytes, *, staged: str = "") -> bool:
        import obstore

        with self._asked("create", name):
            try:
                interruptible(obstore.put, self.client, self.key(name), data, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str = "") -> None:
        import obstore

        with self._asked("write", name):
            if size <= PART:
                interruptible(obstore.put, self.client, self.key(name), b"".join(pieces), use_multipart=False)
            else:
                part = max(PART, -(-size // _MOST_PARTS))
                interruptible(
                    obstore.put, self.client, self.key(name), iter(pieces), chunk_size=part, max_concurrency=4
                )

    @contextmanager
    def _asked(self, action: str, name: str, *, carries: bool = True) -> Iterator[None]:
        """What obstore raises, as errors of ours; none of them holds the text that it came with."""
        import obstore

        try:
            yield
        except (SoftLabelsError, obstore.exceptions.AlreadyExistsError):
            raise
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", self.at(name)) from None
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            why, remedy = _reason(error)
            remedy = remedy if carries else remedy.removesuffix(f"; {_KEPT}")
            raise StorageError(f"cannot {action} {self.at(name)}: {why}", remedy=remedy) from None


def _version(meta: ObjectMeta) -> Version:
    """By its ETag; a server without has the time of the last change, or nothing."""
    return Version(meta["size"], meta["e_tag"] or f"of {meta['last_modified']:%Y-%m-%d %H:%M:%S}")


def _each(found: Any) -> Iterator[Any]:
    """What an iterator of obstore gives."""
    return iter(lambda: interruptible(next, found, None), None)


def _in_time(found: Any, what: str, *, whole: bool = False) -> Iterator[Any]:
    """The same. Raises `Stalled`, saying `what`, where one of its items, or all together (`whole`), take too long."""
    waited = 0.0
    while True:
        began = time.monotonic()
        item = in_time(next, found, None, what=what)
        if item is None:
            return
        waited += time.monotonic() - began
        if whole and waited > patience():
            raise stalled(what)
        yield item


def _ends_before(error: Exception) -> bool:
    """Whether a file has no such byte."""
    return "status code: 416" in str(error).partition("Debug source")[0]


def _reason(error: Exception) -> tuple[str, str]:
    """Why a place refused, and what to do. Addresses and bodies stay out: a signed address is a password."""
    text, _, source = str(error).partition("Debug source")
    kind = type(error).__name__
    status, code = re.search(r"status code: (\d{3})", text), _CODE.search(text)
    if code is not None and code[1] in os.environ.values():  # it repeats a key
        code = None
    answer = " ".join(found[1] for found in (status, code) if found)
    if f"{ELSEWHERE}," in source or (status and status[1].startswith("3")):
        return "the server redirects to another one, or to a file", "give the address of the server that has the store"
    if "169.254." in text or "metadata.google" in text:  # where machines of a cloud are given theirs
        return "no credentials are found", _UNSET + _KEPT
    if code and code[1] in _NOT_ALLOWED:
        return f"these credentials do not allow it ({answer})", _RIGHTS + _KEPT
    denied = kind in ("PermissionDeniedError", "UnauthenticatedError") or (status and status[1] in ("401", "403"))
    if denied or (code and _REFUSED.search(code[1])):
        return f"it refuses the credentials ({answer or kind})", _RENEW + _KEPT
    if kind == "InvalidPathError":
        return (
            "a key there is no path (an empty step, `..`, or a character that is not seen)",
            "give the address of one store",
        )
    if kind == "NotSupportedError":
        return "the server gives no parts of files", "pull the whole store"
    if isinstance(error, ValueError):
        return "its name cannot be a key of an object", "give another address"
    if code and code[1] == "NoSuchBucket":
        return "there is no such bucket", "check the address, or create the bucket"
    if answer:
        return f"the server answered {answer}", _AGAIN + _KEPT
    return "no answer in time, or a broken one", _AGAIN + _KEPT
