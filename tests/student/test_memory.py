"""Freed memory that stays is not fetched anew, which the system's count of page faults tells; a Trainer asks for nothing."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource
import torch
from softlabels.student.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        arrays = [torch.zeros(1 << 20) for _ in range(4)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_arrays_take_memory_that_others_left() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, after = map(int, found.stdout.split())
    assert before > 10_000
    assert after < 100


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_a_trainer_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    words = [sys.executable, "-c", TRAINER, str(tmp_path / "run")]
    found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert found.returncode == 0, found.stderr
    before, after = map(int, found.stdout.split())
    assert before == after >= 64 << 20
