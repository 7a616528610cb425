"""How a distribution is kept, as the store's specification says it: one of the kinds. What each keeps, and all that follows,
is in its own file; `base` says what a kind is.
"""

from __future__ import annotations

from softlabels.labels.dense import DenseEncoding
from softlabels.labels.topk import TopkEncoding
from softlabels.labels.topk_fields import Tail

Encoding = DenseEncoding | TopkEncoding

__all__ = ["DenseEncoding", "Encoding", "Tail", "TopkEncoding"]
