"""What each command takes, as dataclasses: all that `--help` needs, and so no torch, `datasets` or models are imported here.

`softlabels_stages.recipe` fills them from recipe and command line; what a command does stands in its own module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from softlabels.errors import ConfigError
from softlabels.jobs.reading import Reading
from softlabels.labels.settings import EncodingSettings
from softlabels.models.config import ModelConfig
from softlabels.objects import ObjectSpec
from softlabels.store.key_index import Missing, Repeated
from softlabels.store.pinned import Pinned
from softlabels.student.pruning import Pruning
from softlabels.student.sweep import StudentTraining
from softlabels.transfer.config import TransferSetConfig
from softlabels_stages.recipe import OWN_STORE

if TYPE_CHECKING:
    from softlabels.jobs.sources import Source

FORMATS = ("onnx", "torch", "int8", "hf")  # of exported students
Stores = tuple[str, ...]
Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Where the rows of a store come from."""

    transfer_set: TransferSetConfig | None = None
    missing: Missing = "error"  # rows without labels in the store: error, or skip to leave them out with a count
    repeated: Repeated = "error"  # several stores: rows whose key an earlier row has: error, or keep the first
    rename: dict[str, str] = field(default_factory=dict)  # several stores: class names, as in merge
    pinned: Pinned | None = None

    @property
    def source(self) -> Source:
        """Where the soft labels come from."""
        from softlabels.jobs.sources import Source  # which help does not need

        places: tuple[str, ...] = self.store  # type: ignore[attr-defined]  # each command says what it is of
        return Source(places, self.rename, self.repeated, self.pinned)


@dataclass(frozen=True)
class TrainStudent(_Rows):
    """Arguments of train-student."""

    student: ModelConfig  # class of the student, a torch.nn.Module that gives one logit per class
    training: StudentTraining = field(default_factory=StudentTraining)
    name: str = "student"  # name of the run: its folder is runs/NAME-xxxxxxxx, its store by default stores/NAME
    teacher: dict[str, Any] | None = None  # not used, nothing is imported for it; kept in config.yaml
    teacher_training: dict[str, Any] | None = None  # as teacher
    labels: dict[str, Any] | None = None  # as teacher
    tokenizer: dict[str, Any] | None = None  # as teacher
    store: Stores = (OWN_STORE,)  # a folder of splits, one of them, or an address; several: one ensemble
    out: str | None = None  # the run folder; by default runs/NAME-xxxxxxxx, where x depends on the settings
    tracker: ObjectSpec | None = None  # class that is told the curves of each student, beside TensorBoard
    boxes: ObjectSpec | None = None  # function that finds a detector's boxes in the outputs of a row, for report.html
    processes: int = 1  # processes that train together on this machine; for several machines use torchrun


@dataclass(frozen=True)
class Evaluate(_Rows):
    """Arguments of evaluate."""

    student: ModelConfig | None = None
    training: StudentTraining = field(default_factory=StudentTraining)
    model: str | None = None  # a student's folder in a run, or a safetensors file; without it, the stored teacher
    store: Stores = (
        OWN_STORE,
    )  # a folder of splits, one of them, an address, or several; by default that of the student's run
    split: str = "test"  # the split to evaluate on
    temperature: float | None = None  # temperature of the second KL (the first is at 1); by default that of training
    json: bool = False  # print one JSON object instead of a table


@dataclass(frozen=True, kw_only=True)
class _OfRun(_Rows):
    """What is done to the students of a finished run."""

    student: ModelConfig
    training: StudentTraining = field(default_factory=StudentTraining)
    name: str = "student"  # of the run
    teacher: dict[str, Any] | None = None  # not used; kept in config.yaml
    labels: dict[str, Any] | None = None  # as teacher
    boxes: dict[str, Any] | None = None  # as teacher
    from_: str = ""  # a finished run
    store: Stores = (OWN_STORE,)  # the store or stores that the run was trained on; by default those in the run


@dataclass(frozen=True)
class Correct(_OfRun):
    """Arguments of correct."""

    rows: str | None = None  # a split of the store whose rows are like those where the students will be used
    class_prior: str = "uniform"  # class shares where the students will be used: uniform, or such as 0.5,0.3,0.2
    out: str | None = None  # the folder for the corrected students; by default the run's own, corrected


@dataclass(frozen=True, kw_only=True)
class Prune(_OfRun, Pruning):
    """Arguments of prune."""

    out: str | None = None  # the folder of the pruned students; by default runs/NAME-pruned-xxxxxxxx


