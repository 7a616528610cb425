"""Several processes of one command on this machine, started together by torch's own launcher, as torchrun does.

They share the machine's cores: each gets its share as `$OMP_NUM_THREADS`, where that is not set. A signal to this process is
handed on to all, which stop at the same step. When one fails the others are ended, and none is started anew.

They meet at a store of torch's on this machine, whose port takes everybody. So nothing may be unpickled that it holds, as
torch's rendezvous `c10d` would: here the members are known, and it is `static`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from softlabels.errors import ConfigError, Interrupted, RankLost

AGAIN = "run the same command again to go on"


def launch(module: str, words: Sequence[str], count: int) -> int:
    """Run `python -m softlabels_stages.MODULE WORDS` `count` times together; the exit code is that of what failed.

    Raises:
        RankLost: a signal ended a process.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, and not in its list of names
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    for _, name in socket.if_nameindex():
        if name in ("lo", "lo0"):  # else the processes listen where the machine's name leads
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # each process says itself what was wrong
    # Its port is free, and the rendezvous takes the store over.
    board = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, multi_tenant=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"softlabels-{os.getpid()}",
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{board.port}",
        rdzv_configs={"rank": 0},
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", f"softlabels_stages.{module}", *words)
    except SignalException:
        return Interrupted.exit_code
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        for code in codes.values():
            if code > 0 and code != RankLost.exit_code:
                return code
        for rank, code in codes.items():
            if code < 0:
                name = signal.Signals(-code).name
                raise RankLost(f"process {rank} of {count} was ended by {name}", remedy=AGAIN) from None
        return RankLost.exit_code
    return 0


def require_processes(asked: int, here: int) -> None:
    """Raise ConfigError where a command that asks for so many processes runs as other ones than these."""
    if asked < 1:
        raise ConfigError(f"processes is {asked}", remedy="give a whole number >= 1")
    if asked not in (1, here):
        raise ConfigError(
            f"--processes={asked}, and {here} processes were started together", remedy="leave --processes to torchrun"
        )
