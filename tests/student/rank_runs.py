"""Small training runs of several processes, which gloo joins, for the tests of ranks; `Server` in `runs` serves them.

A request is a JSON object: `world`, `folder`, `what` (a name of `RUNS`), `changes` (fields of the config), `at` (a rank),
`stop` (null, or the number, from 0, of the question to which rank `at` answers that it should stop), `other` (null, or fields
that it has otherwise), `kill` (null, or [rank, step]: that rank is killed before its step); and, where they are given, `fail`
and `hang` (as `kill`: an error, or a sleep), `moment` ([rank, seconds]: that rank is killed so long after its start), `missing`
(ranks that do not come), `patience`, `by_students`, `before` (how often all have met and left before), `forgets` (ranks do not
draw on from where they were). With `words` a rank runs the command train-student in the folder, with `words_of` its own, and
writes what it prints into `rank<r>.out` and `rank<r>.err`.

Each rank writes what it says of itself into `rank<r>.json` in the folder `told` beside the run's: the error that it ended with,
or digests of its weights, and the rows of its steps. The answer to a request is the exit status of the first process that
failed, or 0.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from blake3 import blake3
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from softlabels.errors import ConfigError, SoftLabelsError
from softlabels.labels.sigmoid_soft import SigmoidMembers
from softlabels.labels.soft import SoftLabels
from softlabels.labels.values_soft import ValuesMembers
from softlabels.stream.batch import Batch
from softlabels.stream.parts import Part
from softlabels.student.config import TrainingConfig
from softlabels.student.distributed import ranks_here
from softlabels.student.learner import Learner, Student
from softlabels.student.ranks import Ranks
from softlabels.student.sharded import local
from softlabels.student.trainer import Trainer
from softlabels_stages import train_student
from tests.student import batches
from tests.student.runs import CLASSES, INPUTS, MemoryBatches, examples, net, serve

AFTER = 5.0  # seconds
WIDTH, POSITIONS, OUTPUTS, VOCABULARY = 6, 5, 13, 11


class Parts:
    """A rank's part of the batches of one process."""

    def __init__(self, whole: MemoryBatches, part: Part) -> None:
        self.whole, self.part = whole, part
        self.steps_per_epoch, self.order_digest = whole.steps_per_epoch, whole.order_digest

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in self.whole.epoch(epoch, start):
            yield batch[self.part.rows(len(batch))]


class TokenBatches(MemoryBatches):
    """The same of rows of positions."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = np.random.default_rng([self.seed or 0, epoch]).permutation(len(self.batch))
        for at in range(start * self.batch_size, len(order), self.batch_size):
            rows = order[at : at + self.batch_size]
            index = torch.from_numpy(rows)
            assert self.batch.mask is not None
            assert self.batch.soft is not None
            soft = self.batch.soft[(index[:, None] * POSITIONS + torch.arange(POSITIONS)).flatten()]
            yield batches.plain(
                self.batch.inputs[index], self.batch.labels[index], soft, rows, self.batch.mask[index], VOCABULARY
            )


def tokens(rows: int = 40) -> Batch:
    """Rows of positions, some of which do not count, some without a label."""
    rng = np.random.default_rng(5)
    z = torch.tensor(rng.normal(0, 2, (rows * POSITIONS, 2, VOCABULARY)))
    shift = z.max(dim=-1).values
    soft = SoftLabels.dense((z - shift[..., None]).half(), shift.float(), torch.full((2,), 0.5))
    labels, mask = rng.integers(-1, VOCABULARY, (rows, POSITIONS)), rng.random((rows, POSITIONS)) < 0.7
    labels[~mask] = -1
    ids = torch.tensor(rng.integers(0, VOCABULARY, (rows, POSITIONS)))
    return batches.plain(ids, torch.tensor(labels), soft, np.arange(rows), torch.tensor(mask), VOCABULARY)


class Language(nn.Module):
    """A student with hidden states and an output matrix; its forward must not be asked. One parameter is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head, self.unused = nn.Linear(WIDTH, OUTPUTS), nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        raise AssertionError("the fused loss is lost")

    def hidden(self, inputs: Tensor) -> Tensor:
        return self.body(self.embed(inputs)).tanh()

    def output_matrix(self) -> tuple[Tensor, Tensor]:
        return self.head.weight, self.head.bias


