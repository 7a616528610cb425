"""A directory of soft labels that can be trusted: what it says it is (`spec`), how it is cut and written (`columns`,
`layouts`, `commit`, `writer`), how it is read (`reader`), checked (`verify`), mended (`repair`), described (`card`) and carried
over into the other layout (`convert`). Neither models nor torch. The format is specified in docs/format.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softlabels.lazy import exports

if TYPE_CHECKING:
    from softlabels.store.listed import store_splits
    from softlabels.store.reader import Store, open_store
    from softlabels.store.writer import StoreWriter

__all__ = ["Store", "StoreWriter", "open_store", "store_splits"]

__getattr__ = exports(__name__)
