"""A served teacher whose server fails: a trial in a child of `tests.faults.commands`. A request says where (`folder`), the
`seed`, whether the worker is killed (`kill`) or the server fails, and whether what protects from it is `heeded`.

The stand-in server of tests.teacher answers by a table in the place of a model, over HTTP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import SoftLabelsError
from softlabels.foreign.rows import ForeignRow
from softlabels.jobs.label import label
from softlabels.store import open_store
from softlabels.store.commit import recorded_shards
from softlabels.system.local import LocalFolder
from softlabels.teacher import answered, served
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.served import Served, sentinels_of
from softlabels.transfer import TransferRows
from tests.faults.campaign import Harm
from tests.faults.writers import Acknowledge, Child
from tests.teacher.sequences import TOKENS, token_rows
from tests.teacher.stand_in import TRANSIENT, WRONG, StandIn, running

ROWS, LIMIT = 30, 60.0
TOPK = LabelsConfig(encoding="topk", k=4, rows_per_shard=16, rows_per_chunk=16)
UNSEEN = {("sglang", "shifted")}  # its lists name no token of the prompt: in a short row a shift may contradict nothing
_ALONE = 8  # sentinels are asked together, and one by one


def run(request: dict[str, Any]) -> int:
    """One trial. Raises `AssertionError`, `Harm`."""
    rng = np.random.default_rng(request["seed"])
    server = StandIn(_table(3), ["vllm", "sglang", "openai"][rng.integers(3)])
    rows, store = token_rows(np.random.default_rng(7), ROWS), Path(request["folder"]) / f"store-{request['seed']}"
    if request["kill"]:
        _killed(rng, server, rows, store, resumes=request["heeded"])
    elif request["heeded"]:
        wrong = [name for name in WRONG if (server.kind, name) not in UNSEEN]
        _faulty(rng, server, rows, store, str(rng.choice([*wrong, "", ""])))
    else:
        with _unheeded():
            _faulty(rng, server, rows, store, "neighbour", calm=True)
    return 0


def _table(seed: int) -> Any:
    """Log-probabilities (L, V) by the last two tokens."""
    rng = np.random.default_rng(seed)
    one, two = 3 * rng.normal(size=(2, TOKENS, TOKENS))

    def model(tokens: Sequence[int]) -> np.ndarray:
        z = one[[*tokens]] + two[[0, *tokens[:-1]]]
        return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))

    return model


def _asked(server: StandIn, *, brief: bool = False) -> Served:
    teacher = Served(server.url, "tiny", server.kind, concurrency=6, tries=8, dtype="float32")  # type: ignore[call-overload]
    seconds = {"read": 0.4, "whole": 0.8} if brief else {"read": 30.0, "whole": 40.0}
    teacher.web.limits = replace(teacher.web.limits, backoff=0.001, **seconds)
    teacher.rows_at_once = 8
    return teacher


def _faulty(
    rng: np.random.Generator, server: StandIn, rows: TransferRows, store: Path, wrong: str, *, calm: bool = False
) -> None:
    """Faults at random: the store is the one of a server without, or there is an error of ours, and then it goes on."""
    model, share = server.model, 0.0 if calm else float(rng.uniform(0, 0.12))
    transient = [*TRANSIENT] if rng.random() < 0.3 else ["429", "500", "reset", "cut off", "short", "html"]
    at = int(rng.integers(2 * _ALONE + 1, 2 * _ALONE + ROWS))
    restart = int(rng.integers(2 * _ALONE + 1, 60)) if not calm and rng.random() < 0.3 else 1 << 30
    draws = rng.random(10_000)

    def fault(number: int, tokens: tuple[int, ...]) -> str:
        if number >= restart:
            server.model = _table(4)
        return wrong if number == at else str(transient[number % len(transient)]) if draws[number] < share else ""

    with running(server):
        server.fault = fault
        error = _in_time(_asked(server, brief=True), rows, store)
        server.fault, server.model = lambda number, tokens: "", model
        if error is not None:
            assert isinstance(error, SoftLabelsError), repr(error)
            error = _in_time(_asked(server), rows, store)
            assert error is None, f"it does not go on: {error!r}"
        _require_right(server, rows, store)


def _require_right(server: StandIn, rows: TransferRows, store: Path) -> None:
    server.fault = lambda number, tokens: ""
    alone = Path(f"{store}-alone")
    label(rows, _asked(server), TOPK, alone)
    ours, theirs = (open_store(each, split="train") for each in (store, alone))
    if ours.content_digest != theirs.content_digest:
        raise Harm(f"labels that are not the model's: {server.kind}")


def _in_time(teacher: Served, rows: TransferRows, store: Path) -> BaseException | None:
    """What labelling raises, if anything. Raises `AssertionError` where it hangs."""
    found: list[BaseException] = []

    def work() -> None:
        try:
            label(rows, teacher, TOPK, store)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive(), f"no end after {LIMIT:g} s"
    return found[0] if found else None


def _killed(rng: np.random.Generator, server: StandIn, rows: TransferRows, store: Path, *, resumes: bool) -> None:
    """SIGKILL in the middle: the next run asks for the rows of missing shards, and sentinels, alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server.url, server.pause = f"http://127.0.0.1:{port}", 0.002

    def work(path: Path, acknowledge: Acknowledge) -> None:
        label(rows, _asked(server), TOPK, path)

    anew = store if resumes else Path(f"{store}-anew")
    children = [Child(partial(work, path)) for path in (store, anew)]  # before there are threads
    with running(server, port):
        children[0].go()
        limit = int(rng.integers(2 * _ALONE + 16, 2 * _ALONE + ROWS))
        while len(server.asked) < limit and children[0].lasts(0.002):
            pass
        ended = children[0].kill()
        assert ended.code in (0, -9), ended.error
        whole = recorded_shards(LocalFolder(store / "train")) if (store / "train").exists() else set()
        kept = {number for shard in whole for number in range(16 * shard, min(ROWS, 16 * (shard + 1)))}
        server.asked.clear()
        ended = children[1].go().end()
        assert ended.code == 0, ended.error
        prompts = [tuple(row[0][row[1] > 0].tolist()) for row in rows.inputs]
        sentinels = {prompts[number] for number in sentinels_of(rows)}
        twice = {prompts[number] for number in kept} & {*server.asked} - sentinels
        assert not twice, f"{len(twice)} rows of shards that are there were asked for again"
        _require_right(server, rows, store)


@contextmanager
def _unheeded() -> Iterator[None]:
    """The defence taken away: whatever tokens an answer is of, they are taken for those that were asked."""
    whole, own = served.read_answer, answered._require_own

    def believed(row: ForeignRow, tokens: Any, *others: Any) -> answered.Answered:
        return whole(replace(row, tokens=np.concatenate([tokens, row.tokens[len(tokens) :]])), tokens, *others)

    served.read_answer, answered._require_own = believed, lambda *given: None  # type: ignore[assignment]
    try:
        yield
    finally:
        served.read_answer, answered._require_own = whole, own
