"""A Hugging Face folder, local or fetched from the hub: where its files are, and how one of ours is written. Extra `[hf]`.

Only the files that are asked for are fetched, never pickles and never code. Neighbours: `text` and `vision` read what
prepares inputs, `softlabels.models.hf` reads weights.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from softlabels.errors import ConfigError
from softlabels.objects import require_extra
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder, local_folder


def pretrained_folder(name: str, *, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The local folder `name`, or where the hub's files of that id that match `patterns` lie once they are fetched.

    Args:
        name: a folder, or a hub id (owner/name); a folder of that name comes first.
        revision: branch, tag or commit on the hub.
        patterns: names of files at the top of the repository, as in `fnmatch`.

    Raises:
        MissingExtra: the package huggingface_hub is not installed.
        ConfigError: no such folder, and the hub does not give one.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    hub = require_extra("huggingface_hub", extra="hf")
    if not is_hub_id(name):
        raise ConfigError(f"there is no folder {name}", remedy="correct the path, or name a hub id as owner/name")
    try:
        return Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
        )
    except Exception as error:  # the hub's client promises no class of errors: network, HTTP, names, disk
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "") else ""
        raise ConfigError(
            f"there is no folder {name}, and the Hugging Face hub does not give it{offline}: {one_line(error)}",
            remedy="correct the path, check id, revision and network, or fetch it elsewhere and name the local folder",
        ) from error


def is_hub_id(name: str) -> bool:
    """Whether `pretrained_folder` asks the hub for it: owner/name, or a name alone, as of the hub's oldest models, where
    nothing of that name is here.
    """
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None and not Path(name).exists()


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files at the top of `folder` whose names match one of the patterns, by name."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and any(fnmatch.fnmatch(path.name, p) for p in patterns)
    )


@functools.lru_cache(maxsize=8)
def load_from(folder: str, auto: str, what: str, digest: str) -> Any:
    """What transformers' class `auto` makes of a folder; errors call it `what`, a tokenizer or the like.

    `digest` is that of the files, so that an edited folder is read again. Raises `ConfigError`, `MissingExtra`.
    """
    with quiet() as transformers:
        try:
            return getattr(transformers, auto).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers promises no class of errors
            raise ConfigError(
                f"{folder} holds no {what} that can be opened: {one_line(error)}",
                remedy=f"give a folder that {what.split()[-1]}.save_pretrained wrote; code in it is not run",
            ) from error


@contextmanager
def whole_folder(folder: Path | LocalFolder) -> Iterator[Path]:
    """An empty folder to fill, flushed and named `folder` when the block ends; what stood there gives way to it.

    Raises:
        DiskFull, StorageError: the system refused. Then, as after any error inside the block, nothing has that name that
        had not had it before.
    """
    place = local_folder(folder)
    above, name = place.above(), place.name
    part, old = (f".{name}.{kind}-{uuid.uuid4().hex}" for kind in ("part", "old"))
    above.make(part)
    try:
        with system_errors("write", place.at()):
            yield above.at(part)
            for file in above.at(part).iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        above.sync(part)
        if above.is_folder(name):
            above.rename(name, old)  # a kill leaves it, under one name or the other
        above.rename(part, name)
        above.sync()
    finally:
        if above.exists(old) and not above.exists(name):
            above.rename(old, name)
        for rest in (part, old):
            above.clear(rest)


def one_line(error: BaseException) -> str:
    """Class and message of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


@contextmanager
def quiet() -> Iterator[Any]:
    """The package transformers, with its progress bars and advice off inside the block. Raises `MissingExtra`."""
    transformers = require_extra("transformers", extra="hf")
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
