"""Which row when: the order of an epoch, rows joined to their labels, and the loader that reads both.

`loader` is what a trainer iterates, `batches` and `dataset` the same rows for other training loops; `order` and `join` say
which rows and which labels, `examples` reads them, `prefetch` reads ahead. Nothing here knows a teacher.
"""

from __future__ import annotations

from softlabels.stream.batch import Batch
from softlabels.stream.batches import SoftLabelBatches
from softlabels.stream.dataset import SoftLabelDataset, watched
from softlabels.stream.loader import Loader
from softlabels.stream.parts import Part
from softlabels.stream.stored_rows import EmbeddedRows

__all__ = [
    "Batch",
    "EmbeddedRows",
    "Loader",
    "Part",
    "SoftLabelBatches",
    "SoftLabelDataset",
    "watched",
]
