"""How a server is asked for the log-probabilities of a prompt's tokens, and what it answers: vLLM (read as of commit d5dba2d),
SGLang (commit 001067f), and servers that speak as OpenAI's completions once did, with `echo` and `logprobs`, and say their
tokens by number (`return_tokens_as_token_ids`: "token_id:17"). An answer whose tokens are texts is refused: different ids may
have one text, and of a distribution they are one key then.

Requests ask for temperature 1 and one generated token, which is thrown away. Neighbours: `served` parses files of such answers,
`system.web` asks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from softlabels.errors import AlignmentError, ConfigError, LogitsError, NanLogits, one_line
from softlabels.foreign.hidden import STATE_BYTES, sglang_states
from softlabels.foreign.rows import ForeignRow, Unfit, entries_of, misaligned, whole_numbers
from softlabels.foreign.served import SglangAnswer, VllmResponse, lacks, require_first, sglang_row, vllm_row
from softlabels.system.web import Unusable

Kind = Literal["vllm", "sglang", "openai"]
T = TypeVar("T")
_TOKEN = re.compile(r"token_id:(\d{1,10})")
_SAMPLING = {"temperature": 1.0, "top_p": 1.0}
_ENTRY, _REST = 256, 1 << 20  # the most bytes of an entry of a position, and of the rest of an answer
INFO_BYTES = 1 << 22


@dataclass(frozen=True)
class Dialect:
    """One kind of server.

    Attributes:
        title: its name, for people. path: of the requests.
        request: a prompt's ids, k and the model's name as what is sent.
        row: the answer as what is said of the prompt. Raises `Unfit`, `Unusable`.
        version: paths of which the first that the server has says its version.
        echoed: how many generated tokens the answer has behind those of the prompt.
        raise_k: how the server is told to give more of a position.
    """

    title: str
    path: str
    request: Callable[[Sequence[int], int, str], dict[str, Any]]
    row: Callable[[bytes], ForeignRow]
    version: tuple[str, ...] = ()
    echoed: int = 0
    raise_k: str = "raise its limit"

    def body(self, tokens: Sequence[int], k: int, model: str) -> bytes:
        """The request as JSON."""
        return msgspec.json.encode(self.request(tokens, k, model))

    def most(self, tokens: int, k: int, width: int = 0) -> int:
        """The most bytes that an answer has, with hidden states of so many numbers."""
        return _REST + tokens * ((k + 2) * _ENTRY + width * STATE_BYTES)


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class Models(msgspec.Struct):
    """`/v1/models`, which all of them have."""

    data: list[_Model]

    def find(self, name: str, where: str) -> _Model:
        """The model that is called so. Raises `ConfigError`, which names those that there are."""
        for model in self.data:
            if model.id == name:
                return model
        served = ", ".join(one_line(model.id) for model in self.data[:5]) or "none"
        raise ConfigError(
            f"{where} serves no model {name!r}, but {served}", remedy="give the name under which it is served as model"
        )


class Version(msgspec.Struct):
    """`/version`, `/server_info`."""

    version: str = ""


def decoded(body: bytes, kind: type[T]) -> T:
    """An answer of this shape. Raises `Unusable` for what is cut off or no JSON, `Unfit` for JSON of another shape and for NaN,
    which JSON cannot say.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        said = f"the answer of {len(body):,} bytes cannot be read: {error}"
    never: list[str] = []
    try:
        json.loads(body, parse_constant=never.append, parse_int=float)
    except (ValueError, RecursionError):
        raise Unusable(said) from None
    if never:
        raise Unfit(NanLogits, "NaN", "a number of the answer is NaN or infinite", "check the server")
    raise Unfit(
        LogitsError, "answers of another shape", said, "see that the server is of the kind that is given (server)"
    )


def about_itself(body: bytes, kind: type[T]) -> T:
    """What a server says of itself. Raises `Unusable`."""
    try:
        return decoded(body, kind)
    except Unfit as unfit:
        raise Unusable(unfit.what) from None


