"""Where users say that a store lies, as the folder that stands for it; and whether a text names a place of this machine."""

from __future__ import annotations

import os
from os import PathLike

from softlabels.system.files import Folder
from softlabels.system.local import LocalFolder

Place = str | PathLike[str] | Folder


def folder_of(place: Place) -> Folder:
    """A path that the user names, as the root of what is below it; a folder as it is."""
    return LocalFolder(place) if isinstance(place, (str, PathLike)) else place


def lies_here(text: str) -> bool:
    """Whether a text is the absolute path of something on this machine."""
    return text.startswith("/") and os.path.exists(text)  # noqa: PTH110  # pathlib's raises where it is too long
