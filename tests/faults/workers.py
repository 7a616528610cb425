"""Workers of `teacher-logits` on one store, one of which is killed or stopped: a trial in a child of `tests.faults.commands`. A
request says where (`folder`, which keeps what one worker makes alone), the `seed`, and whether claims are `heeded`.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.store import open_store, store_splits
from softlabels.store.claims import Claims
from softlabels.store.shard_writer import ShardWriter
from softlabels.store.verify import verify
from softlabels.teacher.ensemble import Ensemble
from softlabels_stages import teacher_logits
from tests.faults.writers import Acknowledge, Child
from tests.stages.test_teacher_logits import TOPK, write_recipe

WORKERS, LAPSE = 3, 2.0
PAUSE = 0.02  # seconds that the teacher thinks about a batch
SPLITS = ("test", "train", "validation")


def run(request: dict[str, Any]) -> int:
    """One trial. Raises `AssertionError`."""
    rng = np.random.default_rng(request["seed"])
    labels = [{}, TOPK, {"layout": "arrow"}][rng.integers(3)]
    recipe, whole, store = (f"{name}-{labels.get('layout', '')}{len(labels)}" for name in ("recipe", "whole", "store"))
    store += f"-{request['seed']}"
    write_recipe(Path(recipe), model="Linear", labels=labels)
    if not Path(whole).exists():
        assert Child(partial(_work, recipe, whole, Path("alone"), True)).go().end().code == 0, Path("alone").read_text()
    said = [Path(f"{store}-{number}") for number in range(WORKERS)]
    children = [Child(partial(_work, recipe, store, path, request["heeded"])).go() for path in said]
    victim = children.pop(int(rng.integers(WORKERS)))
    stops = bool(rng.random() < 0.5)
    if victim.says(int(rng.integers(1, 3))) and victim.lasts(float(rng.uniform(0, 3 * PAUSE))):
        os.kill(victim.pid, signal.SIGSTOP if stops else signal.SIGKILL)
    ended = [child.end() for child in children]
    os.kill(victim.pid, signal.SIGCONT)
    ended.append(victim.end())
    words = "\n".join(path.read_text() for path in said)
    codes, last = [each.code for each in ended], [path.read_text().splitlines()[-1:] for path in said]
    assert codes in ([0, 0, 0], [0, 0, 0 if stops else -signal.SIGKILL]), (
        f"exit codes {codes} (one stopped: {stops}): {last}"
    )
    _require_once(Counter(shard for each in ended for shard in each.acknowledged), words)
    assert _digests(store) == _digests(whole), "another digest"
    return 0


def _require_once(computed: Counter[int], words: str) -> None:
    """Each shard was computed once, and once more each time that it was reported as taken over."""
    taken = Counter(
        1000 * SPLITS.index(split) + int(shard)
        for split, shard in re.findall(r"^(\w+): shard (\d+): the claim of .* taken over$", words, re.M)
    )
    assert len(computed) == 10, f"{len(computed)} of 10 shards"
    wrong = {shard: times for shard, times in computed.items() if times > 1 + taken[shard]}
    assert not wrong, f"shards that were computed more often than they were taken over: {wrong}, taken over: {taken}"


def _work(recipe: str, store: str, said: Path, heeded: bool, acknowledge: Acknowledge) -> int:
    """A worker, which tells of each shard that it begins."""
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    begin, batch = ShardWriter.__init__, Ensemble.batch

    def telling(self: ShardWriter, folder: Any, spec: Any, shard: int, *arguments: Any) -> None:
        acknowledge(1000 * SPLITS.index(folder.name) + shard)
        begin(self, folder, spec, shard, *arguments)

    def slow(self: Ensemble, *arguments: Any, **options: Any) -> Any:
        time.sleep(PAUSE)
        return batch(self, *arguments, **options)

    ShardWriter.__init__, Ensemble.batch = telling, slow  # type: ignore[method-assign]
    if not heeded:
        Claims.shards = _all  # type: ignore[method-assign]
    return teacher_logits.main([f"--config={recipe}", f"--store={store}", f"--lapse={LAPSE}"])


def _all(self: Claims, wanted: list[int], *, regardless: bool = False) -> Iterator[int]:
    """In the place of `Claims.shards`: whatever others are at."""
    return iter(wanted)


def _digests(store: str) -> dict[str, str]:
    """Of each split, every byte of which is as it was sealed."""
    problems = [problem for path in store_splits(store).values() for problem in verify(path)]
    assert not problems, "; ".join(map(str, problems[:4]))
    return {split: open_store(path).digest for split, path in store_splits(store).items()}
