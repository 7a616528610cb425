"""Sequences with a message that has to be remembered over a long gap: the factory of the recipe `chunker`.

A sequence runs round a ring of symbols, 0 to M - 1, from any of them. At one of its first positions stands a message, one of K
other symbols, after which the ring goes on where it was. At the last position the message is asked for.

R rows, P positions, M symbols of the ring, K messages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.labels import NO_LABEL

TEST_SHARE = 1 / 6


def recall_rows(
    *, split: str, gap: int = 52, first: int = 12, ring: int = 20, messages: int = 10, seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """All sequences of this kind, a sixth of them in the split test and the others in train.

    Args:
        split: train or test.
        gap: the fewest steps from the message to the last position.
        first: at how many positions the message may stand: P = gap + first.
        ring: M.
        messages: K.
        seed: of which rows are of which split, and of their order.

    Returns:
        symbols (R, P), those of the ring and from M on the messages; next (R, P), the symbol that follows each; answer (R, P),
        the message, from 0, at the last position and -1 elsewhere.

    Raises:
        ConfigError: sizes below 1, or another split.
    """
    if min(gap, first, ring, messages) < 1 or split not in ("train", "test"):
        raise ConfigError(
            f"split is {split!r}, and gap, first, ring, messages are {gap}, {first}, {ring}, {messages}",
            remedy="give train or test, and sizes of 1 or more",
        )
    every = np.stack(np.meshgrid(*map(np.arange, (first, ring, messages)), indexing="ij"), axis=-1).reshape(-1, 3)
    every = np.random.default_rng(seed).permutation(every)
    tests = max(1, round(TEST_SHARE * len(every)))
    at, start, message = np.hsplit(every[:tests] if split == "test" else every[tests:], 3)  # (R, 1) each
    positions = np.arange(gap + first + 1)[None]
    symbols = np.where(positions == at, ring + message, (start + positions - (positions > at)) % ring)
    answer = np.full((len(symbols), gap + first), NO_LABEL)
    answer[:, -1:] = message
    return {"symbols": symbols[:, :-1], "next": symbols[:, 1:], "answer": answer}