class Blocks(nn.Module):
    """A small transformer with hidden states and an output matrix that is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(OUTPUTS, WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout=0.0, batch_first=True, bias=False) for _ in range(3)
        )
        self.head = nn.Linear(WIDTH, OUTPUTS)
        self.head.weight, self.unused = self.embed.weight, nn.Linear(2, 2)  # on a third rank nothing of it

    def forward(self, inputs: Tensor) -> Tensor:
        raise AssertionError("the fused loss is lost")

    def hidden(self, inputs: Tensor) -> Tensor:
        found = self.embed(inputs)
        for block in self.blocks:
            found = block(found)
        return found

    def output_matrix(self) -> tuple[Tensor, Tensor]:
        return self.head.weight, self.head.bias


class Remembering(nn.Module):
    """A student with batch statistics, and a buffer of its last rows, of which each rank has another number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(0, CLASSES), persistent=False)
        self.body = nn.Sequential(nn.Linear(INPUTS, CLASSES), nn.BatchNorm1d(CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.body(inputs)
        self.last = found.detach()
        return found


class Reentrant(nn.Module):
    """A student whose activations are computed again in a backward pass within the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(INPUTS, CLASSES), nn.Linear(CLASSES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = checkpoint(self.last, self.first(inputs), use_reentrant=True)
        return found


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def of_kind(kind: str, seed: int, rows: int) -> Batch:
    """Rows with flags, or with vectors; some have none of their own."""
    rng = np.random.default_rng(seed)
    inputs = torch.tensor(rng.normal(size=(rows, INPUTS)), dtype=torch.float32)
    z, weights = torch.tensor(rng.normal(0, 2, (rows, 2, CLASSES)), dtype=torch.float32), torch.full((2,), 0.5)
    if kind == "flags":
        flags = torch.tensor(rng.integers(-1, 2, (rows, CLASSES)), dtype=torch.int8)
        return batches.plain(inputs, flags, SoftLabels(SigmoidMembers(z), weights, "none"), np.arange(rows))
    vectors = torch.tensor(rng.normal(size=(rows, CLASSES)), dtype=torch.float32)
    vectors[::4] = torch.nan
    return batches.plain(inputs, vectors, SoftLabels(ValuesMembers(z), weights, "none"), np.arange(rows))


SWEEP: dict[str, dict[str, Any]] = {"a": {}, "b": {"temperature": 2.0, "alpha": 0.5}, "c": {"loss": "js"}}
RUNS: dict[str, Any] = {
    "mlp": (mlp, {"": {}}),
    "tokens": (Language, {"": {"positions": 3}}),
    "blocks": (Blocks, {"": {"positions": 3}}),
    "reentrant": (Reentrant, {"": {}}),
    "remembering": (Remembering, {"": {}}),
    "sweep": (mlp, SWEEP),
    "all": (net, {"": {"ema": 0.9, "clip_norm": 1.0, "max_norm": 2.0, "micro_batch": 3}}),
    "flags": (mlp, {"": {"loss": "bce"}}),
    "values": (mlp, {"": {"loss": "huber"}}),
}


def batches_of(what: str) -> tuple[Any, Any]:
    """Those to train on and those to judge by, whole."""
    if what in ("tokens", "blocks"):
        return TokenBatches(tokens(), 16), TokenBatches(tokens(), 16)
    if what in ("flags", "values"):
        return MemoryBatches(of_kind(what, 0, 150), 16), MemoryBatches(of_kind(what, 1, 51), 25, seed=None)
    rows = 55 if what == "remembering" else 150  # of the last step too one rank has another number
    return MemoryBatches(examples(0, rows), 16), MemoryBatches(examples(1, 51), 25, seed=None)


def trainer(request: dict[str, Any], ranks: Ranks) -> Trainer:
    """A trainer of this rank."""
    make, students = RUNS[request["what"]]
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 16, "threads": 1, "device": "cpu"} | request["changes"]
    if request["other"] and ranks.rank == request["at"]:
        settings |= request["other"]
    begun = [Student.begin(name, TrainingConfig(**settings | own), make) for name, own in students.items()]
    train, held_out = batches_of(request["what"])
    by_students = request.get("by_students", False)
    if not by_students:
        train, held_out = Parts(train, ranks.part), Parts(held_out, ranks.part)
    folder = Path(request["folder"])
    return Trainer(begun, train, held_out, folder, {"store": "abc"}, ranks=ranks, by_students=by_students)


def watched(request: dict[str, Any], ranks: Ranks, rows: list[str]) -> None:
    """Write down the rows of every step; kill this process before a step where that is asked."""
    plain = Learner.step

    def step(self: Learner, batch: Batch, moved: Batch, number: int) -> float:
        if request["kill"] == [ranks.rank, number]:
            os.kill(os.getpid(), signal.SIGKILL)
        if request.get("fail") == [ranks.rank, number]:
            raise ConfigError("rows of this rank", remedy="change them")
        if request.get("hang") == [ranks.rank, number]:
            time.sleep(3)
        loss = plain(self, batch, moved, number)
        rows.append(f"{number} {self.name} {loss.hex()} {batch.first} {batch.size} {batch.rows.tolist()}")
        return loss

    if request.get("forgets"):
        Trainer._load_drawn = lambda self, drawn: None  # type: ignore[method-assign]
    Learner.step = step  # type: ignore[method-assign]


def command(request: dict[str, Any]) -> int:
    """What one rank does of a command."""
    rank = os.environ.get("RANK", "0")
    os.chdir(request["folder"])
    with (
        Path(f"rank{rank}.out").open("w") as out,
        Path(f"rank{rank}.err").open("w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        return train_student.main([*request["words"], *request.get("words_of", {}).get(rank, [])])


def run(request: dict[str, Any]) -> int:
    """What one rank does."""
    if "words" in request:
        return command(request)
    told = Path(request["folder"]).parent / "told"
    told.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    found: dict[str, Any] = {"rows": rows}
    code = 0
    rank = int(os.environ.get("RANK", "0"))
    try:
        for _ in range(request.get("before", 0)):
            with ranks_here():
                pass
        with ranks_here() as ranks:
            watched(request, ranks, rows)
            made, asked = trainer(request, ranks), 0

            def should_stop() -> bool:
                nonlocal asked
                asked += 1
                return ranks.rank == request["at"] and asked - 1 == request["stop"]

            held = [local(each) for learner in made._learners for each in learner.model.parameters()]
            found["bytes"] = sum(each.nbytes for each in held)
            del held
            made.run(should_stop)
            has = ranks.rank == 0 or not made._config.shard
            states = [learner.model.state_dict() for learner in made._learners if has]
            found["weights"] = [blake3(b"".join(t.numpy().tobytes() for t in s.values())).hexdigest() for s in states]
    except SoftLabelsError as error:
        found |= {"error": f"{type(error).__name__}: {error}", "is_said": error.is_said}
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
        code = 1
    (told / f"rank{rank}.json").write_text(json.dumps(found))
    return code


def child(request: dict[str, Any]) -> int:
    """Fork the ranks, as torchrun would start them, and wait for all."""
    world = request["world"]
    if world == 1:
        return run(request)
    pids, (read, write) = [], os.pipe()  # no thread runs yet: a child of a process with threads may hang
    for rank in range(world - request.get("missing", 0)):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.read(read, 5).decode(), "WORLD_SIZE": str(world),
                "RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_USE_AGENT_STORE": "True",
                "SOFTLABELS_PATIENCE": request.get("patience", "60"),
            }  # fmt: skip
            os._exit(run(request))
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    os.write(write, f"{store.port:05}".encode() * len(pids))
    if "moment" in request:
        rank, seconds = request["moment"]
        time.sleep(seconds)
        os.kill(pids[rank], signal.SIGKILL)  # a zombie at the worst
    return outcome(pids)


def outcome(pids: list[int]) -> int:
    """The exit status of the first rank that fails, or 0, and of one that a signal ended before others; those that are left are
    ended some time after it, as torchrun does.
    """
    left, first, until = set(pids), 0, math.inf
    while left:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            left.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            if code and not first:
                until = time.monotonic() + AFTER
            if code and (not first or (code < 0 and until < math.inf)):  # two may have ended since the last look
                first = code
        elif time.monotonic() > until:
            for each in left:
                os.kill(each, signal.SIGKILL)
            until = math.inf
        else:
            time.sleep(0.005)
    return first if first >= 0 else 128 - first


if __name__ == "__main__":
    import_module("matplotlib.figure")  # seconds that the command would take in each child
    import_module("torch.distributed.fsdp")
    serve(child)