@dataclass(frozen=True)
class Export(_Rows):
    """Arguments of export."""

    student: ModelConfig | None = None
    training: StudentTraining = field(default_factory=StudentTraining)  # its targets: the output of each
    from_: str = ""  # a student's folder in a run, a run with one distilled student, or a safetensors file
    store: Stores = (OWN_STORE,)  # the store of the rows to check with; by default that of the student's run
    split: str | None = None  # the split of the store; by default test, else validation, else the first
    formats: tuple[str, ...] = (
        "onnx",
        "torch",
    )  # onnx, torch, int8 (ONNX of eight bits), hf (of Hugging Face models)
    rows: int = 512  # number of rows to check with; the ranges of int8 come from as many training rows
    latency: bool = False  # measure milliseconds per row of the ONNX files, with one thread, in batches of 1 and 32
    against_teacher: str | None = None  # with --latency: a recipe (file or built-in name) whose teacher is measured too
    out: str | None = None  # the folder for the files; by default the student's own

    def __post_init__(self) -> None:
        if not self.formats or not set(self.formats) <= set(FORMATS) or len(set(self.formats)) < len(self.formats):
            raise ConfigError(
                f"formats are {', '.join(self.formats)}", remedy="give onnx, torch, int8, hf, or some of them"
            )
        if self.rows < 1:
            raise ConfigError(f"rows is {self.rows}", remedy="give a whole number >= 1")


@dataclass(frozen=True)
class Info:
    """Arguments of info."""

    store: str = ""  # a store, a folder of stores, or the address of one
    split: str | None = None  # one split of a folder of stores
    json: bool = False  # print JSON: one object for one split, else an object by split


@dataclass(frozen=True)
class Verify:
    """Arguments of verify."""

    store: str = ""  # a store, a folder of stores, or the address of one
    quick: bool = False  # read no labels: check only the other files
    sample: str | None = None  # n/t: read every byte of part n of t of the shards, and check the others as --quick does
    against_teacher: str | None = None  # a recipe (file or built-in name) whose teacher labels some rows again
    trust: bool = False  # run code that the recipe names, though it is of a run that was not made here: read it first
    teacher_rows: int = 256  # smallest number of rows of each split that the live teacher labels
    digest: str | None = None  # the digest that the store (one split) must have
    signed_by: str | None = None  # who must have signed each split: the file of a public key, PEM or OpenSSH's


@dataclass(frozen=True)
class Repair:
    """Arguments of repair."""

    store: str = ""  # a store, or a folder of stores, or the address of one (s3://, gs://, az://)


@dataclass(frozen=True)
class Convert:
    """Arguments of convert."""

    from_: str = ""  # the store to copy, a folder of stores, or the address of one
    store: str = ""  # where the copy goes: a folder, or an address (s3://, gs://, az://)
    layout: Literal["zarr", "arrow"] | None = None  # by default the layout that the source does not have
    compression: Literal["none", "zstd"] = "none"  # zstd: zarr only


@dataclass(frozen=True)
class Encode(EncodingSettings):
    """Arguments of encode."""

    from_: str = ""  # the dense store, a folder of dense stores, or the address of one
    store: str = ""  # where the encoded store goes: a folder, or an address (s3://, gs://, az://)
    encoding: Literal["topk"] = "topk"  # the only encoding that a dense store can be changed to
    kind: Literal["softmax"] = "softmax"  # the only kind that topk keeps
    dtype: Literal["float16"] | None = None  # topk keeps float16
    target: str | None = None  # which of several targets is encoded; by default the only dense one
    layout: Literal["zarr", "arrow"] | None = None  # by default that of the dense store
    compression: Literal["none", "zstd"] = "none"  # zstd: zarr only
    device: str = "auto"  # cuda, cpu, or auto (cuda where there is one)
    try_: bool = False  # write nothing (needs no --store): show what these settings cost and lose on a sample


@dataclass(frozen=True)
class Merge:
    """Arguments of merge."""

    stores: tuple[str, ...] = ()  # stores of the same rows, by several teachers: splits, folders, or addresses
    out: str = ""  # where the new store goes: a folder, or an address (s3://, gs://, az://)
    weights: tuple[float, ...] | None = None  # one per store, shared by its members; by default each member's own
    rename: dict[str, str] = field(default_factory=dict)  # classes of later stores: name there, name in the first
    missing: Missing = "error"  # rows that some store lacks: error, or skip to leave them out
    repeated: Repeated = "error"  # rows whose key an earlier row has: error, or keep the first
    splits: tuple[str, ...] | None = None  # which splits; by default all


@dataclass(frozen=True)
class Concat:
    """Arguments of concat."""

    stores: tuple[str, ...] = ()  # stores of one teacher: each one split, a folder of splits, or an address
    out: str = ""  # where the new store goes: a folder, or an address (s3://, gs://, az://)
    rename: dict[str, str] = field(default_factory=dict)  # classes of later stores: name there, name in the first
    repeated: Repeated = "error"  # rows that an earlier store has: error, or keep the first
    splits: tuple[str, ...] | None = None  # which splits; by default all


@dataclass(frozen=True)
class Diff:
    """Arguments of diff."""

    a: str = ""  # a store, a folder of stores, or the address of one
    b: str = ""  # another
    temperatures: tuple[float, ...] | None = None  # by default 1,2,4, or the one at which labels are known
    most: int = 10  # largest number of rows to show that differ, or that only one store has
    rename: dict[str, str] = field(default_factory=dict)  # classes of B: their name, and the name in A
    splits: tuple[str, ...] | None = None  # which splits; by default all
    json: bool = False  # print JSON: one object for one split, else an object by split


