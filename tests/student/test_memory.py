"""Freed memory that stays is not fetched anew, which the system's count of page faults tells; a Trainer asks for nothing."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

FREED = """
import os, resource, sys
import torch
from softlabels.student.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        arrays = [torch.zeros(1 << 20) for _ in range(4)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
if not (child := os.fork()):  # its memory is that of a process that has only begun
    before = faults()
    keep_freed_memory()
    faults()
    print(before, faults(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""

TRAINER = """
import ctypes, sys
from pathlib import Path
from tests.student.runs import run

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.mallinfo2.restype = ctypes.c_void_p, Info
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]

def mapped():  # bytes that the system gives for one array of 64 MiB, and takes back when it is freed
    before = libc.mallinfo2().hblkhd
    place = libc.malloc(64 << 20)
    found = libc.mallinfo2().hblkhd - before
    libc.free(place)
    return found

before = mapped()
run(Path(sys.argv[1]), epochs=1)
print(before, mapped())
"""


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """What both scripts print, of one process: torch is imported once."""
    words = [sys.executable, "-c", FREED + TRAINER, str(tmp_path_factory.mktemp("memory") / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_arrays_take_memory_that_others_left(found: list[int]) -> None:
    before, after, *_ = found
    assert before > 10_000
    assert after < 100


def test_a_trainer_leaves_the_process_as_it_was(found: list[int]) -> None:
    *_, before, after = found
    assert before == after >= 64 << 20
