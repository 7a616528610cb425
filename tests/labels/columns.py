"""All topk columns of some rows asked at once what the store asks of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.stored import check_stored


def check_columns(columns: Mapping[str, NDArray[Any]], encoding: TopkEncoding, classes: int) -> None:
    """Raise `ValueError` where no encoder can have written these columns."""
    for name in sorted(columns, key=lambda name: name != "top_page"):  # before the ids that it is needed for
        check_stored(name, columns[name], encoding, classes, page=columns.get("top_page"))
