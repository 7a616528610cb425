"""The teacher stage, killed at random moments until it has written its store."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import torch

from softlabels.store import open_store, store_splits
from softlabels.store.verify import verify


def digests(root: Path | str) -> dict[str, str]:
    """Of each split's store."""
    return {split: open_store(path).digest for split, path in store_splits(root).items()}


def survives_kills(
    words: list[str], unbroken: str, *, kills: int, finish: Callable[[], int], stage: str = "teacher_logits"
) -> None:
    """Start the stage with `words` (which write to ./store), SIGKILL it at random moments `kills` times, `finish`: committed
    shards are never written twice, and the store is `unbroken`'s.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.stages.kills", "softlabels.models.causal_lm", "transformers"])
    killed, committed = 0, dict[Path, int]()
    while killed < kills:
        child = processes.Process(target=_child, args=(stage, words))
        child.start()
        child.join(random.uniform(0.05, 0.6))
        if child.exitcode == 0:  # it was quicker than the kill: begin anew
            assert digests("store") == digests(unbroken)
            shutil.rmtree("store")
            committed = {}
            continue
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        killed += 1
        for record, inode in committed.items():
            assert record.stat().st_ino == inode, f"{record} was committed and written again"
        committed = {path: path.stat().st_ino for path in Path("store").glob("*/commits/*.json")}
    assert finish() == 0
    assert {path: path.stat().st_ino for path in committed} == committed
    assert digests("store") == digests(unbroken)
    assert all(not verify(path) for path in store_splits("store").values())


def _child(stage: str, words: list[str]) -> None:
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(importlib.import_module(f"softlabels_stages.{stage}").main(words))
