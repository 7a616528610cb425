"""A trial in a process of its own, which holds none of ours: `apart(function, count, seed)` gives what the function returns
there. With `mounts`, what it mounts is seen by that process alone and is gone with it, however it ends.

The process is a fork of a server, one for each process that asks: it has imported what trials import, which takes longer than
most of them do, and does nothing else.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

import msgspec

from tests.faults.campaign import NotHere, Outcome

ROOT = Path(__file__).parents[2]
PRIVATE = ["unshare", "--mount", "--propagation", "private"]
NEW_MOUNTS, RECURSIVE_PRIVATE = 0x20000, 1 << 14 | 1 << 18  # CLONE_NEWNS, MS_REC | MS_PRIVATE
MEMORY = "/dev/shm"
WARM = (
    "torch._dynamo",  # an optimizer imports it
    "pandas",  # a first array of pyarrow does
    "tests.faults.writers",
    "tests.faults.fuzz",
    *(f"softlabels_stages.{stage}" for stage in ("teacher_logits", "train_student", "evaluate", "encode", "verify")),
)


class Asked(msgspec.Struct):
    """A function at the top of its module, what it is given, and where what it returns goes."""

    module: str
    name: str
    arguments: list[int]
    mounts: bool
    environment: dict[str, str]
    answer: str


def apart(function: Callable[..., Outcome], *arguments: int, mounts: bool = False) -> Outcome:
    """The outcome of `function(*arguments)`, which stands at the top of its module."""
    if mounts and (why := cannot_mount()):
        return Outcome(trials=0, not_run=why)
    with tempfile.NamedTemporaryFile() as answer:
        asked = Asked(function.__module__, function.__name__, [*arguments], mounts, {**os.environ}, answer.name)
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(msgspec.json.encode(asked) + b"\n")
        server.stdin.flush()
        code, said = server.stdout.readline().strip(), answer.read()
    if code != b"0":
        raise RuntimeError(f"{function.__name__} broke ({code.decode()}): {said[-2000:].decode(errors='replace')}")
    return msgspec.json.decode(said.splitlines()[-1], type=Outcome)


@functools.cache
def _server() -> subprocess.Popen[bytes]:
    """It ends with this process, by the end of what it reads."""
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.faults.apart"]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(server.communicate)
    return server


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for one trial, in memory where there is such a place: a flush to a disk that others use may take long."""
    return tempfile.TemporaryDirectory(prefix="faults-", dir=MEMORY if Path(MEMORY).is_dir() else None)


def cannot_mount() -> str:
    """Why this user cannot mount a file system here; empty where it can."""
    try:
        done = subprocess.run([*PRIVATE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        return "no unshare"
    return "this user may not mount" if done.returncode else ""


def serve(requests: IO[bytes]) -> None:
    """Answer each request by a fork, one after the other: what it says goes to its file, how it ended to stdout."""
    for line in requests:
        asked = msgspec.json.decode(line, type=Asked)
        importlib.import_module(asked.module)
        gc.freeze()
        if (child := os.fork()) == 0:
            _run(asked)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(asked: Asked) -> NoReturn:
    code = 1
    try:
        with Path(asked.answer).open("wb") as answer, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            for number in (1, 2):
                os.dup2(answer.fileno(), number)
        os.environ.clear()
        os.environ.update(asked.environment)
        if asked.mounts:
            _mount_alone()
        gc.enable()
        try:
            outcome = getattr(sys.modules[asked.module], asked.name)(*asked.arguments)
        except NotHere as reason:
            outcome = Outcome(trials=0, not_run=str(reason))
        print(msgspec.json.encode(outcome).decode(), flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:  # whatever happens, it must not go on as its parent
        os._exit(code)


def _mount_alone() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS) or libc.mount(None, b"/", None, RECURSIVE_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no mounts of its own")


if __name__ == "__main__":
    gc.disable()  # what imports make stays: no search for garbage goes through it, here or in a fork
    for name in WARM:
        importlib.import_module(name)
    serve(sys.stdin.buffer)
