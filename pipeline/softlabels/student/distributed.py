"""Ranks that torch.distributed joins: processes that torchrun, or `softlabels train-student --processes=N`, has started.

Gradients are added up by DistributedDataParallel, or where ranks hold pieces of a student by FSDP2 (`sharded`): on a CPU by
gloo, on GPUs by nccl; all else by gloo. They are summed and not averaged, since each rank's loss is divided by the counts of
the whole batch already.

A rank that fails writes why on a board that all see, and ends; the others notice it in what they wait for, and end with
`RankLost`. One that hangs is waited for as `system.patience` says. Nothing is started anew here: what was saved is gone on with
by the next run.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from softlabels.errors import ConfigError, RankLost, SoftLabelsError
from softlabels.models.device import resolve_device
from softlabels.stream.parts import Buffer, Part
from softlabels.student.ranks import ALONE, Ranks
from softlabels.student.sharded import Sharded
from softlabels.system.patience import patience

AGAIN = "run the same command again to resume"
FAILED = "softlabels/failed"  # on the board: who has failed first, and why
GRACE, PAUSE = 0.5, 0.05  # seconds in which a rank that has failed says why, and between two looks
T = TypeVar("T")
_TIMES = count()  # this process has met the others: as often as each of them


def processes_here() -> int:
    """How many processes were started together with this one, by what their starter has put into the environment."""
    given = os.environ.get("WORLD_SIZE", "")
    return int(given) if given.isdecimal() and "RANK" in os.environ else 1


@contextmanager
def ranks_here(device: str = "auto") -> Iterator[Ranks]:
    """The ranks of the processes that were started together with this one; `ALONE` where there is no other.

    An error that leaves the block ends the run on all of them. It is `is_said` where another rank says the same.

    Args:
        device: on which students are trained, as `models.device.resolve_device` takes it.

    Raises:
        ConfigError: processes that would share a GPU.
        RankLost: not all have come, or one has gone.

    Example:
        >>> from softlabels.student.distributed import ranks_here
        >>> with ranks_here("cpu") as ranks:  # one process alone where no others were started
        ...     ranks.rank
        0
    """
    if processes_here() < 2:
        yield ALONE
        return
    with _ended_by_signals():
        ranks = _join(_backend(device))
    try:
        yield ranks
    except BaseException as error:
        found = _unlike_ddp(error)
        if isinstance(error, RuntimeError) and _is_of_network(error):
            found = ranks.lost(error)
        ranks.fail(found)
        if found is error:
            raise
        raise found from error
    dist.destroy_process_group()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process at once: it waits for others outside Python, where no handler is heard, and there
    is nothing yet that could be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _backend(device: str) -> str:
    """How numbers travel, once this process has its GPU."""
    found, here = resolve_device(device), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if found.type == "cpu":
        return "gloo"
    if here > (torch.cuda.device_count() if device == "auto" else 1):
        raise ConfigError(
            f"{here} processes on this machine would share GPUs: device is {device}, and there are {torch.cuda.device_count()}",
            remedy="start one process a GPU with device=auto, or give device=cpu",
        )
    torch.cuda.set_device(found)
    return "cpu:gloo,cuda:nccl"


def _join(backend: str) -> Distributed:
    limit, world = timedelta(seconds=patience()), processes_here()
    if dist.is_initialized():
        raise ConfigError(
            "this process is in a process group already",
            remedy="leave it before (torch.distributed.destroy_process_group), or begin ranks_here first",
        )
    try:
        met, rank, world = next(rendezvous("env://", timeout=limit))
        board = PrefixStore(f"softlabels/{next(_TIMES)}", met)  # nothing on it is of an earlier meeting
        dist.init_process_group(backend, store=board, rank=rank, world_size=world, timeout=limit)
        group = dist.new_group(backend="gloo", timeout=limit)
        for each in (dist.group.WORLD, group):
            _keep_for_ever(each)
        return Distributed(rank, world, board, group)
    except ValueError as error:
        raise ConfigError(
            f"the environment of this process does not say how to reach the others: {error}",
            remedy="start them by torchrun, or by softlabels train-student --processes=N",
        ) from error
    except RuntimeError as error:
        raise RankLost(
            f"the {world} processes have not all met within {limit.total_seconds():g} s ({_first_line(error)})",
            remedy=f"start all {world}, and {AGAIN}; where some are slow to start, give a larger SOFTLABELS_PATIENCE",
        ) from error


def _keep_for_ever(group: object) -> None:
    """Never let a group be taken apart. Its destructor waits for gloo's threads while it holds Python's lock, for which such a
    thread may wait to let go of its last tensor: then neither ends (seen in torch 2.13, where a DDP module went last).
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


