"""Several processes of one command on this machine, started together, each with the environment that torchrun would give it.

They share the machine's cores: each gets its share as `$OMP_NUM_THREADS`, where that is not set. The first SIGTERM or SIGINT to
this process is handed on to all, which stop at the same step. When one fails the others are waited for a while, since they say
what they know of it, and none is started anew. When this process ends, however it does, Linux ends those that are left.

They meet at a store of torch's on this machine, whose port takes everybody: nothing that it holds is unpickled.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from softlabels.errors import ConfigError, Interrupted, RankLost
from softlabels.student.distributed import AGAIN
from softlabels_stages.run import LAUNCHER, should_stop

GRACE, PAUSE = 30.0, 0.05  # seconds: for those that are left once one has failed; between two looks
PR_SET_PDEATHSIG = 1  # of Linux


def launch(module: str, words: Sequence[str], count: int) -> int:
    """Run `python -m softlabels_stages.MODULE WORDS` `count` times together; the exit code is that of what failed.

    Raises:
        RankLost: a signal ended a process. Interrupted: this one was told to stop before all had begun.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # seconds to import

    board = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(board.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    world = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), LAUNCHER: str(os.getpid())}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "")
    common = (
        {"OMP_NUM_THREADS": str(max(1, cores // count)), "GLOO_SOCKET_IFNAME": loopback} | os.environ | place | world
    )
    command = [sys.executable, "-m", f"softlabels_stages.{module}", *words]
    with ExitStack() as stack:
        processes = []
        for rank in range(count):
            own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            started = subprocess.Popen(command, env=own, start_new_session=True)  # noqa: S603  # our own command
            processes.append(stack.enter_context(started))
            stack.callback(started.kill)  # before it is waited for; nothing where it has ended
        codes = _ended(processes)
    if code := next((code for code in codes.values() if code > 0 and code != RankLost.exit_code), 0):
        return code
    for rank, code in codes.items():
        if code == -signal.SIGTERM and should_stop():
            raise Interrupted("stopped before anything was trained", remedy=AGAIN)
        if code < 0:
            raise RankLost(f"process {rank} of {count} was ended by {signal.Signals(-code).name}", remedy=AGAIN)
    return max(codes.values())


def _ended(processes: Sequence[subprocess.Popen[bytes]]) -> dict[int, int]:
    """The exit codes of all, by rank, in the order in which they have ended."""
    codes: dict[int, int] = {}
    until, is_told = math.inf, False
    while len(codes) < len(processes):
        for rank, each in enumerate(processes):
            if each.poll() is not None:
                codes.setdefault(rank, each.returncode)
        left = [each for each in processes if each.returncode is None]
        if should_stop() and not is_told:
            is_told = True
            for each in left:
                each.terminate()
        if any(codes.values()):
            until = min(until, time.monotonic() + GRACE)
        if time.monotonic() > until:
            for each in left:
                each.kill()
        time.sleep(PAUSE)
    return codes


def end_with_launcher() -> None:
    """Let Linux kill this process when the one that launched it, if any, has ended: what was saved is gone on with."""
    if (launcher := os.environ.get(LAUNCHER)) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(launcher):  # it has ended already
            os.kill(os.getpid(), signal.SIGKILL)


def require_processes(asked: int, here: int) -> None:
    """Raise ConfigError where a command that asks for so many processes runs as other ones than these."""
    if asked < 1:
        raise ConfigError(f"processes is {asked}", remedy="give a whole number >= 1")
    if asked not in (1, here):
        raise ConfigError(
            f"--processes={asked}, and {here} processes were started together", remedy="leave --processes to torchrun"
        )
