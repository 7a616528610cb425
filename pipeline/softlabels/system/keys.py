"""Keys that sign: Ed25519, and ECDSA over P-256 with SHA-256, by the package cryptography (extra `sign`).

They are read from PEM files and from those of OpenSSH. No message repeats anything of a key, of a passphrase, or of what
cryptography says of one.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from softlabels.errors import ConfigError
from softlabels.objects import require_extra
from softlabels.system.durable import system_errors

PASSPHRASE = "SOFTLABELS_KEY_PASSPHRASE"  # the name of a variable  # noqa: S105
_MOST_BYTES = 1 << 16
_LINES = ("ssh-ed25519 ", "ecdsa-sha2-nistp256 ")  # what a public key of OpenSSH begins with
_KINDS = "give an Ed25519 or ECDSA P-256 key"


class PublicKey:
    """Says whether a signature is its own. `fingerprint`: what names it, as `ssh-keygen -l` prints it."""

    def __init__(self, key: Any) -> None:
        own = _part("hazmat.primitives.serialization")
        line = key.public_bytes(own.Encoding.OpenSSH, own.PublicFormat.OpenSSH)
        digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
        self.fingerprint = f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
        self._key = key

    def made(self, signature: bytes, data: bytes) -> bool:
        """Whether this is a signature of these bytes by the key."""
        try:
            self._key.verify(signature, data, *_scheme(self._key))
        except _part("exceptions").InvalidSignature:
            return False
        return True


class PrivateKey:
    """Signs. `public`: who says so."""

    def __init__(self, key: Any) -> None:
        self.public = PublicKey(key.public_key())
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """A signature of these bytes."""
        return bytes(self._key.sign(data, *_scheme(self.public._key)))


def public_key(key: str) -> PublicKey:
    """The public key in a file, PEM or OpenSSH's; or the one line of OpenSSH's itself, as recipes may hold it.

    Raises:
        ConfigError: there is none, or it is of another kind; above all where it is a private one. MissingExtra.
    """
    data, where = (key.encode(errors="replace"), "the key") if key.startswith(_LINES) else _read(key)
    if b"PRIVATE KEY" in data:
        raise ConfigError(
            f"{where} is a private key, and a public key is needed",
            remedy="give the public key (openssl pkey -in KEY -pubout), and keep this one secret",
        )
    if data.count(b"-----BEGIN") > 1 or (b"-----BEGIN" not in data and b"\n" in data.strip()):
        raise ConfigError(f"{where} holds more than one key or line", remedy="give a file for each")
    own = _part("hazmat.primitives.serialization")
    load = own.load_pem_public_key if data.lstrip().startswith(b"-----BEGIN") else own.load_ssh_public_key
    try:
        found = load(data.strip() + b"\n")
    except (ValueError, TypeError, _part("exceptions").UnsupportedAlgorithm):
        raise ConfigError(f"{where} holds no public key", remedy=f"{_KINDS}, as PEM or as OpenSSH's .pub") from None
    return PublicKey(_known(found, "PublicKey", where))


def private_key(path: str) -> PrivateKey:
    """The private key in a file, PEM or OpenSSH's. The passphrase of an encrypted one is taken from the environment.

    Raises:
        ConfigError: there is none, it is of another kind, or it is encrypted and the passphrase is not this. MissingExtra.
    """
    data, where = _read(path)
    own, unsupported = _part("hazmat.primitives.serialization"), _part("exceptions").UnsupportedAlgorithm
    load = own.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else own.load_pem_private_key
    if b"PRIVATE KEY" not in data:
        raise ConfigError(f"{where} holds no private key", remedy=f"{_KINDS} as PEM, the secret half")
    passphrase = os.environ.get(PASSPHRASE)
    try:
        try:
            found = load(data, None)
        except TypeError:  # it is encrypted
            if passphrase is None:
                raise ConfigError(f"{where} is encrypted", remedy=f"put its passphrase into ${PASSPHRASE}") from None
            found = load(data, passphrase.encode())
    except (ValueError, TypeError):
        raise ConfigError(
            f"{where} cannot be read as a private key{f' with the passphrase in ${PASSPHRASE}' * (passphrase is not None)}",
            remedy=f"{_KINDS}, and the right passphrase",
        ) from None
    except unsupported:
        raise ConfigError(
            f"{where} is of a kind, or encrypted in a way, that cannot be read", remedy=f"{_KINDS} as PEM"
        ) from None
    return PrivateKey(_known(found, "PrivateKey", where))


def _part(name: str) -> Any:
    require_extra("cryptography", extra="sign")
    return require_extra(f"cryptography.{name}", extra="sign")


def _known(key: Any, half: str, where: str) -> Any:
    """The key, where it is of a kind that is used here."""
    curve = _part("hazmat.primitives.asymmetric.ec")
    if isinstance(key, getattr(_part("hazmat.primitives.asymmetric.ed25519"), f"Ed25519{half}")):
        return key
    if isinstance(key, getattr(curve, f"EllipticCurve{half}")) and isinstance(key.curve, curve.SECP256R1):
        return key
    raise ConfigError(f"{where} holds a key of another kind", remedy=_KINDS)


def _scheme(public: Any) -> tuple[Any, ...]:
    """What signing and verifying take beside the bytes."""
    curve = _part("hazmat.primitives.asymmetric.ec")
    if not isinstance(public, curve.EllipticCurvePublicKey):
        return ()
    return (curve.ECDSA(_part("hazmat.primitives.hashes").SHA256()),)


def _read(path: str) -> tuple[bytes, str]:
    """A key's file, and what messages call it."""
    if "-----BEGIN" in path or "PRIVATE KEY" in path:
        raise ConfigError("a key is given instead of the name of its file", remedy="give the name of a file")
    with system_errors("read", Path(path)):
        if not Path(path).is_file():
            raise ConfigError(f"there is no file {path}, where a key is looked for", remedy="give the file of a key")
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path} is larger than any key", remedy=_KINDS)
    return data, path
