"""The fuzzer's watch sees what it is there to see: each harm done on purpose, in a child, is told."""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import DamagedStore, SoftLabelsError
from softlabels.store.verify import verify
from tests.faults import forge
from tests.faults.fuzz import read
from tests.faults.watch import limit_itself, watched
from tests.faults.writers import Child
from tests.store.samples import make_spec, sample, write_store


def done(work: Callable[[Path, Path], object]) -> Callable[[Path, Path], int]:
    """Work as a command that says nothing of it."""

    def command(inside: Path, outside: Path) -> int:
        with suppress(OSError, SoftLabelsError):
            work(inside, outside)
        return 0

    return command


HARMS: dict[str, tuple[Callable[[Path, Path], int], str]] = {
    "open outside": (done(lambda _, outside: (outside / "secret").read_text()), "open .*secret"),
    "open a system's file": (done(lambda _, __: Path("/etc/passwd").read_text()), "open /etc/passwd"),
    "open through a link": (done(lambda inside, _: (inside / "link").read_text()), "open .*secret"),
    "write to Python": (done(lambda _, __: (Path(sys.prefix) / "pyvenv.cfg").open("ab").close()), "open .*pyvenv.cfg"),
    "remove outside": (done(lambda _, outside: (outside / "secret").unlink()), "os.remove .*secret"),
    "rename outside": (done(lambda inside, outside: (inside / "a").rename(outside / "b")), "os.rename .*outside/b"),
    "run": (done(lambda _, __: os.system("true")), "os.system"),
    "run another way": (done(lambda _, __: subprocess.run(["true"], check=True)), "subprocess.Popen"),
    "connect": (done(lambda _, __: socket.socket(socket.AF_UNIX).connect("/nowhere")), "socket.connect"),
    "unpickle": (done(lambda _, __: pickle.loads(b"cos\ngetpid\n(tR.")), "pickle.find_class"),
    "load code": (done(lambda _, __: ctypes.CDLL("libm.so.6")), "ctypes.dlopen"),
    "a control sequence": (done(lambda _, __: print("\x1b[2J")), "printed"),
    "a line of its own": (done(lambda _, __: print("class a\nEVIL")), "printed 'EVIL"),
    "another exit code": (lambda _, __: 1, "exit code 1"),
    "an error of Python's": (lambda _, __: {}["a"], "KeyError: 'a'"),
    "a mistake of ours": (done(lambda _, __: print("this is a mistake of softlabels")), "mistake of softlabels"),
}


def seen(work: Callable[[], int], *folders: Path) -> tuple[int, str]:
    """How a child that is watched ends."""

    def child(acknowledge: object) -> int:
        limit_itself()
        _, wrong = watched(work, folders)
        assert not wrong, wrong
        return 0

    ended = Child(child).go().end(60)
    return ended.code, ended.error


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "secret").write_text("precious")
    (inside / "a").touch()
    (inside / "link").symlink_to(outside / "secret")
    return inside, outside


@pytest.mark.parametrize("name", HARMS)
def test_harm_is_seen(folders: tuple[Path, Path], name: str) -> None:
    work, told = HARMS[name]
    code, error = seen(partial(work, *folders), folders[0])
    assert code == 1
    assert re.search(told, error), error


def harmless(inside: Path, outside: Path) -> int:
    (inside / "new").write_text((inside / "secret").read_text())
    (inside / "new").rename(inside / "newer")
    (inside / "newer").unlink()
    handle = os.open(inside, os.O_RDONLY)
    with suppress(OSError):  # it is a link, and not followed
        os.open("link", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle)
    print("a line\nand another ±")
    raise DamagedStore("a\x1b[2Jb", remedy="c")


def test_what_is_allowed_is_no_harm(folders: tuple[Path, Path]) -> None:
    assert seen(partial(harmless, *folders), folders[0]) == (0, "")


def test_too_much_memory_is_harm(folders: tuple[Path, Path]) -> None:
    code, error = seen(lambda: len(np.ones(1 << 27)), folders[0])
    assert (code, "MemoryError" in error or "Unable to allocate" in error) == (1, True)


def test_the_tools_make_all_digests_fit(tmp_path: Path, rng: np.random.Generator) -> None:
    """Sealed again without a change, a store is read; with values that the format forbids it is refused for these."""
    for kind in ("zarr", "ragged-arrow"):
        data = sample(rng, forge.ROWS, kind)
        path = write_store(tmp_path / kind, data, make_spec(data, kind)).path
        for part in ("spec", "plan", "payload", "record", "manifest"):
            forge.seal_again(path, part, lambda _: None)
        assert read(path) == 0
        assert verify(path) == []
    refused = [problem for _ in range(8) for problem in _values(tmp_path / "zarr", rng)]
    assert any("holds what the format forbids" in problem for problem in refused)


def _values(path: Path, rng: np.random.Generator) -> list[str]:
    forge.values(path, "zarr", path.parent, rng)
    return [problem.what for problem in verify(path)]