class Distributed:
    """See `Ranks`.

    Args:
        board: where all can read and write, whatever has failed.
        group: for what the loader's thread exchanges while the main thread adds up gradients.
    """

    def __init__(self, rank: int, world: int, board: Any, group: dist.ProcessGroup) -> None:
        self.rank, self.world = rank, world
        self.part = Part(rank, world, self._exchange)
        self._board, self._group = board, group
        self._ended = threading.Event()

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """See `Ranks`."""
        own = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
        every = [torch.empty_like(own) for _ in range(self.world)]
        self._heard(lambda: dist.all_gather(every, own))
        return [sum(column) for column in zip(*(each.tolist() for each in every), strict=True)]

    def gather(self, value: Any) -> list[Any]:
        """See `Ranks`."""
        packed = b"" if self.rank == 0 else _pack(value)
        found = self._heard(lambda: self._to_each([packed] + [b""] * (self.world - 1), None))
        return [value] + [_unpack(each) for each in found[1:]] if self.rank == 0 else []

    def broadcast(self, value: Any) -> Any:
        """See `Ranks`."""
        packed = _bytes(bytearray(_pack(value) if self.rank == 0 else b""))
        size = torch.tensor([len(packed)])
        self._heard(lambda: dist.broadcast(size, 0))
        packed = packed if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
        self._heard(lambda: dist.broadcast(packed, 0))
        return value if self.rank == 0 else _unpack(packed.numpy().tobytes())

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """See `Ranks`."""
        mine = list(tensors)
        if not mine:
            return
        parts = [each.detach().contiguous().reshape(-1).view(torch.uint8) for each in mine]
        whole = torch.cat(parts)
        self._heard(lambda: dist.broadcast(whole, 0))
        for each, part in zip(mine, torch.split(whole, [len(part) for part in parts]), strict=True):
            if self.rank > 0:
                each.copy_(part.clone().view(each.dtype).view(each.shape))

    def wrap(self, step: nn.Module, *, shard: bool) -> nn.Module:
        """See `Ranks`."""
        if shard:
            return Sharded(step, "cuda" if "nccl" in dist.get_backend_config() else "cpu", self.world)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has two names for it, earlier ones this alone
            wrapped = DistributedDataParallel(_Steady(step), broadcast_buffers=False, find_unused_parameters=True)
        wrapped.register_comm_hook(
            None, lambda _, bucket: _summed(bucket)
        )  # torch reads annotations: of none it is sure
        return wrapped

    def apart(self, step: nn.Module) -> AbstractContextManager[None]:
        """See `Ranks`."""
        if isinstance(step, Sharded):  # whose gradients would be kept whole
            return nullcontext()
        return cast(AbstractContextManager[None], cast(DistributedDataParallel, step).no_sync())

    def lost(self, error: Exception) -> RankLost:
        """Why a rank cannot be reached, as far as it has said it."""
        if "imed out" in str(error):
            what = f"another of the {self.world} processes has not answered for {patience():g} s"
            return RankLost(
                what, remedy=f"end what hangs, and {AGAIN}; if it is only slow, set a larger SOFTLABELS_PATIENCE"
            )
        rank, _, said = self._on_board().partition(" ")
        what = f"rank {rank} of {self.world} has failed: {said}"
        if not rank:
            what = f"one of the {self.world} processes has ended without a word: killed, or its machine is gone"
        return RankLost(what, remedy=AGAIN)

    def fail(self, error: BaseException) -> None:
        """End this rank's part in the run. What another one says already is not said again."""
        self._ended.set()
        own = f"{type(error).__name__}: {error}"
        try:
            first = self._board.compare_set(FAILED, "", f"{self.rank} {own}").decode(errors="replace")
        except RuntimeError:
            return  # the board is gone with rank 0
        rank, _, said = first.partition(" ")
        if isinstance(error, SoftLabelsError) and rank != str(self.rank):
            error.is_said = said == own or isinstance(error, RankLost)

    def _on_board(self) -> str:
        """Who has failed first, and why; empty where nobody says so."""
        with suppress(RuntimeError):  # the board is gone with rank 0
            for _ in range(int(GRACE / PAUSE)):
                if self._board.check([FAILED]):
                    return str(self._board.get(FAILED).decode(errors="replace"))
                time.sleep(PAUSE)
        return ""

    def _heard(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except RuntimeError as error:
            raise self.lost(error) from error

    def _exchange(self, messages: Sequence[Buffer]) -> list[Buffer]:
        return self._heard(lambda: self._to_each(messages, self._group))

    def _to_each(self, messages: Sequence[Buffer], group: dist.ProcessGroup | None) -> list[Buffer]:
        """What each rank sends this one, which sends them these."""
        sent = [b"" if rank == self.rank else each for rank, each in enumerate(messages)]
        sizes = torch.tensor([memoryview(each).nbytes for each in sent])
        theirs = torch.empty_like(sizes)
        self._finish(dist.all_to_all_single(theirs, sizes, group=group, async_op=True))
        found, given = torch.empty(int(theirs.sum()), dtype=torch.uint8), _bytes(bytearray().join(sent))
        self._finish(dist.all_to_all_single(found, given, theirs.tolist(), sizes.tolist(), group=group, async_op=True))
        whole, ends = memoryview(found.numpy()), theirs.cumsum(0).tolist()  # type: ignore[arg-type]  # an array has a buffer
        parts = [whole[end - size : end] for end, size in zip(ends, theirs.tolist(), strict=True)]
        return [messages[self.rank] if rank == self.rank else part for rank, part in enumerate(parts)]

    def _finish(self, work: dist.Work) -> None:
        """Wait for what is under way, unless this rank ends."""
        pause = 1e-4
        while not work.is_completed():
            if self._ended.is_set():
                raise RankLost("this process ended before the others answered", remedy=AGAIN)
            time.sleep(pause)
            pause = min(2 * pause, 5e-3)
        work.wait()


class _Steady(nn.Module):
    """A step with a parameter that no loss uses.

    Where some parameters may be unused, DDP keeps the buckets that it begins with, whose order decides about the last bits of
    sums over three ranks and more: a run that was restarted ends with the same ones. With one that is never used it does not
    advise against that.
    """

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        first = next(step.parameters(), None)
        self.step, self.unused = step, nn.Parameter(torch.zeros(1, device=None if first is None else first.device))

    def forward(self, *what: Any, **more: Any) -> Tensor:
        loss: Tensor = self.step(*what, **more)
        return loss


def _summed(bucket: Any) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])  # type: ignore[no-any-return]


def _unlike_ddp(error: BaseException) -> BaseException:
    """What a user is told of a model that cannot be divided; other errors are what they are."""
    if not (isinstance(error, RuntimeError) and "mark a variable ready only once" in str(error)):
        return error
    return ConfigError(
        "a parameter has its gradient in several backward passes of a step, as by activation checkpointing with "
        "use_reentrant=True, which processes that divide batches cannot add up",
        remedy="give use_reentrant=False, start one process, or, of a sweep, give training.divide=students",
    )


def _is_of_network(error: RuntimeError) -> bool:
    """Whether torch says that a rank cannot be reached; it has no type for gloo's errors."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _bytes(data: bytearray) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _pack(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _unpack(data: Buffer) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
