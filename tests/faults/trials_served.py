"""Promise 16: a served teacher's labels are those of its model, whatever the server and the network do, or there is an error of
ours, in time. A pass that was killed asks for what is missing.
"""

from __future__ import annotations

import numpy as np

from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.trials_signals import served


def faulty(count: int, seed: int) -> Outcome:
    return _trials(count, seed)


def believed(seed: int) -> Outcome:
    return _trials(5, seed, heeded=False)


def killed(count: int, seed: int) -> Outcome:
    return _trials(count, seed, kill=True)


def begun_anew(seed: int) -> Outcome:
    return _trials(5, seed, kill=True, heeded=False)


def _trials(count: int, seed: int, *, kill: bool = False, heeded: bool = True) -> Outcome:
    with served() as (folder, commands):

        def attack(rng: np.random.Generator) -> None:
            drawn = int(rng.integers(1 << 30))
            status = commands.run(do="asked", folder=str(folder), seed=drawn, kill=kill, heeded=heeded)
            assert status == 0, (folder / "said.txt").read_text().splitlines()[-1]

        return repeated(count, seed, attack)


TRIALS = (
    Trial(
        promise=16,
        what="429, 5xx, stalls, resets, truncated JSON, another model, answers of a neighbour, wrong numbers",
        count=200,
        quick=5,
        run=faulty,
        control=believed,
        control_what="answers are believed",
        slow=True,
    ),
    Trial(
        promise=16,
        what="SIGKILL while rows are asked for; the next run asks for none of a finished shard",
        count=30,
        quick=1,
        run=killed,
        control=begun_anew,
        control_what="it begins anew",
        slow=True,
    ),
)
