"""axolotl's data sets for its KD trainer (read as of commit 067b021), Parquet or JSON lines, in three forms.

- prepared: `input_ids`, `target_token_ids`, `target_logprobs` and `target_mask`, (L, K) each, as its collator takes them;
- 2: `logprobs`, lists of numbers, and `target_token_ids`, lists of ids;
- 1: `logprobs`, lists of {"logprob": -0.1, "token": "token_id:17"}.

Forms 1 and 2 have `messages`, which are tokenized by the tokenizer's chat template, or `input_ids`, and their lists are aligned
from the right: the last list stands at the last token. What a list at token q is, its code leaves open: `aligned` says "own",
the distribution of token q, or "next", that of token q + 1, as its trainer takes it, which compares it with what the student
says at q. There is no tail; the temperature stands in its YAML alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from softlabels.errors import LogitsError, UserError
from softlabels.foreign.rows import ForeignRow, Ints, Unfit, entries_of, misaligned, whole_numbers
from softlabels.foreign.tables import batches, files_of, json_records

Aligned = Literal["own", "next"]
_PREPARED = ("input_ids", "target_token_ids", "target_logprobs", "target_mask")


def written(
    tokens: NDArray[Any], ids: NDArray[Any], log_p: NDArray[Any], counts: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """The columns of a prepared row of tokens (L,) and of its positions (P, K), of which (P,) count: a list a token; those
    that say nothing, the last among them, are masked.
    """
    shape, at = (len(tokens), ids.shape[-1]), np.flatnonzero(counts)
    target_ids, target_log_p, mask = np.zeros(shape, ids.dtype), np.zeros(shape, log_p.dtype), np.zeros(shape, np.int8)
    target_ids[at], target_log_p[at], mask[at] = ids[at], log_p[at], 1
    labels = np.full_like(tokens, -100)
    labels[at + 1] = tokens[at + 1]
    return {
        "input_ids": tokens, "attention_mask": np.ones(len(tokens), np.int8), "labels": labels,
        "target_token_ids": target_ids, "target_logprobs": target_log_p, "target_mask": mask,
    }  # fmt: skip


class _Entry(msgspec.Struct):
    logprob: float
    token: str


class Axolotl:
    """Such a data set.

    Args:
        path: a file, or a folder of Parquet files.
        column: where the lists stand that are called `logprobs` here (`logprobs_field` of its YAML).
        aligned: see the module.
        tokenized: messages to ids.
    """

    slack, known_at = 1e-3, None

    def __init__(self, path: Path, *, column: str, aligned: Aligned, tokenized: Callable[[Any], list[int]]) -> None:
        self.path, self._column, self._aligned, self._tokenized = path, column, aligned, tokenized

    def rows(self) -> Iterator[ForeignRow | Unfit]:
        """See `ForeignFile`."""
        for record in self._records():
            try:
                yield record if isinstance(record, Unfit) else self._row(record)
            except Unfit as unfit:
                yield unfit

    def _records(self) -> Iterator[dict[str, Any] | Unfit]:
        names = (*_PREPARED, self._column, "messages")
        if files_of(self.path, ".parquet", ".jsonl", ".json")[0].suffix == ".parquet":
            for batch in batches(self.path, names):
                yield from batch.to_pylist()
            return
        for record in json_records(self.path, dict[str, msgspec.Raw]):
            if isinstance(record, Unfit):
                yield record
                continue
            try:
                yield {name: msgspec.json.decode(record[name]) for name in names if name in record}
            except (msgspec.DecodeError, RecursionError) as error:
                yield Unfit(UserError, "records that are none", f"a record cannot be read: {error}", "write JSON lines")

    def _row(self, record: Mapping[str, Any]) -> ForeignRow:
        tokens = self._tokens(record)
        if {*_PREPARED} <= record.keys():
            ids = _lists(record["target_token_ids"], int)
            log_p, mask = _lists(record["target_logprobs"], float), _lists(record["target_mask"], int)
            if not len(tokens) == len(ids) == len(log_p) == len(mask):
                raise misaligned(
                    f"{len(tokens)} tokens, {len(ids)} lists of ids, {len(log_p)} of numbers, {len(mask)} masks"
                )
            at = [place for place in range(len(tokens) - 1) if any(mask[place])]
            pairs = [_unmasked(ids[place], log_p[place], mask[place]) for place in at]
        else:
            given = self._given(record)
            if len(given) > len(tokens):
                raise misaligned(f"{len(tokens)} tokens and {len(given)} lists of log-probabilities")
            first = len(tokens) - len(given) - (self._aligned == "own")
            at = [first + number for number, each in enumerate(given) if each and 0 <= first + number < len(tokens) - 1]
            pairs = [given[place - first] for place in at]
        return ForeignRow.of(tokens, np.array(at, np.int64), *entries_of(pairs))

    def _tokens(self, record: Mapping[str, Any]) -> Ints:
        if (given := record.get("input_ids")) is None:
            if record.get("messages") is None:
                what = "a row has neither input_ids nor messages"
                raise Unfit(LogitsError, "rows without tokens", what, "add input_ids: how axolotl tokenized the row")
            given = self._tokenized(record["messages"])
        return whole_numbers(_converted(given, list[int]))

    def _given(self, record: Mapping[str, Any]) -> list[list[tuple[int, float]]]:
        """(id, log-probability) of each list of forms 1 and 2."""
        if record.get(self._column) is None:
            what = f"a row has no {self._column}"
            raise Unfit(
                LogitsError, "rows without log-probabilities", what, "name the field (logprobs_field) with --column"
            )
        lists = _converted(record[self._column], list[list[_Entry | float] | None])
        if record.get("target_token_ids") is None:
            return [[_entry(each) for each in entries or ()] for entries in lists]
        ids = _lists(record["target_token_ids"], int)
        if len(ids) != len(lists):
            raise misaligned(f"{len(lists)} lists of log-probabilities and {len(ids)} of ids")
        numbers = _converted(lists, list[list[float] | None])
        return [[] if values is None else _pairs(own, values) for own, values in zip(ids, numbers, strict=True)]


def _entry(entry: _Entry | float) -> tuple[int, float]:
    name = "" if not isinstance(entry, _Entry) else entry.token.partition("token_id:")[2]
    if not isinstance(entry, _Entry) or not (name.isascii() and name.isdigit() and len(name) < 10):
        what = f"an entry is {entry}, not {{logprob, token: 'token_id:N'}}, and there are no target_token_ids"
        raise Unfit(LogitsError, "entries without an id", what, "ask the server with return_tokens_as_token_ids")
    return int(name), entry.logprob


def _pairs(ids: list[int], values: list[float]) -> list[tuple[int, float]]:
    if len(ids) != len(values):
        raise misaligned(f"a position has {len(ids)} ids and {len(values)} numbers")
    return [*zip(ids, values, strict=True)]


def _unmasked(ids: list[int], values: list[float], mask: list[int]) -> list[tuple[int, float]]:
    """As its collator fills short lists up: with masked entries."""
    pairs = _pairs(ids, values)
    if len(mask) != len(pairs):
        raise misaligned(f"a position has {len(pairs)} entries and a mask of {len(mask)}")
    return [pair for pair, counts in zip(pairs, mask, strict=True) if counts]


def _lists(given: Any, kind: type) -> list[list[Any]]:
    return [each or [] for each in _converted(given, list[list[kind] | None])]  # type: ignore[valid-type]  # at run time


def _converted(given: Any, kind: Any) -> Any:
    """Raises `Unfit`."""
    try:
        return msgspec.convert(given, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise misaligned(f"a row is not as its form says: {error}") from None
