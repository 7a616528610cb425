"""softlabels: run the teacher once, store its logits, train students from the store at any temperature.

Names are loaded when they are first used, so that reading a store imports no torch::

    open_store         a sealed store: columns, rows by content key, distributions at any temperature
    StoreWriter        fill a store from any outputs; dense_spec (store_spec for all encodings) says what it will hold,
                       array_keys gives its rows' keys
    load_transfer_set  the transfer set's rows, hashed and prepared; TransferSetConfig says which
    EmbeddedRows       the rows of a store that holds its inputs itself
    Loader             batches of inputs, hard labels and SoftLabels; SoftLabelDataset is the same for torch's DataLoader
    SoftLabels         stored outputs in torch: log-probabilities at a temperature, by three means
    distillation_loss  the loss on them

The rooms, each importing only from those before it: errors, objects, labels, store, transfer, stream, models, teacher,
student, report. docs/architecture.md walks one batch through them.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "EmbeddedRows": "pipeline.stream",
    "Loader": "pipeline.stream",
    "SoftLabelDataset": "pipeline.stream",
    "SoftLabels": "pipeline.labels.soft",
    "StoreWriter": "pipeline.store",
    "TransferSetConfig": "pipeline.transfer",
    "array_keys": "pipeline.transfer",
    "dense_spec": "pipeline.store.dense_spec",
    "distillation_loss": "pipeline.student.losses",
    "load_transfer_set": "pipeline.transfer",
    "open_store": "pipeline.store",
    "store_spec": "pipeline.store.dense_spec",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name from its room."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
