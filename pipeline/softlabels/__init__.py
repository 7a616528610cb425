"""softlabels: run the teacher once, store its logits, train students from the store at any temperature.

Names are loaded when they are first used, so that reading a store imports no torch::

    open_store         a sealed store (`Store`): columns, rows by content key, distributions at any temperature
    write_store        a store of logits that are at hand as arrays
    StoreWriter        fill a store shard by shard; dense_spec (store_spec for all encodings) says what it will hold,
                       array_keys gives its rows' keys
    load_transfer_set  the transfer set's rows, hashed and prepared; TransferSetConfig says which
    EmbeddedRows       the rows of a store that holds its inputs itself
    Loader             batches (`Batch`) of inputs, hard labels and SoftLabels; SoftLabelDataset is the same for torch's
                       DataLoader
    SoftLabels         stored outputs in torch: log-probabilities at a temperature, by three means
    distillation_loss  the loss on them
    errors             every error; those that users catch are here too, below `SoftLabelsError`

The rooms, each importing only from those before it: errors, names, objects, labels, checks, store, transfer, stream, models,
teacher, student, report, jobs. docs/architecture.md walks one batch through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softlabels import errors
from softlabels.errors import (
    ConfigError,
    DamagedStore,
    LogitsError,
    Resumable,
    SoftLabelsError,
    SpecMismatch,
    StorageError,
    UnlabelledRows,
    UnsealedStore,
    UserError,
)
from softlabels.lazy import exports

if TYPE_CHECKING:
    from softlabels.jobs.write_store import write_store
    from softlabels.labels.soft import SoftLabels
    from softlabels.store import Store, StoreWriter, open_store
    from softlabels.store.dense_spec import dense_spec, store_spec
    from softlabels.stream import Batch, EmbeddedRows, Loader, SoftLabelDataset
    from softlabels.student.losses import distillation_loss
    from softlabels.transfer import TransferSetConfig, array_keys, load_transfer_set

__version__ = "0.2.0"
__all__ = [
    "Batch",
    "ConfigError",
    "DamagedStore",
    "EmbeddedRows",
    "Loader",
    "LogitsError",
    "Resumable",
    "SoftLabelDataset",
    "SoftLabels",
    "SoftLabelsError",
    "SpecMismatch",
    "StorageError",
    "Store",
    "StoreWriter",
    "TransferSetConfig",
    "UnlabelledRows",
    "UnsealedStore",
    "UserError",
    "array_keys",
    "dense_spec",
    "distillation_loss",
    "errors",
    "load_transfer_set",
    "open_store",
    "store_spec",
    "write_store",
]

if not TYPE_CHECKING:  # a type checker that knew of it would take every name for one that is there
    __getattr__ = exports(__name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
