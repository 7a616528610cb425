"""All topk columns of some rows asked at once what the store asks of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from softlabels.labels.encoding import TopkEncoding


def check_columns(columns: Mapping[str, NDArray[Any]], encoding: TopkEncoding, classes: int) -> None:
    """Raise `ValueError` where no encoder can have written these columns."""
    for name in sorted(columns, key=lambda name: name != "top_page"):  # before the ids that it is needed for
        encoding.check_column(name, columns[name], classes, beside=columns.get("top_page"))
