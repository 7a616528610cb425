"""A teacher behind a server: `class_path: softlabels.teacher.served.Served`. Its labels are the k largest log-probabilities of
each position, at temperature 1, and the mass of all others; with an output matrix, and a server that gives hidden states, the
logits are known, and so labels of any temperature (`hidden`). docs/served.md.

What it is: the model's name, the kind and version of the server, and what it says of a few sentinel rows, which the store keeps
and which is compared, within a tolerance, at each start and before each shard is committed: a server tells no digest of its
weights, and the same weights give other last digits in other company. Neighbours: `foreign.dialects`, `system.web`,
`answered`.

B rows of a batch, P positions of a row, L its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.dependence import spread
from softlabels.errors import (
    ClassIdOverflow,
    ConfigError,
    NoAnswer,
    OtherLogits,
    TeacherError,
    UserError,
    one_line,
    some,
)
from softlabels.foreign.dialects import DIALECTS, INFO_BYTES, WITH_STATES, Dialect, Kind, Models, Version, about_itself
from softlabels.foreign.rows import Unfit
from softlabels.labels.encoding import Encoding, TopkEncoding
from softlabels.labels.lost import Lost
from softlabels.objects import ObjectSpec, build
from softlabels.store.spec import MemberSpec, Spec, TeacherSpec
from softlabels.system.web import Ask, Limits, WebServer
from softlabels.teacher.answered import NOTHING_SAID, Answered, blank_columns, likeness, read_answer
from softlabels.teacher.config import SERVED, TeacherConfig
from softlabels.teacher.ensemble import Ensemble, load_ensemble
from softlabels.teacher.expected import Expected
from softlabels.teacher.hidden import CHECKED, MOST, OTHER_MATRIX, Head
from softlabels.teacher.teacher import Batch
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows
from softlabels.transfer.sequences import SequenceInfo

SENTINELS, FEW = 8, 2  # rows that are asked again at a start, and of these before a shard is committed
_LOOKED_AT = 256  # rows among which they are chosen
Floats = NDArray[np.float64]


class Served:
    """A model behind a server, as a teacher of rows of tokens.

    Args:
        url: of the server, such as http://localhost:8000.
        model: the name under which it is served.
        server: vllm, sglang, or openai for any other with `echo`, `logprobs` and `return_tokens_as_token_ids`.
        key_env: name of the environment variable with its key, if it needs one.
        dtype: what the server computes in, for the store: see its --dtype.
        concurrency: the most requests in flight. requests_per_second: the most per second; by default no limit.
        connect_timeout, read_timeout, timeout: seconds for connecting, for a pause in an answer, for a whole request.
        tries: how often a request is made; the waits between double from one second, or are as long as the server asks.
        tolerance: the most by which log-probabilities of sentinel tokens may differ on average, in nats; a single one may
            differ by 20 times that.
        output_matrix: a safetensors file with the model's output matrix, to ask for hidden states (sglang) and store labels of
            any temperature. output_weight: its name in the file, if there are several matrices. output_bias: the name of the
            bias, if the model has one.

    Attributes:
        spec, device, weights: as for every `Teacher`; the spec after `meet`.
        batch_size: 0, since the server forms its batches.
        kept: by split, the log-probabilities of the sentinels' tokens with which the store was begun.

    Example:
        >>> from softlabels.teacher.served import Served
        >>> served = Served("http://localhost:8000", "teacher", server="vllm", concurrency=16)  # for label(rows, served, ...)
        >>> served.model
        'teacher'
    """

    def __init__(
        self, url: str, model: str, server: Kind = "vllm", *, key_env: str | None = None,
        dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16", concurrency: int = 32,
        requests_per_second: float | None = None, connect_timeout: float = 10.0, read_timeout: float = 120.0,
        timeout: float = 600.0, tries: int = 8, tolerance: float = 0.05, output_matrix: str | None = None,
        output_weight: str | None = None, output_bias: str | None = None,
    ) -> None:  # fmt: skip
        for name, text in {"url": url, "model": model, "key_env": key_env or ""}.items():
            if not isinstance(text, str):  # not repeated: it may be the key itself
                raise ConfigError(f"{name} is no text", remedy="write it in quotes")
        if server not in [*DIALECTS]:
            raise ConfigError(f"server is {server!r}", remedy=f"choose one of {', '.join(DIALECTS)}")
        if dtype not in ("bfloat16", "float16", "float32"):
            raise ConfigError(f"dtype is {dtype!r}", remedy="choose one of bfloat16, float16, float32")
        numbers = {
            "concurrency": concurrency, "connect_timeout": connect_timeout, "read_timeout": read_timeout,
            "timeout": timeout, "tries": tries, "tolerance": tolerance,
            "requests_per_second": 1 if requests_per_second is None else requests_per_second,
        }  # fmt: skip
        for name, value in numbers.items():
            whole = name in ("concurrency", "tries")
            if not isinstance(value, int if whole else int | float) or not 0 < value < 1e6:
                kind = "whole number" if whole else "number"
                raise ConfigError(f"{name} is {value!r}", remedy=f"give a {kind} above 0")
        limits = Limits(
            concurrency, requests_per_second, connect_timeout, read_timeout, timeout, tries, longest=max(120.0, timeout)
        )
        self.web = WebServer(url, key_env=key_env, limits=limits)
        self.model, self.dtype, self.tolerance = model, dtype, tolerance
        self.dialect, self.head = _asked_for(server, output_matrix, output_weight, output_bias)
        self.name, self.licence, self.rows_at_once, self.batch_size = model, "", 256, 0
        self.device = torch.device("cpu") if self.head is None else self.head.device
        self.expected = Expected()
        self.unused, self.said = frozenset[str](), tuple[str, ...]()
        self.kept: dict[str, Floats] = {}
        self.spec = TeacherSpec(name=model, precision=dtype, members=(MemberSpec(model=model),))
        self._sentinels: dict[str, NDArray[np.int64]] = {}  # by split
        self._end = -1  # of the shard that is asked for

    @contextmanager
    def at_work(self, should_stop: Callable[[], bool]) -> Iterator[None]:
        """A context for requests: they are cancelled if `should_stop` says so; connections close at the end."""
        self.web.should_stop = should_stop
        try:
            yield
        finally:
            self.web.close()

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """One member, which gives logits if its head is known."""
        return None if self.head is None else np.ones(1)

    @property
    def words(self) -> str:
        """The server and the requests, in one line."""
        limits = self.web.limits
        rate = f", {limits.rate:g} a second" if limits.rate else ""
        labels = f"labels are the {self._k} largest and the others' mass, known at T=1 alone"
        if self.head is not None:
            labels = "logits are its hidden states times the output matrix"
        who = f"{self.spec.members[0].model} at {self.web.url}"
        return f"asked: {who}, up to {limits.in_flight} requests at a time{rate}; its {labels}"

    def environment(self) -> dict[str, str]:
        """The version of torch alone: the server computes the numbers."""
        return {"torch": str(torch.__version__)}

    def folds(self, rows: TransferRows) -> None:
        """None: no members were trained without a row."""

    def meet(self, sequence: SequenceInfo, encoding: Encoding, longest: int) -> None:
        """Identify the server; prompts will have at most `longest` tokens.

        Raises:
            ConfigError: it has no such model, or one with a shorter context. NoAnswer: it gives no answer.
        """
        read = partial(about_itself, kind=Models)
        (models,) = self.web.ask([Ask("/v1/models", None, INFO_BYTES, read)])
        found = models.find(self.model, self.web.url)
        if found.max_model_len is not None and longest + 1 > found.max_model_len:
            raise ConfigError(
                f"rows have up to {longest} tokens, and {self.model} takes {found.max_model_len}, of which one is generated",
                remedy=f"give transfer_set.sequences.length={found.max_model_len - 1}, or start the server with a longer "
                "context",
            )
        kind = f"{self.dialect.title} {self._version()}".strip()
        member = MemberSpec(
            model=f"{one_line(self.model)} ({kind})", weights="" if self.head is None else self.head.digest
        )
        self.spec = TeacherSpec(name=self.name, precision=self.dtype, members=(member,))
        self.expected = Expected({"": encoding}, sequence)
        self._sentinels.clear()
        self.kept.clear()

    def _version(self) -> str:
        """The server's version, "" where it does not say it."""
        for path in self.dialect.version:
            try:
                (found,) = self.web.ask([Ask(path, None, INFO_BYTES, partial(about_itself, kind=Version))])
            except (ConfigError, NoAnswer):  # it has no such path, or what is before it answers otherwise
                continue
            return one_line(found.version, 80)
        return ""

    def cut(self, rows: TransferRows, spec: Spec, shard: int) -> list[tuple[int, int]]:
        """Batches of as many rows as the recipe says."""
        del rows
        span = spec.shard_rows(shard)
        self._end = span.stop
        starts = range(span.start, span.stop, self.rows_at_once)
        return [(start, min(start + self.rows_at_once, span.stop)) for start in starts]

    def batch(self, rows: TransferRows, start: int, stop: int, *, embed: bool) -> Batch:
        """As `Teacher.batch`: its labels are already encoded."""
        numbers = np.arange(start, stop)
        inputs = np.array(rows.inputs[start:stop])
        counted = self.expected.count(rows, slice(start, stop), inputs)
        answers = self._asked(rows, numbers)
        if stop == self._end and rows.split in self.kept:
            self.require_like(rows, self.kept[rows.split], FEW, "that the store was begun with")
        columns = {"content_key": rows.keys[start:stop], **counted.columns} | ({"input": inputs} if embed else {})
        place = partial(self.expected.place, range(start, stop))
        if self.head is not None:
            classes = {name: labels.reshape(-1) for name, labels in counted.classes.items()}
            return Batch({"": self._blocks(rows, numbers, answers)}, columns, classes, counted.flat, place)
        soft = blank_columns(self._encoding, self._sequence, len(inputs))
        for number, answer in enumerate(answers):
            for name, values in answer.columns.items():
                soft[name][number, answer.at] = values
        return Batch({}, columns | soft, {}, counted.flat, place, {"": Lost()})

    def blocks(self, rows: TransferRows, at: NDArray[np.int64], target: str) -> Iterator[tuple[slice, Tensor]]:
        """Logits (n, 1, C) of the rows `at`, for a teacher with a known head, as `Outputs.blocks`."""
        del target  # it has one
        return self._blocks(rows, at, self._asked(rows, at))

    def _blocks(
        self, rows: TransferRows, numbers: NDArray[np.int64], answers: Sequence[Answered]
    ) -> Iterator[tuple[slice, Tensor]]:
        assert self.head is not None  # who has none gives columns
        positions = self._sequence.positions
        at = np.concatenate([positions * number + answer.at for number, answer in enumerate(answers)])
        classes, states = min(self._sequence.classes, self.head.classes), [answer.states for answer in answers]
        where = [f"{self.web.url}, row {number} of {rows.split}" for number in numbers]
        return self.head.blocks(states, at, positions * len(answers), classes, where.__getitem__, self.tolerance)

    def place(self, rows: Sequence[int], numbers: Sequence[int], at: int) -> str:
        """As `Ensemble.place`."""
        return self.expected.place(rows, numbers[at])

    def ask_sentinels(self, rows: TransferRows) -> Floats:
        """The log-probabilities of the sentinels' tokens, after requests for the rows together and one by one have given the
        same within the tolerance. Raises `TeacherError`.
        """
        together = self._own(rows, SENTINELS)
        each = range(min(SENTINELS, len(rows.keys)))
        alone = np.concatenate([self._own(rows, SENTINELS, [number]) for number in each])
        mean, most = likeness(together, alone)
        if self._differs(mean, most):
            raise TeacherError(
                f"{self.spec.members[0].model} gives rows of {rows.split} other log-probabilities when they are asked "
                f"together than one by one: the next tokens' differ by {mean:.3g} on average, {most:.3g} at most (tolerance "
                f"{self.tolerance:g})",
                remedy="check the server (its --dtype, the dtype of its cache), or give a larger tolerance",
            )
        return together

    def require_like(self, rows: TransferRows, kept: Floats, count: int, whose: str) -> None:
        """Request `count` of the sentinels again. Raises `OtherLogits` if they differ from `kept`; `whose` names those in the
        message.
        """
        self.require_same(rows, kept, self._own(rows, count), whose)

    def require_same(self, rows: TransferRows, kept: Floats, found: Floats, whose: str) -> None:
        """The same check for sentinels `found` now, which may be the first."""
        mean, most = likeness(kept[: len(found)], found)
        if len(found) > len(kept) or self._differs(mean, most):
            raise OtherLogits(
                f"{self.spec.members[0].model} at {self.web.url} is not the model {whose}, although the name is the same: the "
                f"next tokens of sentinel rows of {rows.split} have log-probabilities that differ by {mean:.3g} on average, "
                f"{most:.3g} at most (tolerance {self.tolerance:g})",
                remedy="serve the model that began it, with its dtype and quantization, or give another store path",
            )

    def _differs(self, mean: float, most: float) -> bool:
        return not (mean <= self.tolerance and most <= MOST * self.tolerance)

    def _own(self, rows: TransferRows, count: int, which: Sequence[int] | None = None) -> Floats:
        """The log-probabilities of tokens of the first `count` sentinels, or of `which` of them."""
        if rows.split not in self._sentinels:
            self._sentinels[rows.split] = sentinels_of(rows)
        numbers = self._sentinels[rows.split][:count]
        answers = self._asked(rows, numbers if which is None else numbers[[*which]])
        if self.head is not None and which is None:
            where = f"{self.web.url}, sentinel rows of {rows.split}"
            self.head.require([answer.states for answer in answers], where, self.tolerance)
        return np.concatenate([answer.sample for answer in answers])

    def _asked(self, rows: TransferRows, numbers: NDArray[np.int64]) -> list[Answered]:
        """The answers for these rows; of one without a position that counts nothing is asked. Raises as `read_answer`, naming
        the row, and as `WebServer.ask`.
        """
        asks, k, found = [], self._k, [NOTHING_SAID] * len(numbers)
        inputs = np.asarray(rows.inputs[numbers], np.int64)
        places = np.flatnonzero(alignment(inputs).mask.any(axis=1)).tolist()
        for place in places:
            prompt, documents = inputs[place]
            tokens = prompt[documents > 0]
            read = partial(self._read, f"row {numbers[place]} of {rows.split}", tokens, documents)
            most = self.dialect.most(len(tokens), k, 0 if self.head is None else self.head.width)
            asks.append(Ask(self.dialect.path, self.dialect.body(tokens.tolist(), k, self.model), most, read))
        for place, answer in zip(places, self.web.ask(asks), strict=True):
            found[place] = answer
        return found

    def _read(self, where: str, tokens: NDArray[np.int64], documents: NDArray[np.int64], body: bytes) -> Answered:
        try:
            row = self.dialect.row(body)
            if self.head is None:
                return read_answer(row, tokens, documents, self._encoding, self._sequence.classes, self.dialect.echoed)
            self.head.require_width(row)
            return read_answer(row, tokens, documents, self._k, self.head.classes, self.dialect.echoed)
        except Unfit as unfit:
            raise self._error(where, unfit) from None

    def _error(self, where: str, unfit: Unfit) -> UserError:
        remedy = unfit.remedy
        if unfit.reason == "positions of fewer entries":
            remedy = f"give a smaller labels.k, or {self.dialect.raise_k}"
        if unfit.kind is ClassIdOverflow:
            remedy = "name the served model's own tokenizer in transfer_set.sequences; outputs that no token has are among the "
            remedy += "largest less often with a smaller labels.k"
        if self.head is not None and unfit.reason in ("ids out of range", "positions of fewer entries"):
            remedy = OTHER_MATRIX
        return unfit.kind(f"{self.web.url}, {where}: {unfit.what}", remedy=remedy)

    @property
    def _encoding(self) -> TopkEncoding:
        encoding: Any = self.expected.targets[""]
        return encoding  # type: ignore[no-any-return]  # `meet` was given one

    @property
    def _k(self) -> int:
        """How many of the largest log-probabilities are asked for."""
        return self._encoding.k if self.head is None else min(CHECKED, self.head.classes)

    @property
    def _sequence(self) -> SequenceInfo:
        assert self.expected.sequence is not None
        return self.expected.sequence


