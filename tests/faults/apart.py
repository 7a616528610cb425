"""A trial in a process of its own, which holds none of ours: `apart(function, count, seed)` gives what the function returns
there. With `mounts`, what it mounts is seen by that process alone and is gone with it, however it ends.
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.faults.campaign import NotHere, Outcome

ROOT = Path(__file__).parents[2]
PRIVATE = ["unshare", "--mount", "--propagation", "private"]
MEMORY = "/dev/shm"
LIMIT = 3600  # seconds: a trial that hangs is a failure, too


def apart(function: Callable[..., Outcome], *arguments: int, mounts: bool = False) -> Outcome:
    """The outcome of `function(*arguments)`, which stands at the top of its module."""
    if mounts and (why := cannot_mount()):
        return Outcome(trials=0, not_run=why)
    here = [sys.executable, "-m", "tests.faults.apart", function.__module__, function.__name__, *map(str, arguments)]
    command = [*PRIVATE, *here] if mounts else here
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{function.__name__} broke: {done.stderr[-2000:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Outcome)


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


def main() -> None:
    module, name, *arguments = sys.argv[1:]
    gc.disable()  # what imports make stays: no search for garbage goes through it, here or in a fork
    function = getattr(importlib.import_module(module), name)
    gc.freeze()
    gc.enable()
    try:
        outcome = function(*map(int, arguments))
    except NotHere as reason:
        outcome = Outcome(trials=0, not_run=str(reason))
    print(msgspec.json.encode(outcome).decode())


if __name__ == "__main__":
    main()
