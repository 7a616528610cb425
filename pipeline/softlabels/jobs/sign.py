"""`sign`: somebody vouches for a store, or for every split of a folder of stores."""

from __future__ import annotations

from softlabels.jobs.watch import LOGGED, Watch
from softlabels.store import open_store, store_splits
from softlabels.store.signatures import read_signatures
from softlabels.store.signatures import sign as sign_store
from softlabels.system.keys import private_key
from softlabels.system.places import Target, folder_of


def sign(store: Target, key: str, *, watch: Watch = LOGGED) -> dict[str, str]:
    """Sign the manifest of a sealed store, or of each split of a folder.

    Signatures of other keys stay. A key signs a store only once.

    Args:
        store: its folder or address. key: the file of a private key, Ed25519 or ECDSA P-256; the passphrase of an encrypted one
            is read from $SOFTLABELS_KEY_PASSPHRASE. watch: gets the messages.

    Returns:
        The digest of each split.

    Raises:
        ConfigError: no such key. UnsealedStore, StorePathError: nothing to sign. DamagedManifest: it disagrees with itself.
        MissingExtra: the package cryptography is not installed.

    Example:
        >>> from subprocess import run
        >>> done = run("openssl genpkey -algorithm ed25519 -out team.pem".split(), check=True, capture_output=True)
        >>> [*sign("stores/noise", "team.pem")]
        ['test', 'train']
    """
    own, splits = private_key(key), store_splits(folder_of(store))
    opened = {split: open_store(folder) for split, folder in splits.items()}
    for folder in splits.values():  # before any is signed
        read_signatures(folder)
    for split, found in opened.items():
        sign_store(splits[split], found.manifest, own)
        watch.say(f"{split}: digest {found.digest} signed by {own.public.fingerprint}")
    return {split: found.digest for split, found in opened.items()}
