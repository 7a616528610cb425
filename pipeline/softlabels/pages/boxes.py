"""`Boxes`: what a recipe's own function finds in a detector's outputs of one row, checked, as plain numbers for a page.

P positions of a row, C classes, B boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError, SoftLabelsError, one_line

MOST = 100  # boxes of a row, of each who says something of it
_FAR = 10.0  # widths of the picture
_NAMES = ("position", "class", "box")
_REMEDY = "correct the function that the recipe's boxes name"

Outputs = Mapping[str, NDArray[np.float32]]
Function = Callable[[Outputs], Mapping[str, Any]]
Row = list[list[float]]


class Boxes:
    """A function that finds boxes, and what it must give.

    Args:
        function: of the outputs of one row, target name -> (P, ...) float32: probabilities (P, C) at T = 1 of classes or
            flags, values (P, D). Gives `position` (B,) and `class` (B,), whole numbers, and `box` (B, 4), left, top, width and
            height as parts of the picture. It is the one that leaves out boxes of one object but the best.
        name: what messages call it.
    """

    def __init__(self, function: Function, name: str) -> None:
        self._function, self.name = function, one_line(name, 80)

    def of(self, outputs: Outputs, counts: NDArray[np.bool_], scores: NDArray[np.floating], who: str) -> Row:
        """The boxes of a row, the highest score first, at most `MOST`: [position, class, left, top, width, height] each.

        Args:
            outputs: see `Boxes`.
            counts: (P,), which positions count.
            scores: (P, C), the probabilities by which boxes are ordered.
            who: says these outputs of which row, for messages.

        Raises:
            ConfigError: the function fails, or gives what are no boxes of this row.
        """
        try:
            found = self._function(outputs)
        except SoftLabelsError:
            raise
        except Exception as error:  # it is the user's own
            self._refuse(who, f"fails: {type(error).__name__}: {one_line(error)}")
        if not isinstance(found, Mapping) or {*found} != {*_NAMES}:
            given = f"a mapping of {', '.join(map(str, found))}" if isinstance(found, Mapping) else type(found).__name__
            self._refuse(who, f"gives {one_line(given)}, expected a mapping of {', '.join(_NAMES)}")
        arrays = {name: self._array(found[name], name, who) for name in _NAMES}
        position, of_class = (self._whole(arrays[name], name, who) for name in _NAMES[:2])
        box = self._numbers(arrays["box"], who)
        if not len(position) == len(of_class) == len(box):
            self._refuse(who, f"gives {len(position)} positions, {len(of_class)} classes and {len(box)} boxes")
        self._inside(position, counts.shape[0], "position", who)
        self._inside(of_class, scores.shape[1], "class", who)
        if not counts[position].all():
            self._refuse(who, f"gives a box for position {position[~counts[position]][0]}, which does not count")
        best = np.argsort(-scores[position, of_class], kind="stable")[:MOST]
        return [
            [int(position[each]), int(of_class[each]), *(round(float(edge), 5) for edge in box[each])] for each in best
        ]

    def _refuse(self, who: str, what: str) -> NoReturn:
        raise ConfigError(f"boxes: {self.name} {what} ({who})", remedy=_REMEDY) from None

    def _array(self, values: object, name: str, who: str) -> NDArray[Any]:
        try:
            return np.asarray(values)
        except Exception as error:  # of lists of several lengths, or of whatever calls itself an array
            self._refuse(who, f"gives {name} that is no array: {type(error).__name__}: {one_line(error)}")

    def _whole(self, array: NDArray[Any], name: str, who: str) -> NDArray[np.int64]:
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            self._refuse(who, f"gives {name} {array.dtype} {[*array.shape]}, expected whole numbers (B,)")
        return array.astype(np.int64)

    def _numbers(self, array: NDArray[Any], who: str) -> NDArray[np.float64]:
        if array.dtype.kind not in "iuf" or (array.size and (array.ndim != 2 or array.shape[1] != 4)):
            self._refuse(who, f"gives box {array.dtype} {[*array.shape]}, expected numbers (B, 4)")
        boxes = array.astype(np.float64).reshape(-1, 4)
        wrong = {
            "is not finite": ~np.isfinite(boxes),
            "has a negative width or height": boxes < [-np.inf, -np.inf, 0, 0],
            "lies far away: left, top, width and height are parts of the picture, not pixels": abs(boxes) > _FAR,
        }
        for why, at in wrong.items():
            if at.any():
                number = int(at.any(axis=1).argmax())
                self._refuse(who, f"gives box {number}, {boxes[number].round(4).tolist()}, which {why}")
        return boxes

    def _inside(self, values: NDArray[np.int64], count: int, name: str, who: str) -> None:
        wrong = values[(values < 0) | (values >= count)]
        if len(wrong):
            self._refuse(who, f"gives {name} {wrong[0]}, and there are {count}")
