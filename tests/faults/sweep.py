"""Faults at every system call of a writer of a small store: each call of each kind in turn, or as many as are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import numpy as np

from tests.faults.apart import scratch
from tests.faults.campaign import Outcome, repeated
from tests.faults.inject import counted, traced, was_hit
from tests.faults.writers import Acknowledge, Case, Child, Ended

KINDS = ("zarr", "arrow", "topk-zarr", "ragged-arrow")
ROWS = 16 * 3 + 5  # two shards
Judge = Callable[[Case, Path, Ended], None]


def sweep(
    count: int,
    seed: int,
    *,
    calls: str,
    fault: str,
    judge: Judge,
    prepare: Callable[[], None] = lambda: None,
) -> Outcome:
    """Have the n-th of the system calls whose names are `calls` (a regular expression) `fault` (in strace's words), for every
    n and kind of store or for `count` of them; then `judge` what the writer said and left, and let another one finish.
    """
    rng = np.random.default_rng(seed)
    with scratch() as folder:
        cases = [Case.make(rng, Path(folder) / kind, kind=kind, rows=ROWS) for kind in KINDS]
        moments = [
            (case, call, nth)
            for case in cases
            for call, times in _count(case, Path(folder), prepare).items()
            if re.fullmatch(calls, call)
            for nth in range(1, times + 1)
        ]
        chosen = iter([moments[at] for at in rng.permutation(len(moments))[:count]])
        reached = []

        def attack(_: np.random.Generator) -> None:
            case, call, nth = next(chosen)
            with scratch() as place:
                path, log = Path(place) / "store", Path(place) / "log"
                ended = _run(case, path, log, prepare, f"trace={call}", f"inject={call}:{fault}:when={nth}")
                if not (ended.code == -SIGKILL or was_hit(log)):
                    return  # one such call fewer than when they were counted
                reached.append(nth)
                try:
                    judge(case, path, ended)
                    case.finish(path)
                except AssertionError as error:
                    raise AssertionError(f"{case.kind}, {call} number {nth}: {error}") from error

        shown = repeated(min(count, len(moments)), seed, attack)
        return replace(shown, trials=len(reached))


def _run(case: Case, path: Path, log: Path, prepare: Callable[[], None], *what: str) -> Ended:
    def work(acknowledge: Acknowledge) -> None:
        prepare()
        case.write(path, acknowledge)

    child = Child(work)
    with traced(child.pid, log, *what):
        return child.go().end()


def _count(case: Case, folder: Path, prepare: Callable[[], None]) -> dict[str, int]:
    log = folder / f"{case.kind}.log"
    ended = _run(case, folder / f"{case.kind}-counted", log, prepare, "trace=%file,%desc")
    assert ended.code == 0, ended.error
    return dict(sorted(counted(log).items()))
