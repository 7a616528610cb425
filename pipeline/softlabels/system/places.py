"""The one door to where stores lie: what users name, as the files that are read there or the folder that is written."""

from __future__ import annotations

import os
from os import PathLike

from softlabels.system.far import FarFiles
from softlabels.system.files import Files, Folder
from softlabels.system.local import LocalFolder
from softlabels.system.paths import local_path
from softlabels.system.urls import is_address, remote_of, written_at

Named = str | PathLike[str]  # as users write it
Target = Named | Folder  # where a store is written
Place = Named | Files  # and where one is read


def folder_of(place: Target, *, far: bool = False) -> Folder:
    """A path that the user names, as the root of what is below it; a folder as it is. `far`: or an address of an object store.

    Raises:
        ConfigError: an address at which nothing is written. MissingExtra: obstore is not installed.
    """
    if not isinstance(place, (str, PathLike)):
        return place
    text = os.fspath(place)
    return written_at(text) if far and is_address(text) else LocalFolder(local_path(text))


def files_of(place: Place) -> Files:
    """A path or an address that the user names, to be read; files as they are.

    Raises:
        ConfigError: no address that is known. MissingExtra: obstore is not installed.
    """
    if not isinstance(place, (str, PathLike)):
        return place
    text = os.fspath(place)
    if not is_address(text):
        return LocalFolder(local_path(text))
    found = remote_of(text, reads=True)
    return found if isinstance(found, LocalFolder) else FarFiles(found)