def sentinels_of(rows: TransferRows) -> NDArray[np.int64]:
    """The numbers of the sentinels: of up to `_LOOKED_AT` rows, spread evenly, those of the most positions that count."""
    some = spread(len(rows.keys), _LOOKED_AT)
    counts = alignment(np.asarray(rows.inputs[some], np.int64)).mask.sum(axis=1, dtype=np.int64)
    return some[np.argsort(-counts, kind="stable")[:SENTINELS]]


def _asked_for(server: Kind, path: str | None, weight: str | None, bias: str | None) -> tuple[Dialect, Head | None]:
    """How a server is asked, for hidden states too where there is a matrix to multiply them with. Raises `ConfigError`,
    `WeightsError`.
    """
    if path is None:
        if weight or bias:
            raise ConfigError(
                f"{'output_weight' if weight else 'output_bias'} is given without a file",
                remedy="name the safetensors file that has it as output_matrix",
            )
        return DIALECTS[server], None
    if server not in WITH_STATES:
        raise ConfigError(
            f"output_matrix is given, and answers of {DIALECTS[server].title} servers have no hidden states",
            remedy="serve the model by SGLang with --enable-return-hidden-states (server: sglang), or leave it out",
        )
    return WITH_STATES[server], Head(path, weight, bias)


def load_teacher(config: TeacherConfig, *, train: str = "softlabels train-teacher") -> Ensemble | Served:
    """A recipe's teacher: models that run here, or one that a server holds, of which nothing is asked yet.

    Raises:
        ConfigError: settings that do not go together. The others: as `load_ensemble` and `Served`.
    """
    if not any(member.class_path == SERVED for member in config.members):
        return load_ensemble(config, train=train)
    if len(config.members) > 1:
        raise ConfigError(
            f"teacher.members has {len(config.members)} members, and a served teacher must be the only one",
            remedy="label with each into its own store, and merge them: softlabels merge A B --out=C",
        )
    (member,), plain = config.members, TeacherConfig(config.members)
    given = [
        f"teacher.{name}"
        for name in ("precision", "device", "floor", "folds")
        if getattr(config, name) != getattr(plain, name)
    ]
    given += ["weights"] * (member.weights is not None) + ["weight"] * (member.weight != 1)
    if given:
        raise ConfigError(
            f"{some(given)} of a served teacher", remedy="leave it out; what the server computes in is init_args.dtype"
        )
    found: Served = build(ObjectSpec(SERVED, member.init_args))
    found.name, found.licence, found.rows_at_once = config.name, config.licence, config.batch_size
    return found
