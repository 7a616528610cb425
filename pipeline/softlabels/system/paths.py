"""Paths of this machine, as users write them."""

from __future__ import annotations

import os
import re
from os import PathLike

from softlabels.errors import ConfigError, one_line


def local_path(path: str | PathLike[str]) -> str:
    """The text of a path. Raises `ConfigError` for an address, also one with a slash too few; it may hold a password, which is
    not repeated.
    """
    text = os.fspath(path)
    if address := re.match(r"([a-z][a-z0-9+.-]+):/", text, re.IGNORECASE):
        if isinstance(path, str) and not text.startswith("//", address.end() - 1):  # a Path has lost one itself
            raise ConfigError(
                f"{one_line(address[1])}:/ begins no address: a slash is missing",
                remedy=f"write {one_line(address[1])}://, or ./{one_line(address[1])}:/ for a folder of this machine",
            )
        raise ConfigError(
            f"an address ({one_line(address[1])}:) is given where a path of this machine is needed",
            remedy="stores are read and written at addresses (s3://BUCKET/FOLDER); runs, weights, exports and keys are on this "
            "machine; use `softlabels push FOLDER ADDRESS` and `softlabels pull ADDRESS FOLDER` for stores",
        )
    return text


def lies_here(text: str) -> bool:
    """Whether a text is the absolute path of something on this machine."""
    return text.startswith("/") and os.path.exists(text)  # noqa: PTH110  # pathlib's raises where it is too long
