"""How a target is kept, as the store's specification says it: one of the kinds. What each keeps, and all that follows, is in
its own file; `base` says what a kind is.
"""

from __future__ import annotations

from softlabels.labels.dense import DenseEncoding
from softlabels.labels.sigmoid import SigmoidEncoding
from softlabels.labels.topk import TopkEncoding
from softlabels.labels.topk_fields import Tail
from softlabels.labels.values import ValuesEncoding

Encoding = DenseEncoding | TopkEncoding | SigmoidEncoding | ValuesEncoding

__all__ = ["DenseEncoding", "Encoding", "SigmoidEncoding", "Tail", "TopkEncoding", "ValuesEncoding"]
