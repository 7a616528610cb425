"""softlabels: run the teacher once, store its logits, train students from the store at any temperature.

Names are loaded when they are first used, so that reading a store imports no torch::

    open_store         a sealed store (`Store`): columns, rows by content key, distributions at any temperature
    label, encode      a teacher (`Ensemble`) over a transfer set into stores; a dense store's labels as topk
    label_shards       some `Shards` of it, for a worker among several; seal
    extend             more rows, of which the teacher is asked about the new ones alone
    train, judge       students from stores, and scores of a student or of the stored teacher
    merge, concat      stores made of stores: teachers as members, rows behind each other, some of a store;
    select             docs/combining.md
    import_labels,     top-k log-probabilities of other tools as a store, and a store's labels for them;
    export_labels      docs/translate.md
    diff               how far two stores are apart
    write_store        a store of logits that are at hand as arrays
    push, pull         a store to an object store and back
    sign               vouch for a store; open_store, train, judge, prune and pull check who did
    StoreWriter        fill a store shard by shard; store_spec says what it will hold,
                       array_keys gives its rows' keys
    load_transfer_set  the transfer set's rows, hashed and prepared; TransferSetConfig says which
    EmbeddedRows       the rows of a store that holds its inputs itself
    Loader             batches (`Batch`) of inputs, hard labels and SoftLabels
    SoftLabelBatches   the same for torch's DataLoader, cut by worker and by process (its `Part`); SoftLabelDataset is
                       rows by number: docs/loops.md
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
    from softlabels.jobs.combine import concat, merge, select
    from softlabels.jobs.diff import diff
    from softlabels.jobs.encode import encode
    from softlabels.jobs.export_labels import export_labels
    from softlabels.jobs.extend import extend
    from softlabels.jobs.import_labels import Foreign, import_labels
    from softlabels.jobs.judge import judge
    from softlabels.jobs.label import label, label_shards, seal
    from softlabels.jobs.shards import Shards
    from softlabels.jobs.share import pull, push
    from softlabels.jobs.sign import sign
    from softlabels.jobs.train import train
    from softlabels.jobs.write_store import write_store
    from softlabels.labels.soft import SoftLabels
    from softlabels.models.config import ModelConfig
    from softlabels.store import Store, StoreWriter, open_store
    from softlabels.store.new_spec import store_spec
    from softlabels.stream import Batch, EmbeddedRows, Loader, Part, SoftLabelBatches, SoftLabelDataset
    from softlabels.student.losses import distillation_loss
    from softlabels.student.sweep import StudentTraining
    from softlabels.teacher.config import LabelsConfig
    from softlabels.teacher.ensemble import Ensemble
    from softlabels.teacher.teacher import Teacher
    from softlabels.transfer import TransferSetConfig, array_keys, load_transfer_set

__version__ = "0.2.0"
__all__ = [
    "Batch",
    "ConfigError",
    "DamagedStore",
    "EmbeddedRows",
    "Ensemble",
    "Foreign",
    "LabelsConfig",
    "Loader",
    "LogitsError",
    "ModelConfig",
    "Part",
    "Resumable",
    "Shards",
    "SoftLabelBatches",
    "SoftLabelDataset",
    "SoftLabels",
    "SoftLabelsError",
    "SpecMismatch",
    "StorageError",
    "Store",
    "StoreWriter",
    "StudentTraining",
    "Teacher",
    "TransferSetConfig",
    "UnlabelledRows",
    "UnsealedStore",
    "UserError",
    "array_keys",
    "concat",
    "diff",
    "distillation_loss",
    "encode",
    "errors",
    "export_labels",
    "extend",
    "import_labels",
    "judge",
    "label",
    "label_shards",
    "load_transfer_set",
    "merge",
    "open_store",
    "pull",
    "push",
    "seal",
    "select",
    "sign",
    "store_spec",
    "train",
    "write_store",
]

if not TYPE_CHECKING:  # a type checker that knew of it would take every name for one that is there
    __getattr__ = exports(__name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
