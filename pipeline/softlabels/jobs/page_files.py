"""Where a page, or a list beside it, may be written: only its own kind is replaced, no recipe, no data, no file of a run."""

from __future__ import annotations

from pathlib import Path

from softlabels.errors import ConfigError
from softlabels.store.paths import MANIFEST
from softlabels.system.durable import system_errors

PAGE = "<!doctype html>"


def require_place(out: str | Path, begins: str = PAGE) -> None:
    """That a file which is written there replaces nothing but an empty file or one that begins so, and lies in no store.

    Raises:
        ConfigError: it would. StorageError: the system does not say.
    """
    path = Path(out)
    if not path.name or (path.exists() and not path.is_file()):
        what = f"{str(out)!r} is no file, and is not replaced"
    elif any((above / MANIFEST).is_file() for above in path.absolute().parents):
        what = f"{out} lies in a store, where only its own files may be"
    elif path.exists() and not _begins(path, begins.encode()):
        what = f"{out} is there, does not begin with {begins[:30]!r}, and is not replaced"
    else:
        return
    raise ConfigError(what, remedy="name another file (--out, --label_errors)")


def _begins(path: Path, begins: bytes) -> bool:
    with system_errors("read", path), path.open("rb") as file:
        found = file.read(len(begins))
    return found in (b"", begins)
