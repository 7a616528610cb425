"""Who vouches for a sealed store: signatures of its manifest, in a file beside it that no digest covers and that travels along.

What is signed is a small statement with the store's `digest` and the manifest's `seal`. These follow from every byte of plan,
manifest, commit records and shards, so that a part of the files can be checked without the others.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from softlabels.errors import ConfigError, NotSigned, some
from softlabels.store.commit import alone, replace
from softlabels.store.json_files import decode_json, encode_json, pretty_json, read_small_file
from softlabels.store.paths import SIGNATURES
from softlabels.store.records import Manifest
from softlabels.store.spec import Record
from softlabels.system.files import Files, Folder
from softlabels.system.keys import PrivateKey, PublicKey

CONTEXT = "softlabels: signature of a store"  # so that it is one of nothing else
MOST = 64
_MOST_BYTES = 1 << 16


class Signature(Record, kw_only=True, frozen=True):
    """Of a key, by its fingerprint: 64 bytes of Ed25519, or a DER sequence of ECDSA, as hexadecimal digits."""

    key: Annotated[str, Meta(pattern=r"^SHA256:[A-Za-z0-9+/]{43}\Z")]
    signature: Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){8,80}\Z")]


class Signatures(Record, kw_only=True, frozen=True):
    """signatures.json: at most one of each key, in the order of their fingerprints."""

    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MOST)] = ()


def statement(manifest: Manifest) -> bytes:
    """What is signed, as canonical JSON."""
    return encode_json({"context": CONTEXT, "digest": manifest.digest, "seal": manifest.seal, "version": 1})


def read_signatures(store: Files) -> tuple[Signature, ...]:
    """The signatures beside a manifest, which nobody checked. Raises `DamagedManifest` for a file that holds something else."""
    try:
        data = read_small_file(store, SIGNATURES, _MOST_BYTES)
    except FileNotFoundError:
        return ()
    return decode_json(data, Signatures, str(store.at(SIGNATURES))).signatures


def signatures_file(first: tuple[Signature, ...], more: tuple[Signature, ...] = ()) -> bytes:
    """A file of all these signatures; of a key that has two, that in `more`. Raises `ConfigError` where they are too many."""
    found = {each.key: each for each in (*first, *more)}
    if len(found) > MOST:
        raise ConfigError(
            f"a store has at most {MOST} signatures, and these are {len(found)}",
            remedy=f"remove unused ones from {SIGNATURES}",
        )
    return pretty_json(Signatures(signatures=tuple(found[key] for key in sorted(found))))


def sign(store: Folder, manifest: Manifest, key: PrivateKey) -> None:
    """Put a signature beside the manifest, unless a valid one of this key is there."""
    with alone(store):  # others may sign too
        standing = read_signatures(store)
        if not _is_signed(standing, manifest, key.public):
            made = Signature(key=key.public.fingerprint, signature=key.sign(statement(manifest)).hex())
            replace(store, SIGNATURES, signatures_file(standing, (made,)))


def require_signed(store: Files, manifest: Manifest, key: PublicKey) -> None:
    """Raise `NotSigned` unless `key` signed this manifest."""
    found = read_signatures(store)
    if _is_signed(found, manifest, key):
        return
    names = [each.key for each in found]
    if key.fingerprint in names:
        what = (
            f"the signature of {key.fingerprint} at {store} is not one of this store: it, or the manifest, is another"
        )
    elif names:
        what = f"{store} is not signed by {key.fingerprint}, but, so it says, by {some(names)}"
    else:
        what = f"{store} is not signed"
    check = "check the key; where it is right, " if names else ""
    raise NotSigned(what, remedy=f"{check}use nothing of it; get the store again from its maker")


def _is_signed(found: tuple[Signature, ...], manifest: Manifest, key: PublicKey) -> bool:
    said = statement(manifest)
    return any(each.key == key.fingerprint and key.made(bytes.fromhex(each.signature), said) for each in found)
