"""The salt of a transfer set's content keys: who is given the store and not the salt cannot tell whether a row is in it.

The recipe names where the salt is, and never the salt itself: `env:NAME` for a variable of the environment, else a file.
Nothing that is written by softlabels holds it. What it does to a key is in `keys`.
"""

from __future__ import annotations

import os
from pathlib import Path

from softlabels.errors import ConfigError
from softlabels.system.local import LocalFolder

LEAST, MOST = 16, 1 << 16  # bytes
_ENVIRONMENT = "env:"
_HOW = f"give {LEAST} random bytes or more, as `openssl rand -hex 32` prints them"


def read_salt(named: str) -> bytes:
    """The salt that `transfer_set.key_salt` names: the bytes, without blanks around them.

    Raises:
        ConfigError: there is none, or one that could be guessed.
    """
    if named.startswith(_ENVIRONMENT):
        where = f"the environment variable {named.removeprefix(_ENVIRONMENT)}"
        salt = os.fsencode(os.environ.get(named.removeprefix(_ENVIRONMENT), ""))
    else:
        where, salt = f"the file {named}", _of_file(Path(named).expanduser())
    salt = salt.strip()
    if len(salt) < LEAST:
        what = f"{len(salt)} bytes, which can be guessed" if salt else "nothing"
        raise ConfigError(f"transfer_set.key_salt: {where} holds {what}", remedy=f"{_HOW}, and keep them")
    return salt


def _of_file(path: Path) -> bytes:
    try:
        return LocalFolder(path.parent).read(path.name, MOST)
    except FileNotFoundError:
        raise ConfigError(
            f"transfer_set.key_salt: there is no file {path}",
            remedy="give the file with the salt that the store was made with, or env:NAME for a variable of the environment",
        ) from None
