"""Class ids as a store keeps them: sorted, in as few bytes as plain integer columns allow.

Up to 65,536 classes an id is a uint16. Up to 2^20 it is its remainder modulo 65,536 in a uint16, and beside a position's ids
stands how many of them lie below each multiple of 65,536 ("pages"): 1 or 2 bytes more a position for 131,000 or 152,000
classes, where uint32 would take 2 more an id. Beyond that it is a uint32. Nothing is cut: ids are checked before they are
narrowed, and what is read is checked against the number of classes (`stored.check_stored`).

K stored classes, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PAGE = 1 << 16
PAGED = 1 << 20  # the most classes whose ids are kept by pages


class NoSuchClass(ValueError):
    """Stored class ids that are not below the number of classes, as ids are that were cast to a type too narrow."""


def id_dtype(classes: int) -> str:
    """The dtype of `top_class`."""
    return "uint16" if classes <= PAGED else "uint32"


def pages(classes: int) -> int:
    """How many numbers `top_page` keeps a position; 0 where there is no such column."""
    return -(-classes // PAGE) - 1 if PAGE < classes <= PAGED else 0


def page_dtype(stored: int) -> str:
    """The dtype of `top_page` for K stored classes: it counts up to K."""
    return "uint8" if stored < 1 << 8 else "uint16" if stored < 1 << 16 else "uint32"


def narrow(ids: NDArray[np.int64], classes: int) -> dict[str, NDArray[np.generic]]:
    """Columns `top_class` (..., K) and, where there are pages, `top_page` (..., pages) of ids (..., K) that ascend.

    Raises:
        ValueError: ids outside 0 .. C - 1, or not ascending.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= classes or (np.diff(ids, axis=-1) <= 0).any()):
        raise ValueError(f"class ids must ascend from 0 to at most {classes - 1}")
    if not pages(classes):
        return {"top_class": ids.astype(id_dtype(classes))}
    bounds = PAGE * np.arange(1, pages(classes) + 1)
    below = (ids[..., None, :] < bounds[:, None]).sum(axis=-1)
    return {"top_class": (ids % PAGE).astype(np.uint16), "top_page": below.astype(page_dtype(ids.shape[-1]))}


def widen(columns: Mapping[str, NDArray[np.generic]], classes: int) -> NDArray[np.int64]:
    """Class ids (..., K) int64 of the columns that `narrow` gave. Nothing is checked."""
    ids = columns["top_class"].astype(np.int64)
    slot = np.arange(ids.shape[-1])
    for page in range(pages(classes)):  # one after the other: an axis of pages would be walked a few numbers at a time
        below = columns["top_page"][..., page : page + 1].astype(np.int64)
        np.add(ids, PAGE, out=ids, where=slot >= below)
    return ids
