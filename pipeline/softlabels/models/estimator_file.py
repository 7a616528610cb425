"""Files of fitted estimators. A `.skops` file is read with a list of the types that may be in it; a `.joblib` file is a pickle
and runs whatever it names, so both are opened only where the user's own recipe names them (docs/security.md).
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

from softlabels.errors import WeightsError, some
from softlabels.objects import require_extra
from softlabels.store.digest import blake3_hex
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder

SUFFIXES = (".skops", ".joblib")
_EXTRA = "tables"
_SCHEMA = "schema.json"  # of a skops file: all objects but arrays
_NUMBER = re.compile(r'(?<="__id__": )\d+|(?<=")\d+(?=\.np[yz]")')


def read_estimator(path: Path, packages: Collection[str]) -> tuple[Any, str]:
    """A fitted estimator, and the blake3 of its file.

    Args:
        packages: whose types a `.skops` file may hold beside those that skops and scikit-learn know: those of the recipe's
            class paths.

    Raises:
        WeightsError: no such file, another kind of file, one that is not whole, or one of other types.
        MissingExtra: the package that reads it is not installed. StorageError: it cannot be read.
    """
    require_kind(path)
    with system_errors("read", path):
        data = path.read_bytes()
    if path.suffix == ".joblib":
        return require_extra("joblib", extra=_EXTRA).load(io.BytesIO(data)), blake3_hex(data)
    skops = require_extra("skops.io", extra=_EXTRA)
    try:
        doubtful = skops.get_untrusted_types(data=data)
        if strange := [name for name in doubtful if not _is_known(name, {"sklearn", *packages})]:
            raise WeightsError(
                f"{path} holds types that are not from the packages that the recipe names: {some(strange)}",
                remedy="check what they are; if you trust the file, fit the estimator again with `softlabels train-teacher`",
            )
        return skops.loads(data, trusted=doubtful), blake3_hex(data)
    except WeightsError:
        raise
    except Exception as error:  # skops says in many ways that a file is none of its own
        raise WeightsError(
            f"{path} is not a complete skops file: {type(error).__name__}: {error}", remedy="save or fetch it again"
        ) from error


def _is_known(name: str, packages: Collection[str]) -> bool:
    """Whether it is a type that one of these packages defines, or a score of scikit-learn. A function of a package could be
    called by a file with any arguments, and a module has names of others, such as those of subprocess.
    """
    module, _, own = name.rpartition(".")
    if module.partition(".")[0] not in packages:
        return False
    found = getattr(importlib.import_module(module), own)
    home = str(getattr(found, "__module__", ""))
    return home.partition(".")[0] in packages if isinstance(found, type) else home.startswith("sklearn.metrics.")


def write_estimator(fitted: Any, path: Path) -> None:
    """Write a fitted estimator; atomic and flushed. Raises as `read_estimator`; DiskFull."""
    require_kind(path)
    if path.suffix == ".joblib":
        out = io.BytesIO()
        require_extra("joblib", extra=_EXTRA).dump(fitted, out)
        data = out.getvalue()
    else:
        data = _canonical(require_extra("skops.io", extra=_EXTRA).dumps(fitted))
    folder = LocalFolder(path.parent)
    folder.make()
    folder.put(path.name, data)


def _canonical(data: bytes) -> bytes:
    """A skops file whose bytes do not show when it was written, and where in memory its objects were: so the same estimator,
    fitted again, has the same digest. Its arrays are files named by numbers, which objects have too.
    """
    numbers: dict[str, str] = {}

    def renumbered(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], str(len(numbers)))

    out = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as old, ZipFile(out, "w") as new:
        schema = _NUMBER.sub(renumbered, old.read(_SCHEMA).decode())
        files = {
            _NUMBER.sub(renumbered, f'"{name}"')[1:-1]: old.read(name) for name in old.namelist() if name != _SCHEMA
        }
        for name, found in sorted((files | {_SCHEMA: schema.encode()}).items()):
            new.writestr(ZipInfo(name), found)
    return out.getvalue()


def require_kind(path: Path) -> None:
    """Raise `WeightsError` where the name is of another kind of file."""
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"{path} is to hold an estimator of scikit-learn",
            remedy="give a name that ends in .skops, or in .joblib, which is a pickle and runs code when it is read",
        )
