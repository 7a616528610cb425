"""The one door to where stores lie: what users name, as the files that are read there or the folder that is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from os import PathLike
from typing import TypeVar

from softlabels.system.bucket_folder import BucketFolder
from softlabels.system.far import FarFiles
from softlabels.system.files import Files, Folder
from softlabels.system.local import LocalFolder
from softlabels.system.patience import at_once
from softlabels.system.urls import is_address, remote_of, written_at

Named = str | PathLike[str]  # as users write it
Target = Named | Folder  # where a store is written
Place = Named | Files  # and where one is read
T = TypeVar("T")
R = TypeVar("R")


def folder_of(place: Target) -> Folder:
    """A path or an address that the user names, to be written; a folder as it is.

    Raises:
        ConfigError: no address that is known, or one at which nothing is written. MissingExtra: obstore is not installed.
    """
    if not isinstance(place, (str, PathLike)):
        return place
    text = os.fspath(place)
    return written_at(text) if is_address(text) else LocalFolder(text)


def reading(place: Files) -> Files:
    """A place that is written, to be read: far away what is wanted is fetched together, and each file has one version from here
    on.
    """
    return FarFiles(place) if isinstance(place, BucketFolder) else place


def each_of(place: Files, act: Callable[[T], R], each: Iterable[T]) -> list[R]:
    """What `act`, which asks the place something, gives of each, in order: far away all are asked at the same time."""
    return [act(one) for one in each] if place.near else at_once(act, each)


def files_of(place: Place) -> Files:
    """A path or an address that the user names, to be read; files as they are.

    Raises:
        ConfigError: no address that is known. MissingExtra: obstore is not installed.
    """
    if not isinstance(place, (str, PathLike)):
        return place
    text = os.fspath(place)
    if not is_address(text):
        return LocalFolder(text)
    found = remote_of(text, reads=True)
    return found if isinstance(found, LocalFolder) else FarFiles(found)