@dataclass(frozen=True)
class Select:
    """Arguments of select."""

    store: str = ""  # a store, a folder of stores, or the address of one
    out: str = ""  # where the new store goes: a folder, or an address (s3://, gs://, az://)
    rows: str | None = None  # rows of one split: numbers and ranges, such as 0:1000,1500 or ::2; by default all
    members: tuple[int, ...] | None = None  # which members, by number; by default all
    targets: tuple[str, ...] | None = None  # which targets, by name; by default all
    splits: tuple[str, ...] | None = None  # which splits; by default all


@dataclass(frozen=True)
class Import(Reading):
    """Arguments of import."""

    transfer_set: TransferSetConfig | None = None
    from_: str = ""  # npy, npz, Parquet or CSV: outputs (rows, [positions,] [members,] classes)
    store: str = ""  # where the store goes: the folder of one split, or its address (s3://, gs://, az://)
    split: str | None = None  # the split of these rows; by default the name of the store's folder, such as train
    teacher_name: str = "imported"  # how the teacher is named in the store
    precision: Precision | None = None  # arithmetic of the outputs: float16 or bfloat16; by default the file's dtype
    transfer_name: str | None = None  # name of the transfer set; by default that of the recipe or the file
    layout: Literal["zarr", "arrow"] = "zarr"  # zarr or arrow
    inputs: Literal["reference", "embed"] = "reference"  # embed keeps the inputs in the store
    teacher_licence: str = ""  # licence of the teacher, for the card
    licence: str = ""  # licence of the transfer set, for the card
    from_format: Literal["distillkit", "axolotl", "vllm", "sglang"] | None = (
        None  # top-k log-probabilities of tokens as these write them (docs/translate.md); the flags below are theirs
    )
    teacher_tokenizer: str = ""  # tokenizer of the ids: a folder or hub id
    revision: str | None = None  # revision of a tokenizer on the hub
    known_at: float | None = None  # the temperature that was applied; 1 by default for DistillKit
    k: int | None = None  # tokens stored per position; by default as many as every position has
    tail: Literal["uniform", "renormalised"] = (
        "uniform"  # uniform: the rest shares what the entries leave of 1; renormalised: they were scaled to sum to 1
    )
    aligned: Literal["own", "next"] = "next"  # axolotl: a list is the distribution of its own token, or of the next
    broken: Literal["error", "skip"] = "error"  # rows that break a rule: error, or skip to leave them out with a count


@dataclass(frozen=True)
class ExportLabels:
    """Arguments of export-labels."""

    store: str = ""  # a store of one split, or a folder of them with --split, or an address
    to: str = ""  # the file: .parquet, of npz .npz
    to_format: Literal["axolotl", "distillkit-raw", "parquet", "npz"] = (
        "parquet"  # docs/translate.md says what each holds
    )
    split: str | None = None  # which split
    temperature: float | None = None  # of log-probabilities; by default 1, or that at which the labels are known
    k: int | None = None  # tokens per position; by default as many as are stored
    mean: Literal["arithmetic", "geometric", "tempered"] = "arithmetic"  # the mean of an ensemble's members


@dataclass(frozen=True)
class Push:
    """Arguments of push."""

    store: str = ""  # a sealed store, or a folder of them, on this machine
    url: str = ""  # where it goes: s3://BUCKET/FOLDER, gs://, az://, hf://datasets/TEAM/NAME, file:// or a folder
    read_back: bool = True  # read back and compare what is at the target; false compares only sizes


@dataclass(frozen=True)
class Pull:
    """Arguments of pull."""

    url: str = (
        ""  # where it is: s3://BUCKET/FOLDER, gs://, az://, hf://datasets/TEAM/NAME, http(s)://, file:// or a folder
    )
    store: str = ""  # where it goes: a folder of this machine
    split: str | None = None  # one of several splits; by default all
    rows: str | None = None  # rows of one split, such as 0:1000,1500: pull a store of only these
    digest: str | None = None  # the digest that the store must have, as info prints it; else nothing is fetched
    signed_by: str | None = None  # who must have signed it: the file of a public key; else nothing is fetched


@dataclass(frozen=True)
class Sign:
    """Arguments of sign."""

    store: str = ""  # a sealed store, or a folder of them, or the address of one (s3://, gs://, az://)
    key: str = ""  # the file of a private key, Ed25519 or ECDSA P-256


@dataclass(frozen=True)
class List:
    """Arguments of list."""

    url: str = (
        ""  # where to look, with all folders below: s3://BUCKET/FOLDER, gs://, az://, hf://, http(s):// or a folder
    )
    teacher_digest: str | None = (
        None  # only stores of a teacher with these weights: eight digits or more of a member's digest
    )
    data: str | None = (
        None  # only stores of this transfer set: its name, or eight digits or more of its content keys' digest
    )
    json: bool = False  # print one JSON object per line


@dataclass(frozen=True)
class Cache:
    """Arguments of cache."""

    clear: bool = False  # delete all entries, except those that a running command is making


@dataclass(frozen=True)
class Demo:
    """Arguments of demo."""

    out: str = "softlabels-demo"  # the folder for recipe, data, runs and stores
