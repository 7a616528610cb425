"""Where users say that a store lies, as the folder that stands for it; and whether a text names a place of this machine."""

from __future__ import annotations

import os
import re
from os import PathLike

from softlabels.errors import ConfigError, one_line
from softlabels.system.files import Folder
from softlabels.system.local import LocalFolder

Place = str | PathLike[str] | Folder


def folder_of(place: Place) -> Folder:
    """A path that the user names, as the root of what is below it; a folder as it is. Raises `ConfigError` for an address."""
    return LocalFolder(local_path(place)) if isinstance(place, (str, PathLike)) else place


def local_path(path: str | PathLike[str]) -> str:
    """The text of a path. Raises `ConfigError` for an address, also one with a slash too few; it may hold a password, which is
    not repeated.
    """
    text = os.fspath(path)
    if address := re.match(r"([a-z][a-z0-9+.-]+):/", text, re.IGNORECASE):
        raise ConfigError(
            f"an address ({one_line(address[1])}:) stands where a folder is needed",
            remedy="`softlabels pull ADDRESS STORE` and `push STORE ADDRESS` know addresses, such as s3://BUCKET/FOLDER",
        )
    return text


def lies_here(text: str) -> bool:
    """Whether a text is the absolute path of something on this machine."""
    return text.startswith("/") and os.path.exists(text)  # noqa: PTH110  # pathlib's raises where it is too long
