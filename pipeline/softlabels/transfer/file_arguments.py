"""Prepare functions whose arguments name files: a vocabulary, a tokenizer, an image processor.

What such a function gives depends on what is in the files and not on where they lie. So wherever its arguments are written
down (the cache's identity, a store's specification) each such argument is replaced by a digest of the content: an edited
file makes a new cache, and two teams with one file in two places make the same store. A function says so itself::

    def _digests(*, vocabulary: str) -> dict[str, str]:
        return {"vocabulary": file_digest(vocabulary)}

    @reads_files(_digests, packages=("nltk",))
    def bag_of_words(rows: Sequence[Row], *, vocabulary: str) -> Array: ...
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from blake3 import blake3

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec, import_object
from softlabels.system.durable import system_errors

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__reads_files__"


class _Reads(NamedTuple):
    digests: Callable[..., Mapping[str, str | None]]
    packages: tuple[str, ...]


def reads_files(
    digests: Callable[..., Mapping[str, str | None]], *, packages: tuple[str, ...] = ()
) -> Callable[[F], F]:
    """Mark a prepare function that reads files.

    Args:
        digests: called with the function's keyword arguments; gives what is written down instead of those that it names;
            what is None is left out.
        packages: those whose version decides the function's results as well.

    Example:
        >>> from softlabels.transfer.file_arguments import file_digest, reads_files
        >>> @reads_files(lambda *, vocabulary: {"vocabulary": file_digest(vocabulary)})
        ... def bag_of_words(rows, *, vocabulary): ...
    """

    def mark(function: F) -> F:
        setattr(function, _MARK, _Reads(digests, packages))
        return function

    return mark


def recorded(spec: ObjectSpec) -> ObjectSpec:
    """`spec` as it is written down: arguments that name files are digests of what is in them, those that are null are left out.

    Raises what the function's own `digests` raises where a file is missing.
    """
    mark = getattr(import_object(spec.class_path), _MARK, None)
    if mark is None:
        return spec
    arguments = {**spec.init_args, **mark.digests(**spec.init_args)}
    return ObjectSpec(spec.class_path, {name: value for name, value in arguments.items() if value is not None})


def package_versions(spec: ObjectSpec) -> dict[str, str]:
    """Versions of the packages that the function names; a package that is not installed has none."""
    mark = getattr(import_object(spec.class_path), _MARK, None)
    return {} if mark is None else versions_of(mark.packages)


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the function itself says which extra is missing
    return found


def file_digest(*paths: Path | str) -> str:
    """`blake3:...` over the names and the bytes of files, in the order of their names; their folder does not count.

    Raises:
        TransferSetError: no such file. StorageError: it cannot be read.
    """
    hasher = blake3()
    for path in sorted(map(Path, paths), key=lambda path: path.name):
        if not path.is_file():
            raise TransferSetError(f"there is no file {path}", remedy="correct prepare.init_args")
        with system_errors("read", path):
            content = blake3(path.read_bytes()).hexdigest()
        hasher.update(f"{path.name}\0{content}\0".encode())
    return f"blake3:{hasher.hexdigest()}"
