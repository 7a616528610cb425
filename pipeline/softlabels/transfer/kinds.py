"""What belongs to a recipe and not to a row: bit depth, colour mode and value range of its inputs.

A picture of 8 bits and one of 16 differ by a factor of 257 once they are numbers, and no shape or dtype of a prepared row shows
it. So every decoded row of every split is looked at, however rows are cut into blocks, and rows of two kinds are refused with
one of each (`docs/checks.md`, "Rows of one split, splits of one recipe"). Sizes may differ: prepare functions see to them.

Of images: bit depth, colour mode, and the value range of those without 8 or 16 bits. Of arrays with two axes or more: bit depth
where they are bool, uint8 or uint16. Of arrays of at least `MANY` values: their range, where it leaves no doubt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from softlabels.errors import TransferSetError
from softlabels.transfer.decode import Array, Decoded

MANY = 64  # values of a row whose range is judged
_WHOLE, _FRACTIONS = "whole numbers from 0 up", "fractions from -1 to 1"
_BRIGHT = 16  # whole numbers up to here may as well be a dark picture, or classes
_DEPTHS = {"bool": "1 bit", "uint8": "8 bits", "uint16": "16 bits", "int32": "32 bits", "float32": "floats"}
_MODES = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}
BIT_DEPTH, COLOUR_MODE, VALUE_RANGE = "bit depth", "colour mode", "value range"
Kinds = dict[str, dict[str, int]]  # aspect -> kind -> number of the first row of it
# Prepare functions that bring every colour mode to one.
CONVERT_COLOURS = ("softlabels.transfer.resize", "softlabels.transfer.vision.process")


class Seen:
    """The kinds of rows that one input column has shown so far."""

    def __init__(self) -> None:
        self.kinds: Kinds = {}

    def add(self, column: Decoded, *, start: int) -> None:
        """Look at a block; `start` is the number of its first row."""
        values = column.values
        if isinstance(values, np.ndarray):
            self._add(values, start)
            return
        for row, value in enumerate(values, start):
            if isinstance(value, np.ndarray):
                self._add(value[None], row, are_images=column.hashed is not None)

    def _note(self, aspect: str, kind: str, row: int) -> None:
        self.kinds.setdefault(aspect, {}).setdefault(kind, row)

    def _add(self, values: Array, start: int, *, are_images: bool = False) -> None:
        """Rows (B, ...) of one dtype and shape."""
        name = values.dtype.name
        if are_images or (values.ndim > 2 and name in ("bool", "uint8", "uint16")):
            self._note(BIT_DEPTH, _DEPTHS.get(name, name), start)
        if are_images:
            channels = 1 if values.ndim == 3 else values.shape[3]
            self._note(COLOUR_MODE, _MODES.get(channels, f"{channels} channels"), start)
        flat = values.reshape(len(values), -1)
        # Integers show no other kind than whole numbers.
        is_known = values.dtype.kind in "iu" and _WHOLE in self.kinds.get(VALUE_RANGE, {})
        if flat.shape[1] >= MANY and not is_known:
            for kind, is_kind in _ranges(flat).items():
                if is_kind.any():
                    self._note(VALUE_RANGE, kind, start + int(np.flatnonzero(is_kind)[0]))


def _ranges(flat: Array) -> dict[str, np.ndarray]:
    """Of rows (B, N): which are plainly whole numbers such as a picture's, and which plainly fractions."""
    if flat.dtype.kind in "iu":
        return {_WHOLE: (flat.min(axis=1) >= 0) & (flat.max(axis=1) >= _BRIGHT)}
    if flat.dtype.kind != "f":
        return {}
    least, most = flat.min(axis=1), flat.max(axis=1)  # NaN where a value is
    whole = (flat == np.trunc(flat)).all(axis=1)
    return {
        _WHOLE: whole & (least >= 0) & (most >= _BRIGHT),
        _FRACTIONS: ~whole & (least >= -1) & (most <= 1),
    }


def require_one_kind(splits: Mapping[str, Sequence[Kinds]], names: Sequence[str], *, prepare: str) -> None:
    """Raise `TransferSetError` where rows of several kinds meet.

    Args:
        splits: by split what each input column has shown.
        names: of the columns.
        prepare: dotted path of the prepare function; some of ours see to colour modes themselves.
    """
    for number, name in enumerate(names):
        for aspect in (BIT_DEPTH, COLOUR_MODE, VALUE_RANGE):
            if aspect == COLOUR_MODE and prepare in CONVERT_COLOURS:
                continue
            found: dict[str, str] = {}
            for split, columns in splits.items():
                for kind, row in columns[number].get(aspect, {}).items():
                    found.setdefault(kind, f"row {row} of {split}")
            if len(found) > 1:
                shown = ", ".join(f"{place} has {kind}" for kind, place in found.items())
                raise TransferSetError(
                    f"input column {name!r} holds rows of more than one {aspect}: {shown}",
                    remedy="convert them to one beforehand, or, where prepare brings all of them to one, say so with "
                    "transfer_set.mixed_images: true",
                )
