"""A process that watches itself while a command reads what a stranger made: what it opens, runs, connects to, removes, prints
and gives back. `watched` runs some work so and returns what it must not have done, a line each.
"""

from __future__ import annotations

import io
import os
import resource
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from softlabels.errors import SoftLabelsError

MEMORY, SECONDS, LARGEST_FILE = 512 << 20, 60, 256 << 20
CODES = (0, 2, 3, 4, 74, 75)
RUNS = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "subprocess.Popen",
    "pickle.find_class", "ctypes.dlopen", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "os.putenv",
    "os.setxattr", "os.mount", "pty.spawn", "webbrowser.open",
}  # fmt: skip
CHANGES = {
    "os.remove", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile",
}  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What Python loads, and what the system says of itself. Of /proc only what is about this process and the machine.
PYTHONS = tuple({
    os.path.realpath(path)
    for path in (*sys.path[1:], sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), Path(__file__).parents[2])
})  # fmt: skip
SYSTEMS = (
    "/proc/self/",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/sys/",
    "/dev/urandom",
    "/etc/localtime",
    "/proc/sys/kernel/random/boot_id",
)

# The folders and the port of the work that is watched, and what was seen.
_watching: list[tuple[tuple[str, ...], int | None, list[str]]] = []


def watched(work: Callable[[], int], folders: Sequence[Path], port: int | None = None) -> tuple[int | None, list[str]]:
    """The exit code of a command (None where it has none), and what it did that it must not do: it may open, make and remove
    what lies in `folders`, read what Python itself loads, and connect to a `port` of this machine.
    """
    found: list[str] = []
    said = io.StringIO()
    code: int | None = None
    with redirect_stdout(said), redirect_stderr(said), _seen(folders, port, found), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = work()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except SoftLabelsError as error:
            code = error.exit_code
            print(error)
        except BaseException as error:
            where = " < ".join(
                f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[:-5:-1]
            )
            found.append(f"{type(error).__name__}: {str(error)[:150]} ({where})")
            code = None
    if code is not None and code not in CODES:
        found.append(f"exit code {code}")
    return code, [*found, *_wrong(said.getvalue())]


def _wrong(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        if not line.replace("\t", "").isprintable() or line.lstrip().startswith("EVIL"):
            yield f"printed {line[:120]!r}"
        if "Traceback" in line or "mistake of softlabels" in line:
            yield line[:300]


@contextmanager
def _seen(folders: Sequence[Path], port: int | None, found: list[str]) -> Iterator[None]:
    allowed = tuple(os.path.realpath(folder) for folder in folders)
    _watching.append((allowed, port, found))
    try:
        yield
    finally:
        _watching.pop()


def limit_itself() -> None:
    """Watch this process from now on, and give it so much memory and time, and no core dump. There is no way back."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for name, value in (
        (resource.RLIMIT_AS, size + MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(name, (value, value))
    sys.addaudithook(_watch)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    allowed, port, found = _watching[-1]
    if port is not None and event in ("socket.connect", "socket.getaddrinfo"):
        host, asked = args[1][:2] if event == "socket.connect" else args[:2]
        if (host, int(asked or 0)) == ("127.0.0.1", port):
            return
    # ctypes.dlopen of nothing is the process itself; torch asks for NVIDIA's library by name whether there is a GPU.
    if event in RUNS and args not in ((None,), ("libnvidia-ml.so.1",)):
        found.append(f"{event} {args!r:.200}")
    elif event in CHANGES:
        found.extend(f"{event} {path}" for path in _paths(args[:2]) if not _inside(path, allowed))
    elif event == "open" and isinstance(args[0], str | bytes):
        name, flags = os.fsdecode(args[0]), args[2] or 0
        if "/" not in name and name not in (".", "..") and flags & os.O_NOFOLLOW:
            return  # a step from the handle of a folder that was opened here before
        if flags & os.O_PATH and flags & os.O_DIRECTORY:
            return  # looks for a place, such as the store that a run names; nothing is read
        path = os.path.realpath(name)
        reads = not flags & WRITES and (_inside(path, PYTHONS) or path.startswith(SYSTEMS))
        if not (reads or _inside(path, allowed) or path == "/dev/null"):
            found.append(f"open {path} ({flags:#o})")


def _paths(args: tuple[Any, ...]) -> Iterator[str]:
    """Those of the arguments that are whole paths: what is reached from a handle was opened before."""
    for each in args:
        if isinstance(each, str | bytes | os.PathLike) and os.fsdecode(each).startswith("/"):
            name = os.fsdecode(each)
            yield os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))  # noqa: PTH118, PTH119, PTH120


def _inside(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
