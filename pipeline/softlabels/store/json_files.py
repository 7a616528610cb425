"""A store's JSON files: strict, canonical, no larger than their limits, and never read through a link."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

from softlabels.errors import DamagedManifest, LaterFormat, StrangePath
from softlabels.store.records import Commit
from softlabels.store.spec import FORMAT
from softlabels.system.files import Files

# What to do about a file that says what the store is, and about one of a shard.
RESTORE = "get this file again from the store's maker, or run `softlabels repair`; if that cannot, label again"
RELABEL = "get this file again from the store's maker, or run `softlabels repair` and then the command that made it"
MAX_JSON_BYTES = 1 << 25  # plan and manifest; a specification and 138 bytes a shard
MAX_RECORD_BYTES = 1 << 27  # a commit record; about 71 bytes a block and 120 a chunk of a column
T = TypeVar("T")
_making = threading.Lock()
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def encode_json(record: msgspec.Struct | dict[str, Any]) -> bytes:
    """Canonical JSON: keys sorted, no spaces, UTF-8."""
    return msgspec.json.encode(record, order="sorted")


def pretty_json(record: msgspec.Struct | dict[str, Any]) -> bytes:
    """The same for people, with a line break at the end."""
    return msgspec.json.format(encode_json(record), indent=1) + b"\n"


def decode_json(data: bytes, kind: type[T], where: str) -> T:
    """Strict JSON into `kind`; `DamagedManifest` naming file and field otherwise, `LaterFormat` for a later format."""
    try:
        return _decode(data, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_later_format(data, where)
        raise DamagedManifest(f"{where} does not fit the format: {error}", remedy=RESTORE) from error


def _decode(data: bytes, kind: type[T]) -> T:
    with _making:  # msgspec looks at a class when it is first asked for it; two threads that begin that together crash
        decoder = _decoders.get(kind) or _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    found: T = decoder.decode(data)
    return found


class _Version(msgspec.Struct):
    format: int


def _refuse_later_format(data: bytes, where: str) -> None:
    try:
        version = _decode(data, _Version).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if version > FORMAT:
        raise LaterFormat(
            f"{where} is of store format {version}, and this version of softlabels reads up to {FORMAT}",
            remedy="install a newer softlabels",
        )


def plain_json(record: msgspec.Struct) -> dict[str, Any]:
    """A record as JSON's own values."""
    values: dict[str, Any] = msgspec.json.decode(encode_json(record))
    return values


def read_json(store: Files, name: str, kind: type[T]) -> T:
    """Read and decode one of the store's JSON files, as `read_small_file` does."""
    limit = MAX_RECORD_BYTES if kind is Commit else MAX_JSON_BYTES
    return decode_json(read_small_file(store, name, limit), kind, str(store.at(name)))


def read_small_file(store: Files, name: str, limit: int = MAX_RECORD_BYTES) -> bytes:
    """The bytes of a plain file of at most `limit`, reached without a link; `FileNotFoundError` where there is none."""
    store.ahead({name: [(0, 1)]})
    try:
        if store.size(name) > limit:
            raise DamagedManifest(f"{store.at(name)} is larger than {limit} bytes", remedy=RESTORE)
        return store.read(name, limit)
    except StrangePath as error:
        raise DamagedManifest(error.what, remedy=error.remedy) from error


def bytes_at(store: Files, name: str) -> bytes | None:
    """The same, and None where there is no such file, be it that a link or a folder stands there."""
    try:
        return read_small_file(store, name)
    except (FileNotFoundError, DamagedManifest):
        return None