def _ask_vllm(tokens: Sequence[int], k: int, model: str) -> dict[str, Any]:
    own = {"prompt_logprobs": k, "return_token_ids": True, "add_special_tokens": False}
    return {"model": model, "prompt": tokens, "max_tokens": 1, **_SAMPLING, **own}


def _read_vllm(body: bytes) -> ForeignRow:
    choices = decoded(body, VllmResponse).choices
    if not choices or len(choices) > 1:
        raise Unusable(f"the answer has {len(choices or ())} choices, and one was asked for")
    return vllm_row(choices[0])


def _ask_sglang(tokens: Sequence[int], k: int, model: str) -> dict[str, Any]:
    del model  # it serves one
    own = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": k}
    return {"input_ids": tokens, "sampling_params": {"max_new_tokens": 1, **_SAMPLING}, **own}


def _read_sglang(body: bytes) -> ForeignRow:
    return sglang_row(decoded(body, SglangAnswer))


def _ask_sglang_states(tokens: Sequence[int], k: int, model: str) -> dict[str, Any]:
    return _ask_sglang(tokens, k, model) | {"return_hidden_states": True}


def _read_sglang_states(body: bytes) -> ForeignRow:
    return sglang_states(decoded(body, SglangAnswer), body)


def _ask_openai(tokens: Sequence[int], k: int, model: str) -> dict[str, Any]:
    own = {"echo": True, "logprobs": k, "return_tokens_as_token_ids": True}
    return {"model": model, "prompt": tokens, "max_tokens": 1, **_SAMPLING, **own}


class _Logprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct):
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def _read_openai(body: bytes) -> ForeignRow:
    choices = decoded(body, _Completion).choices
    if len(choices) != 1:
        raise Unusable(f"the answer has {len(choices)} choices, and one was asked for")
    found = choices[0].logprobs
    if found is None or found.top_logprobs is None:
        raise lacks("logprobs" if found is None else "top_logprobs", "echo=true and logprobs=K")
    given = found.top_logprobs
    if not len(found.tokens) == len(found.token_logprobs) == len(given):
        raise misaligned(f"{len(found.tokens)} tokens and {len(given)} entries")
    tokens = whole_numbers(map(_id, found.tokens))
    require_first(given, len(tokens))
    at = [place for place in range(len(tokens) - 1) if given[place + 1]]
    for place in at:
        if found.tokens[place + 1] not in (given[place + 1] or {}):
            what = (
                f"position {place} lacks {one_line(found.tokens[place + 1], 40)}, the prompt's next, beside the largest"
            )
            raise Unfit(
                AlignmentError,
                "positions without the prompt's token",
                what,
                "ask a server that gives it always, as vLLM does",
            )
    own = [found.token_logprobs[place + 1] for place in at]
    kept = [[(_id(name), log_p) for name, log_p in (given[place + 1] or {}).items()] for place in at]
    known = np.array([np.nan if each is None else each for each in own], np.float64)
    return ForeignRow.of(tokens, np.array(at, np.int64), *entries_of(kept), known)


def _id(name: str) -> int:
    found = _TOKEN.fullmatch(name)
    if found is None:
        what = f"the answer names a token by its text, {one_line(name, 40)!r}, which different tokens may have"
        raise Unfit(
            LogitsError, "tokens named by text", what,
            "ask a server that names them by id: vLLM, SGLang, or one that knows return_tokens_as_token_ids",
        )  # fmt: skip
    return int(found[1])


DIALECTS: dict[Kind, Dialect] = {
    "vllm": Dialect(
        "vLLM", "/v1/completions", _ask_vllm, _read_vllm, ("/version",), raise_k="start it with a larger --max-logprobs"
    ),
    "sglang": Dialect("SGLang", "/generate", _ask_sglang, _read_sglang, ("/server_info", "/get_server_info")),
    "openai": Dialect("OpenAI-compatible", "/v1/completions", _ask_openai, _read_openai, echoed=1),
}
WITH_STATES: dict[Kind, Dialect] = {  # those that are asked for hidden states too
    "sglang": replace(DIALECTS["sglang"], request=_ask_sglang_states, row=_read_sglang_states)
}
