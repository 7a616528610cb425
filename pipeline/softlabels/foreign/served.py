"""What servers answer, a response a line: vLLM's `prompt_logprobs` (v1 engine, read as of commit dfafe71) and SGLang's
`input_top_logprobs` (read as of commit 001067f). Both have an entry for each token of the prompt: null for the first, then the
distribution of that token, so that entry p + 1 is position p.

vLLM adds the prompt's own token to the k largest where it is none of them, with its rank, and needs the tokens beside it
(`prompt_token_ids`; `return_token_ids` asks for them). SGLang has them in `input_token_logprobs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from softlabels.errors import AlignmentError, LogitsError
from softlabels.foreign.rows import ForeignRow, Unfit, entries_of, misaligned, whole_numbers
from softlabels.foreign.tables import json_records

SLACK = 1e-3  # of float32 that was written as text


class _Entry(msgspec.Struct):
    logprob: float
    rank: int | None = None


class VllmPrompt(msgspec.Struct):
    """A choice of vLLM's server, or a `RequestOutput` of its engine."""

    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[int, _Entry] | None] | None = None


class VllmResponse(VllmPrompt):
    """A response of completions."""

    choices: list[VllmPrompt] | None = None


class Vllm:
    """JSON of vLLM's: responses of completions, or records with `prompt_token_ids` and `prompt_logprobs`."""

    slack, known_at = SLACK, None

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> Iterator[ForeignRow | Unfit]:
        """See `ForeignFile`."""
        for record in json_records(self.path, VllmResponse):
            for one in [record] if isinstance(record, Unfit) or record.choices is None else record.choices:
                yield one if isinstance(one, Unfit) else _row(vllm_row, one)


def vllm_row(prompt: VllmPrompt) -> ForeignRow:
    """What is said of a prompt. Raises `Unfit`."""
    if prompt.prompt_token_ids is None or prompt.prompt_logprobs is None:
        raise lacks(
            "prompt_token_ids" if prompt.prompt_token_ids is None else "prompt_logprobs", "return_token_ids=true"
        )
    tokens, given = whole_numbers(prompt.prompt_token_ids), prompt.prompt_logprobs
    require_first(given, len(tokens))
    at, own = [place for place in range(len(given) - 1) if given[place + 1]], []
    kept, k = [], min((len(given[place + 1] or ()) for place in at), default=0)
    for place in at:
        entries = given[place + 1] or {}
        mine = entries.get(int(tokens[place + 1]))
        if mine is None:
            what = f"position {place} lacks token {int(tokens[place + 1])}, the prompt's next, which vLLM always gives"
            raise Unfit(
                AlignmentError, "positions without the prompt's token", what, "give prompt_token_ids of this response"
            )
        own.append(mine.logprob)
        # the prompt's own token may be none of the k largest, and stands beside them with a rank of its own, or without one
        beyond = (mine.rank or len(entries)) > k
        kept.append([(number, each.logprob) for number, each in entries.items() if each is not mine or not beyond])
    return ForeignRow.of(tokens, np.array(at, np.int64), *entries_of(kept), np.array(own, np.float64))


class _Meta(msgspec.Struct):
    input_token_logprobs: list[tuple[float | None, int, str | None]] | None = None
    input_top_logprobs: list[list[tuple[float | None, int, str | None]] | None] | None = None
    prompt_tokens: int | None = None


class SglangAnswer(msgspec.Struct):
    """A response of `/generate`."""

    meta_info: _Meta


class Sglang:
    """JSON of SGLang's: responses of `/generate` with `return_logprob`, `top_logprobs_num` and `logprob_start_len: 0`."""

    slack, known_at = SLACK, None

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> Iterator[ForeignRow | Unfit]:
        """See `ForeignFile`. A batch of prompts is answered by a list."""
        either: Any = list[SglangAnswer] | SglangAnswer
        for record in json_records(self.path, either):
            for one in record if isinstance(record, list) else [record]:
                yield one if isinstance(one, Unfit) else _row(sglang_row, one)


def sglang_row(answer: SglangAnswer) -> ForeignRow:
    """What is said of a prompt. Raises `Unfit`."""
    meta = answer.meta_info
    if meta.input_token_logprobs is None or meta.input_top_logprobs is None:
        missing = "input_token_logprobs" if meta.input_token_logprobs is None else "input_top_logprobs"
        raise lacks(missing, "return_logprob=true, top_logprobs_num=K and logprob_start_len=0 (and no flat arrays)")
    tokens, given = whole_numbers(number for _, number, _ in meta.input_token_logprobs), meta.input_top_logprobs
    if meta.prompt_tokens not in (None, len(tokens)):
        what = f"the prompt has {meta.prompt_tokens} tokens, and {len(tokens)} of them have log-probabilities"
        raise Unfit(AlignmentError, "prompts without their beginning", what, "ask with logprob_start_len=0")
    require_first(given, len(tokens))
    at = [place for place in range(len(given) - 1) if given[place + 1]]
    own = [meta.input_token_logprobs[place + 1][0] for place in at]
    # null is what its JSON has for NaN and for -inf
    kept = [
        [(number, np.nan if log_p is None else log_p) for log_p, number, _ in given[place + 1] or ()] for place in at
    ]
    known = np.array([np.nan if each is None else each for each in own], np.float64)
    return ForeignRow.of(tokens, np.array(at, np.int64), *entries_of(kept), known)


def _row(made: Any, of: object) -> ForeignRow | Unfit:
    try:
        found: ForeignRow = made(of)
    except Unfit as unfit:
        return unfit
    return found


def require_first(given: Sequence[object], tokens: int) -> None:
    """Raise `Unfit` unless there is an entry for each token, and null for the first."""
    if len(given) != tokens:
        raise misaligned(f"{tokens} tokens and {len(given)} entries")
    if given and given[0]:
        what = "the first entry is not null, and nothing comes before the first token"
        raise Unfit(AlignmentError, "first entries that are not null", what, "give the list as the server gave it")


def lacks(name: str, how: str) -> Unfit:
    """For a record without a field that the request must ask for."""
    return Unfit(LogitsError, f"records without {name}", f"a record has no {name}", f"ask the server with {how}")
