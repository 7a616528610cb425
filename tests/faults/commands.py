"""Commands, and processes that wait for each other, in children that may be stopped; see `tests.student.runs.serve`.

A request names what is done (`do`), where (`folder`), and, of a command, its arguments (`words`), at which of its events it
gets a SIGTERM (`at`: one or two numbers, or none) and whether it is `deaf` to it. Its events are the teacher's batches, the
student's steps, the chunks that `encode` reads, and every flush. What is said on stderr goes to said.txt. `training` says
what `train` does, `workers` what `workers` does, `asked` what `asked` does.
"""

from __future__ import annotations

import fcntl
import importlib
import itertools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader, Dataset

import softlabels_stages.run
from softlabels.errors import SoftLabelsError
from softlabels.store.paths import LOCK
from softlabels.store.reader import Store
from softlabels.stream import watched
from softlabels.stream.prefetch import prefetch
from softlabels.student.learner import Learner
from softlabels.system.local import LocalFolder
from softlabels.teacher.ensemble import Ensemble
from softlabels.transfer.cache import cached
from tests.faults import asked, training, workers
from tests.faults.recipes import recipe
from tests.student.runs import serve

SAID, EVENTS, SENT = "said.txt", "events.txt", "sent.txt"
COMMANDS = ("teacher_logits", "train_student", "encode")
STOPPED = "stopped.txt"  # the pid that is stopped, in a scenario


class Events:
    """Counts events, and sends this process SIGTERM at some of them."""

    def __init__(self, at: list[int]) -> None:
        self.at, self.seen = at, 0

    def happen(self) -> None:
        self.seen += 1
        if self.seen in self.at:
            if self.seen > min(self.at):
                softlabels_stages.run._stop.wait(timeout=5)  # two signals that are heard at once count as one
            Path(SENT).write_text(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGTERM)

    def rest(self) -> None:
        """The signals that are still due after the first one, now that the command is at its end."""
        if min(self.at, default=math.inf) <= self.seen < max(self.at):
            self.seen = max(self.at) - 1
            self.happen()

    def counted(self, owner: Any, name: str) -> None:
        """Count the calls of a function."""
        plain = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            self.happen()
            return plain(*args, **options)

        setattr(owner, name, call)


def run_command(request: dict[str, Any]) -> int:
    """A stage, with SIGTERM held back until it listens, so that it is always the stage that hears it."""
    events = Events(request["at"])
    for owner, name in ((Ensemble, "outputs"), (Learner, "step"), (Store, "read_chunk"), (os, "fsync")):
        events.counted(owner, name)
    listening = softlabels_stages.run._signals_as_flag

    @contextmanager
    def heard() -> Iterator[None]:
        with listening():
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                yield
            finally:
                events.rest()
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    softlabels_stages.run._signals_as_flag = heard
    if request["deaf"]:
        softlabels_stages.run._on_signal = lambda number, frame: None
    code = importlib.import_module(f"softlabels_stages.{request['do']}").main(request["words"])
    Path(EVENTS).write_text(str(events.seen))
    return int(code)


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it has been obeyed."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)
    Path(STOPPED).write_text(str(pid))


def beside(hold: Callable[[], None]) -> None:
    """A process that holds something and is then stopped."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        hold()
        os.write(write, b"!")
        time.sleep(1000)
        os._exit(0)
    os.read(read, 1)
    stop(pid)


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        return index


def worker(seed: int) -> None:
    """A worker process of a DataLoader."""
    rng = np.random.default_rng(seed)
    stop_at, which = int(rng.integers(1, 20)), int(rng.integers(2))
    for number, _ in enumerate(
        watched(DataLoader(Numbers(), batch_size=10, num_workers=2, multiprocessing_context="fork"))
    ):
        if number == stop_at:
            stop(sorted(child.pid or 0 for child in multiprocessing.active_children())[which])


def preparing(seed: int) -> None:
    """A process that prepares the rows that this one needs."""

    def hold() -> None:
        handle = os.open(cache / f"{name}.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_EX)
        (cache / f"{name}.part-1").mkdir()

    cache = Path("cache")
    prepare = partial(cached, cache, {"seed": seed}, lambda folder: ([], {}), about={}, is_current=lambda arrays: True)
    prepare()  # to learn its name
    [name] = [path.stem for path in cache.glob("*.lock")]
    beside(hold)
    prepare()


def sweeping(seed: int) -> None:
    """A writer that sweeps a store which this one wants to write to."""
    locks = []

    def hold() -> None:
        locks.append(LocalFolder("store").enter(LOCK))
        assert locks[-1].alone()

    beside(hold)
    LocalFolder("store").enter(LOCK).share()


def decoding(seed: int) -> None:
    """A process that decodes what the loader's thread reads."""
    read, _write = os.pipe()
    beside(lambda: None)

    def blocks() -> Iterator[bytes]:
        while True:
            yield os.read(read, 1)

    for _ in prefetch(blocks()):
        pass


def writing(seed: int) -> int:
    """The thread that writes a command's shards: from one of its flushes on the disk takes nothing."""
    rng = np.random.default_rng(seed)
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe(rng)))
    plain, left = os.fsync, itertools.count(int(rng.integers(20)), -1)

    def hang(handle: int) -> None:
        if threading.current_thread().name.startswith("softlabels-write") and next(left) <= 0:
            threading.Event().wait()
        plain(handle)

    os.fsync = hang
    teacher_logits = importlib.import_module("softlabels_stages.teacher_logits")
    return int(teacher_logits.main(["--config=recipe.yaml", "--store=store"]))


SCENARIOS: dict[str, Callable[[int], int | None]] = {
    "worker": worker, "preparing": preparing, "sweeping": sweeping, "decoding": decoding, "writing": writing,
}  # fmt: skip


def child(request: dict[str, Any]) -> int:
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    folder = Path(request["folder"])
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    os.environ["SOFTLABELS_CACHE"] = "cache"
    os.environ["SOFTLABELS_PATIENCE"] = str(request.get("patience", 600))
    said = os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        if request["do"] in COMMANDS:
            return run_command(request)
        if request["do"] == "train":
            return training.run(request)
        if request["do"] == "workers":
            return workers.run(request)
        if request["do"] == "asked":
            return asked.run(request)
        return SCENARIOS[request["do"]](request["seed"]) or 0
    except SoftLabelsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    for stage in COMMANDS:
        importlib.import_module(f"softlabels_stages.{stage}")
    serve(child)
