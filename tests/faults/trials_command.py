"""Promise 1 from the outside: `softlabels teacher-logits` is killed at random moments and given again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.store import StoreWriter, open_store, store_splits
from softlabels.store.shard_writer import ShardWriter
from softlabels.store.verify import verify
from tests.faults.apart import ROOT, apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.trials_kills import NAIVE, without_protocol
from tests.faults.writers import Acknowledge, Child, faults, visible

SPLITS = ("test", "train", "validation")
BEGUN = 10_000
RECIPES = 4  # of both layouts, dense and sparse


def killed_commands(count: int, seed: int) -> Outcome:
    return _killed_commands(count, seed, lambda: None)


def killed_naive_commands(seed: int) -> Outcome:
    return _killed_commands(3, seed, partial(without_protocol, 0.1))


def _killed_commands(count: int, seed: int, prepare: Callable[[], None]) -> Outcome:
    with scratch() as folder:
        os.chdir(folder)
        os.environ.update(SOFTLABELS_CACHE=f"{folder}/cache", PYTHONPATH=str(ROOT))
        recipe = cache(Recipe)
        order = iter(range(count))

        def attack(rng: np.random.Generator) -> None:
            number = next(order)
            recipe(number % RECIPES).attack(f"store-{number}", prepare, rng)

        return repeated(count, seed, attack)


class Recipe:
    """A recipe in the working folder, how long its command writes, and the digests that it gives when nothing goes wrong."""

    def __init__(self, number: int) -> None:
        from tests.stages.test_teacher_logits import LAYOUTS, TOPK, write_recipe

        labels = {"layout": LAYOUTS[number % 2], **(TOPK if number in (1, 2) else {})}
        self.file = write_recipe(Path(f"{number}.yaml"), seconds=0.005, labels=labels)
        child = self.run(f"whole-{number}", lambda: None)
        child.says(1)  # it opens its first store
        began = time.monotonic()
        ended = child.end()
        assert ended.code == 0, f"exit code {ended.code}: {ended.error}"
        self.seconds, self.digests = time.monotonic() - began, self.require_sound(f"whole-{number}")

    def run(self, store: str, prepare: Callable[[], None]) -> Child:
        """The command, at work on a store."""

        def work(acknowledge: Acknowledge) -> int:
            from softlabels_stages import teacher_logits

            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            prepare()
            _tell(acknowledge)
            return teacher_logits.main([f"--config={self.file}", f"--store={store}"])

        return Child(work).go()

    def attack(self, store: str, prepare: Callable[[], None], rng: np.random.Generator) -> None:
        """Kill the command one to three times while it writes, then let it finish. Where it finishes before it is killed at
        all, the same with another store.
        """
        wanted, kills, stores, acknowledged = int(rng.integers(1, 4)), 0, 0, set[int]()
        while kills < wanted:
            before = {split: visible(Path(store, split)) for split in SPLITS}
            child = self.run(store, prepare)
            child.says(1)
            ended = child.kill() if child.lasts(float(rng.uniform(0, self.seconds))) else child.end()
            assert ended.code in (0, -9), f"exit code {ended.code}: {ended.error}"
            acknowledged |= ended.acknowledged - {BEGUN}
            for number, split in enumerate(SPLITS):
                shards = {shard % 1000 for shard in acknowledged if shard // 1000 == number}
                problems = faults(Path(store, split), 10, shards, before[split])
                assert not problems, f"{split}: {'; '.join(problems[:4])}"
            kills += ended.code != 0
            if ended.code == 0:
                if kills:
                    break
                assert (stores := stores + 1) < 40, "the command was never killed"
                store, acknowledged = f"{store}-", set()
        ended = self.run(store, lambda: None).end()
        assert ended.code == 0, f"exit code {ended.code} when given again: {ended.error}"
        assert self.require_sound(store) == self.digests, "another digest"

    def require_sound(self, store: str) -> dict[str, str]:
        """The digest of each split, every byte of which is as it was sealed."""
        splits = store_splits(store)
        problems = [problem for path in splits.values() for problem in verify(path)]
        assert not problems, "; ".join(map(str, problems[:4]))
        return {split: open_store(path).digest for split, path in splits.items()}


def _tell(acknowledge: Acknowledge) -> None:
    """In this process, acknowledge each shard when the writer says that it is done, and the opening of the first store."""
    begin, write = StoreWriter._begin, ShardWriter.commit

    def telling_begin(self: StoreWriter, *arguments: Any) -> None:
        acknowledge(BEGUN)
        begin(self, *arguments)

    def telling_write(self: ShardWriter, *arguments: Any) -> None:
        write(self, *arguments)
        acknowledge(1000 * SPLITS.index(self._folder.name) + self._shard)

    StoreWriter._begin = telling_begin  # type: ignore[method-assign]
    ShardWriter.commit = telling_write  # type: ignore[method-assign]


TRIALS = (
    Trial(
        promise=1,
        what="teacher-logits killed at random moments, one to three times a store",
        count=30,
        quick=2,
        run=partial(apart, killed_commands),
        control=partial(apart, killed_naive_commands),
        control_what=NAIVE,
        slow=True,
    ),
)
