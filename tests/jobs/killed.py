"""Workers of a teacher stage that write to an address, killed at random: `python -m tests.jobs.killed ADDRESS KILLS SEED`, in
an empty folder, where credentials stand in the environment. A process that has loaded torch and asked no server forks them.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback

import torch

from softlabels import Ensemble, Shards, label, load_transfer_set
from softlabels.jobs.watch import Watch
from softlabels.transfer import TransferRows
from tests.jobs.test_jobs import ROWS, models
from tests.jobs.test_workers import DENSE, SHARDS

WORKERS, LAPSE = 3, 1.0
PAUSE = 0.02  # seconds that the teacher thinks about a batch


def main(address: str, kills: int, seed: int) -> None:
    """Store after store, at ADDRESS/0, ADDRESS/1, ..., until so many workers were killed. A worker that is killed starts again.
    Prints how many stores there are.
    """
    rng, rows, stores = random.Random(seed), [load_transfer_set(ROWS, split) for split in SHARDS], 0
    while kills:
        live = [_started(f"{address}/{stores}", rows) for _ in range(WORKERS)]
        deadline = time.monotonic() + 120
        while live:
            assert time.monotonic() < deadline, "it hangs"
            time.sleep(rng.uniform(0, 0.25))
            live = [pid for pid in live if not _has_ended(pid)]
            if live and kills and rng.random() < 0.7:
                victim = live.pop(rng.randrange(len(live)))
                os.kill(victim, signal.SIGKILL)
                kills -= os.waitpid(victim, 0)[1] == signal.SIGKILL
                live.append(_started(f"{address}/{stores}", rows))
        stores += 1
    print(stores)


def _has_ended(pid: int) -> bool:
    found, status = os.waitpid(pid, os.WNOHANG)
    assert status == 0, f"a worker ended with {status}"
    return found == pid


def _started(address: str, rows: list[TransferRows]) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        teacher = Ensemble.of(models(), name="two", device="cpu", batch_size=16)
        watch = Watch(say=lambda line: None, should_stop=lambda: bool(time.sleep(PAUSE)))
        label(rows, teacher, DENSE, address, shards=Shards(lapse=LAPSE), watch=watch)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
