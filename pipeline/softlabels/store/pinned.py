"""What a store must be before a value of it is used: the one with a digest, and signed by a key."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from softlabels.errors import ConfigError, SpecMismatch, one_line, some
from softlabels.store.records import Manifest
from softlabels.store.signatures import require_signed
from softlabels.system.files import Files
from softlabels.system.keys import public_key


@dataclass(frozen=True)
class Pinned:
    """What a recipe says of it (section `pinned`).

    Attributes:
        signed_by: who must have signed every split: the file of a public key, PEM or OpenSSH's, or the line of the latter.
        digest: the digest of every split, by its name, as `softlabels info` prints it.
    """

    signed_by: str | None = None
    digest: dict[str, str] = field(default_factory=dict)

    @classmethod
    def told(cls, digest: str | None, signed_by: str | None, splits: Collection[str], *, remedy: str) -> Pinned:
        """What a command line says of these splits. Raises `ConfigError`: one digest of several, or none, or no key."""
        if digest is not None:
            _require_digest(digest)
            if len(splits) > 1:
                raise ConfigError(f"one digest, and the splits {some(splits)}", remedy=remedy)
        if signed_by is not None:
            public_key(signed_by)
        return cls(signed_by, {} if digest is None else dict.fromkeys(splits, digest))

    def require_splits(self, splits: Collection[str]) -> None:
        """Raise `SpecMismatch` where these are other splits than those whose digests are pinned."""
        gone, more = sorted({*self.digest} - {*splits}), sorted({*splits} - {*self.digest})
        if self.digest and (gone or more):
            lack = f"the store has no split {some(gone)}" if gone else f"no digest is pinned for the split {some(more)}"
            raise SpecMismatch(lack, remedy="pin a digest for every split of the store (pinned.digest), and no other")

    def require(self, store: Files, manifest: Manifest, split: str) -> None:
        """Raise `SpecMismatch` or `NotSigned` where a split is another store; see `require_pinned`."""
        require_pinned(store, manifest, digest=self.digest.get(split), signed_by=self.signed_by)
        own = manifest.spec.transfer_set.split
        if self.signed_by is not None and own != split:
            raise SpecMismatch(
                f"{store} is in the place of the split {split}, and was signed as the split {own}",
                remedy="ask its maker; a store that may have another name can be pinned by its digest only",
            )


def _require_digest(digest: str) -> None:
    """Raise `ConfigError` unless a text is a digest."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ConfigError(f"digest={one_line(digest)} is no digest", remedy="give the 64 digits that info prints")


def require_pinned(
    store: Files, manifest: Manifest, *, digest: str | None = None, signed_by: str | None = None
) -> None:
    """Check the manifest of a store against what it must be.

    Raises:
        SpecMismatch: it has another digest. NotSigned: no valid signature of this key is there.
        ConfigError: what was asked for is no digest, or no public key. MissingExtra: to check a signature.
    """
    if digest is not None:
        _require_digest(digest)
        if manifest.digest != digest:
            raise SpecMismatch(
                f"the store at {store} has the digest {manifest.digest}, not {digest}",
                remedy="ask the store's maker which one is right; nothing of it was used",
            )
    if signed_by is not None:
        require_signed(store, manifest, public_key(signed_by))
