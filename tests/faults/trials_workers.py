"""Promise 15: workers that start on one store share its shards. Three run `teacher-logits`, one of them is killed or stopped
at a random moment: the store is the one that one worker makes, and each shard was computed once, but for those that were
reported as taken over: from the one that was killed, or that stood still for longer than the lapse.
"""

from __future__ import annotations

import numpy as np

from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.trials_signals import served


def shared(count: int, seed: int) -> Outcome:
    return _trials(count, seed, heeded=True)


def unheeded(seed: int) -> Outcome:
    return _trials(2, seed, heeded=False)


def _trials(count: int, seed: int, *, heeded: bool) -> Outcome:
    with served() as (folder, commands):

        def attack(rng: np.random.Generator) -> None:
            drawn = int(rng.integers(1 << 30))
            status = commands.run(do="workers", folder=str(folder), seed=drawn, heeded=heeded)
            assert status == 0, (folder / "said.txt").read_text().splitlines()[-1]

        return repeated(count, seed, attack)


TRIALS = (
    Trial(
        promise=15,
        what="three workers of teacher-logits on one store, one of them killed or stopped",
        count=100,
        quick=2,
        run=shared,
        control=unheeded,
        control_what="claims are not heeded",
        slow=True,
    ),
)
