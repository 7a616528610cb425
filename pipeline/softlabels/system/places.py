"""Where users say that a store lies, as the folder that stands for it."""

from __future__ import annotations

from os import PathLike

from softlabels.system.files import Folder
from softlabels.system.local import LocalFolder

Place = str | PathLike[str] | Folder


def folder_of(place: Place) -> Folder:
    """A path that the user names, as the root of what is below it; a folder as it is."""
    return LocalFolder(place) if isinstance(place, (str, PathLike)) else place
