"""The sections of rows of stores that no page looked at yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softlabels.pages.looked import looked_at
from softlabels.pages.rows import rows_sections
from softlabels.pages.section import Section
from softlabels.store import Store
from softlabels.transfer.config import TransferSetConfig


def looked_rows(stores: Mapping[str, Store], transfer: TransferSetConfig | None = None, **more: Any) -> list[Section]:
    """Their inputs are in `transfer`, or in the stores; see `rows_sections`."""
    return rows_sections(stores, looked_at(stores, transfer), **more)
