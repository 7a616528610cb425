"""Hidden states that a server gives beside log-probabilities: SGLang's `return_hidden_states` (read as of the commits that
docs/served.md names). The first of its lists has one state a token of the prompt; those of generated tokens come behind it.

SGLang cuts states of a prompt out of those of a batch, and counts on whole prompts: of a prompt that was computed in pieces, or
after a cached beginning, it gives fewer states or those of another prompt. So the number of states is asked here, and
`teacher.hidden` holds them against the log-probabilities of the same answer.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from softlabels.errors import LogitsError
from softlabels.foreign.rows import ForeignRow, Unfit
from softlabels.foreign.served import SglangAnswer, lacks, sglang_row

STATE_BYTES = 32  # the most of a number of a state as text
WHOLE = "start the server with --chunked-prefill-size=-1, so that no prompt is computed in pieces"


class _Meta(msgspec.Struct):
    hidden_states: list[msgspec.Raw] | None = None


class _States(msgspec.Struct):
    meta_info: _Meta


def sglang_states(answer: SglangAnswer, body: bytes) -> ForeignRow:
    """What is said of a prompt, with its states. Raises `Unfit`."""
    row = sglang_row(answer)
    try:
        given = msgspec.json.decode(body, type=_States).meta_info.hidden_states
        states = msgspec.json.decode(given[0], type=list[list[float]]) if given else None
    except msgspec.MsgspecError as error:
        what = f"hidden_states do not begin with a list of states, one a token of the prompt: {error}"
        raise Unfit(LogitsError, "other hidden states", what, "ask a version of SGLang that gives them so") from None
    if states is None:
        raise lacks(
            "meta_info.hidden_states", "return_hidden_states=true, and start it with --enable-return-hidden-states"
        )
    if len(states) != len(row.tokens):
        what = f"the answer has {len(states)} hidden states of a prompt of {len(row.tokens)} tokens"
        raise Unfit(LogitsError, "prompts without all states", what, WHOLE)
    if len({*map(len, states)}) > 1:
        raise Unfit(LogitsError, "states of several widths", "hidden states differ in width", "check the server")
    with np.errstate(over="ignore"):
        hidden = np.array(states, np.float32)
    if not np.isfinite(hidden).all():
        raise Unfit(LogitsError, "states beyond float32", "a hidden state is beyond float32", "check the server")
    return replace(row, hidden=hidden[:-1])
