"""A directory of soft labels that can be trusted: what it says it is (`spec`), how it is cut and written (`columns`,
`layouts`, `commit`, `writer`), how it is read (`reader`), checked (`verify`), mended (`repair`), described (`card`) and carried
over into the other layout (`convert`). Neither models nor torch. The format is specified in docs/format.md.
"""

from softlabels.store.reader import Store, open_store, store_splits
from softlabels.store.writer import StoreWriter

__all__ = ["Store", "StoreWriter", "open_store", "store_splits"]
