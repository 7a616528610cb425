"""What the values of a stored column must be, a column at a time: docs/format.md. A store is somebody else's data, and digests
that fit say who changed it last, not that it makes sense. `store.chunks` asks when a chunk is first read, so reading and
`verify` refuse the same; writers ask before anything is written.

N rows, C classes, K stored classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.labels import NO_LABEL
from softlabels.labels.class_ids import NoSuchClass, pages, widen
from softlabels.labels.encoding import Encoding, TopkEncoding
from softlabels.labels.topk import COARSE, FINE

Values = NDArray[Any]
_BLOCK = 1 << 20  # numbers that are looked at in one go: they stay in the cache, and whatever is made of them is small
_NEG_INF = 0xFC00  # the bits of float16's -inf; those of NaN with a sign lie above


def check_stored(
    name: str, values: Values, encoding: Encoding, classes: int, *, page: Values | None = None, first_row: int = 0
) -> None:
    """Raise `ValueError`, naming row and rule, where a column (N, ...) holds what the format forbids; `NoSuchClass` of ids.

    Args:
        name: of the column; of names without a rule, everything is allowed.
        values: its values.
        encoding: of the store.
        classes: C.
        page: the column `top_page` of the same rows, which `top_class` needs where the classes have pages.
        first_row: the number of the first row, for messages.
    """
    step = max(1, _BLOCK * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        part, first = values[start : start + step], first_row + start
        if name == "top_class":
            _check_ids(part, None if page is None else page[start : start + step], classes, first)
        elif name == "label":
            _require(
                (part >= NO_LABEL) & (part < classes), f"is neither {NO_LABEL} nor one of {classes} classes", first
            )
        elif isinstance(encoding, TopkEncoding) and name in _TOPK:
            _TOPK[name](part, encoding, first)
        elif name == "logits":
            _check_logits(part, encoding, first)
        elif name == "shift":
            _require(np.isfinite(part), "is NaN or infinite", first)


def _check_logits(values: Values, _: Encoding, first_row: int) -> None:
    """float16 (N, ..., C): the largest is 0. As integers of the same bits they are compared in a tenth of the time; only where
    the one 0 is a -0 this does not do.
    """
    if (values.view("<i2").max(axis=-1) == 0).all() and values.view("<u2").max() <= _NEG_INF:
        return
    what = "the largest of a distribution's logits is not 0, or one is NaN"
    _require(values.max(axis=-1) == 0, what, first_row)  # NaN is not 0 either


def _check_ids(values: Values, page: Values | None, classes: int, first_row: int) -> None:
    ids = values if page is None else widen({"top_class": values, "top_page": page}, classes)
    _require(ids < classes, f"a class id is not below the number of classes, {classes}", first_row, NoSuchClass)
    _require(ids[..., 1:] > ids[..., :-1], "class ids do not ascend", first_row)


def _check_pages(values: Values, encoding: TopkEncoding, first_row: int) -> None:
    _require(values <= encoding.k, "page counts do not fit", first_row)
    _require(values[..., 1:] >= values[..., :-1], "page counts do not fit", first_row)


def _check_odds(values: Values, _: TopkEncoding, first_row: int) -> None:
    whole = np.isfinite(values).all(axis=-1) | np.isneginf(values).all(axis=-1)
    _require(np.asarray(whole), "the tail's mass is NaN or infinite", first_row)


def _check_fine(values: Values, _: TopkEncoding, first_row: int) -> None:
    _require(values != -FINE - 1, f"a coefficient of 8 bits is {-FINE - 1}", first_row)


def _check_coarse(values: Values, encoding: TopkEncoding, first_row: int) -> None:
    low, high = values.astype(np.uint8) & 15, values.astype(np.uint8) >> 4
    _require((low != COARSE + 1) & (high != COARSE + 1), f"a coefficient of 4 bits is {-COARSE - 1}", first_row)
    if encoding.coarse % 2:
        _require(high[..., -1] == 0, "4 bits that no coefficient uses are not those of 0", first_row)


def _check_scale(values: Values, _: TopkEncoding, first_row: int) -> None:
    what = "a scale of coefficients is not a finite number of at least 0"
    _require(np.isfinite(values) & (values >= 0), what, first_row)


def _check_label_logit(values: Values, _: TopkEncoding, first_row: int) -> None:
    _require(~(values > 0), "a label's logit is above 0", first_row)  # NaN where there is no label


_TOPK: dict[str, Callable[[Values, TopkEncoding, int], None]] = {
    "top_page": _check_pages,
    "top_logit": _check_logits,
    "tail_odds": _check_odds,
    "tail_fine": _check_fine,
    "tail_coarse": _check_coarse,
    "tail_scale": _check_scale,
    "label_logit": _check_label_logit,
}


def _require(holds: NDArray[np.bool_], what: str, first_row: int, kind: type[ValueError] = ValueError) -> None:
    if not holds.all():
        raise kind(f"row {first_row + int(np.argwhere(~holds)[0, 0])}: {what}")


def needs_page(name: str, encoding: Encoding, classes: int) -> bool:
    """Whether a column can be checked only beside `top_page`."""
    return name == "top_class" and isinstance(encoding, TopkEncoding) and pages(classes) > 0
