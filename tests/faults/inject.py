"""Faults at the n-th system call of a process that runs already, by way of strace: it is killed there, or the call fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.campaign import NotHere

CHANGES = re.compile(r"write|sync|link|rename|mkdir|rmdir|trunc|flock|openat")  # calls that change or open something


@contextmanager
def traced(pid: int, log: Path, *what: str) -> Iterator[None]:
    """While the block runs, the process is traced as strace's expressions `what` say; its calls are written to `log`."""
    if shutil.which("strace") is None:
        raise NotHere("no strace")
    words = [word for expression in what for word in ("-e", expression)]
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-o", str(log), *words], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        tracer.wait()
        raise NotHere(f"strace may not trace here: {said.strip()}")
    try:
        yield
    finally:  # it ends with the process that it traces
        tracer.communicate(timeout=60)


def counted(log: Path) -> Counter[str]:
    """How often each call that changes something was made, in the log of a process traced without faults."""
    calls = (re.match(r"\d+ +(\w+)\(", line) for line in log.read_text().splitlines())
    return Counter(call[1] for call in calls if call and CHANGES.search(call[1]))


def was_hit(log: Path) -> bool:
    """Whether the fault was injected."""
    return "INJECTED" in log.read_text()
