"""Errors that no rule of ours foresaw: whose they are, and what a user is told.

Memory, threads and open files that the system refuses are a line with a remedy. An error out of code that is neither ours nor a
library's that we stand on is the user's own, and keeps its traceback. What is left is a mistake of ours: one line, and the
traceback where SOFTLABELS_TRACEBACK is set. `run` asks.
"""

from __future__ import annotations

import functools
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType

import softlabels
import softlabels_stages
from softlabels.errors import NO_ROOM, ConfigError, OutOfResources, SoftLabelsError, Unexpected, refused

_MEMORY = re.compile(
    r"can.?t allocate memory|cannot allocate memory|not enough memory|out of memory|failed to map segment|bad_alloc"
    r"|cannot allocate write\+execute|unable to allocate|realloc of size",
    re.IGNORECASE,
)
_THREADS = re.compile(r"can't start new thread|pthread_create|resource temporarily unavailable", re.IGNORECASE)


def foreseen(error: BaseException) -> SoftLabelsError | None:
    """The line for an error of the system's, or for a mistake of ours; None where the user's own code raised it."""
    found = lack(error)
    is_full = isinstance(error, OSError) and error.errno in NO_ROOM
    if found is not None or (raised_by_user(error) and not is_full):
        return found
    if isinstance(error, OSError):
        return refused(
            f"{'no room to write' if is_full else type(error).__name__}: {error}",
            error,
            full="free some space and run the same command again to resume",
            else_="check that the path exists and may be used",
        )
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib's, of Python 3.11 and 3.12
        return ConfigError(str(error), remedy="give a path that leads somewhere")
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # pathlib's, of a path that begins with ~
        return ConfigError(f"a path begins with ~: {error}", remedy="write the path out, or set HOME")
    if isinstance(error, ValueError) and "embedded null" in str(error):  # the system's, of any path
        return ConfigError(
            "a path holds a NUL character", remedy="look for \\0 in the recipe, or in the run's results.json"
        )
    if "SOFTLABELS_TRACEBACK" in os.environ:
        return None
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return Unexpected(
        f"{type(error).__name__} in {Path(frame.f_code.co_filename).name}, line {line}: {error}",
        remedy="this is a mistake of softlabels: report it with the traceback that SOFTLABELS_TRACEBACK=1 shows",
    )


def lack(error: BaseException | None) -> OutOfResources | None:
    """The line for an error, or one that it came of, that says that memory, threads or open files are used up."""
    for each in _chain(error):
        if isinstance(each, OutOfResources):
            return each
        if isinstance(each, OSError) and isinstance(found := refused(str(each), each), OutOfResources):
            return found
        text = str(each)
        if isinstance(each, MemoryError) or (isinstance(each, RuntimeError | ImportError) and _MEMORY.search(text)):
            return OutOfResources(
                f"there is not enough memory: {text or type(each).__name__}",
                remedy="give the process more (ulimit -v, the container's limit), or a smaller batch_size",
            )
        if isinstance(each, RuntimeError | ImportError) and _THREADS.search(text):
            return OutOfResources(
                f"the system cannot start more threads: {text}",
                remedy="raise the limit of processes (ulimit -u) or of memory (ulimit -v), or give --threads=1",
            )
    return None


def raised_by_user(error: BaseException) -> bool:
    """Whether code that is neither ours nor a library's took part in an error, below the command that was run."""
    own = [*_traces(error.__traceback__)][2:]  # without the frames of `run` and of the stage
    others = [trace for each in [*_chain(error)][1:] for trace in _traces(each.__traceback__)]
    return any(_is_users(trace) for trace in (*own, *others))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _traces(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _is_users(trace: TracebackType) -> bool:
    file, name = trace.tb_frame.f_code.co_filename, str(trace.tb_frame.f_globals.get("__name__", ""))
    if file.startswith("<") or name.partition(".")[0] in _libraries():
        return False
    return not any(Path(file).is_relative_to(folder) for folder in _standard())


@functools.cache
def _standard() -> tuple[Path, ...]:
    """Where our own code and Python's lie. What is installed beside them may be a user's."""
    own = [Path(str(package.__file__)).parent for package in (softlabels, softlabels_stages)]
    pythons = [each for name in ("stdlib", "platstdlib") for each in Path(sysconfig.get_path(name)).iterdir()]
    return (*own, *(each for each in pythons if each.name not in ("site-packages", "dist-packages")))


@functools.cache
def _libraries() -> frozenset[str]:
    """The top modules of all packages that softlabels needs, and those need in their turn."""
    found, left = {"softlabels"}, ["softlabels"]
    while left:
        with suppress(metadata.PackageNotFoundError):  # what is not installed needs nothing
            for line in metadata.requires(left.pop()) or []:
                name = re.split(r"[^\w.-]", line, maxsplit=1)[0].lower().replace("_", "-")
                if name not in found:
                    found.add(name)
                    left.append(name)
    modules = metadata.packages_distributions()
    return frozenset(
        module for module, owners in modules.items() if {o.lower().replace("_", "-") for o in owners} & found
    )
