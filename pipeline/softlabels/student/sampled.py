"""Positions sampled a step: of rows with hundreds of positions (anchors, pixels) some are enough for a step.

The rule. In step s (from 0) of a student with seed q, the position p of the b-th row of the batch has the number b P + p; the
sampled ones of a row are those that count and whose SplitMix64 output, of the stream that begins at mix(mix(q) ^ s), is among
the n smallest of the row. So they follow from step and seed alone, whatever the cut into micro-batches and into the parts of
several processes, and a resumed run takes the same. Where only the background is sampled, the positions that have another hard
label are all taken, and n of the others.

The loss is the mean over the positions that are taken. Epochs are judged on all positions. No torch at import.

B rows, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError, require_keys

Sampled = int | float | dict[str, Any] | None
_WHERE = "training.positions"
_LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class PositionSample:
    """What `training.positions` asks for.

    Attributes:
        count: positions of a row, or a share of those that count.
        is_background: whether only positions without a hard label of another class than `background` are sampled.
        background: a class, or -1: positions without a hard label alone.
        target: whose hard labels say it, None for the only one of distributions.
    """

    count: int | float
    is_background: bool = False
    background: int = -1
    target: str | None = None

    def require_class(self, classes: int) -> None:
        """Raise ConfigError where the background is none of so many classes."""
        if self.background >= classes:
            raise ConfigError(
                f"{_WHERE}.class is {self.background}, and there are {classes} classes",
                remedy=f"give the number of the background's class, 0 to {classes - 1}",
            )


def position_sample(given: Sampled) -> PositionSample | None:
    """What a setting asks for; None where nothing is sampled. Raises ConfigError for what cannot be meant."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        return PositionSample(_count(given, _WHERE))
    require_keys(given, ("background", "class", "target"), _WHERE)
    number, target = given.get("class"), given.get("target")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        raise ConfigError(f"{_WHERE}.class is {number!r}", remedy="give the number of the background's class, or null")
    if target is not None and not isinstance(target, str):
        raise ConfigError(f"{_WHERE}.target is {target!r}", remedy="give the name of a target")
    count = _count(given.get("background"), f"{_WHERE}.background")
    return PositionSample(count, True, -1 if number is None else number, target)


def _count(given: Any, where: str) -> int | float:
    is_count = isinstance(given, int) and not isinstance(given, bool) and given >= 1
    if not is_count and not (isinstance(given, float) and 0 < given < 1):
        raise ConfigError(
            f"{where} is {given!r}", remedy="give a whole number of positions a row, or a share between 0 and 1"
        )
    return given  # type: ignore[no-any-return]  # one of the two


def sampled_positions(
    mask: NDArray[np.bool_],
    sample: PositionSample,
    labels: NDArray[np.int64] | None,
    *,
    seed: int,
    step: int,
    first: int = 0,
) -> NDArray[np.bool_]:
    """Which positions (B, P) a step takes, of those that count (`mask`); `labels` (B, P) are the classes that say what is
    background, where that is asked; `first` is the place of the first row in the whole batch.
    """
    from softlabels.stream.order import mix, splitmix64  # of a room with torch, which settings do without

    kept = np.zeros_like(mask)
    if sample.is_background:
        assert labels is not None
        kept = mask & (labels >= 0) & (labels != sample.background)
    drawn = mask & ~kept
    counts = drawn.sum(axis=1)  # (B,)
    wanted = counts if isinstance(sample.count, float) else np.full(len(mask), sample.count)
    if isinstance(sample.count, float):
        wanted = np.ceil(counts * sample.count - 1e-9).astype(np.int64)
    key = int(mix(mix(np.array([seed], np.uint64)) ^ np.uint64(step))[0])
    numbers = np.arange(mask.size, dtype=np.uint64) + np.uint64(first * mask.shape[1])
    ranks = splitmix64(key, numbers).reshape(mask.shape)
    order = np.argsort(np.where(drawn, ranks, _LAST), axis=1, kind="stable")  # what is not drawn from stands last
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(mask.shape[1])[None], axis=1)
    return np.asarray(kept | (drawn & (place < wanted[:, None])))
