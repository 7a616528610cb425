"""What a recipe says of its teacher and of the store that its logits go to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from softlabels.errors import ConfigError
from softlabels.labels.decoder import Reduce
from softlabels.labels.encoding import Encoding
from softlabels.labels.settings import EncodingSettings
from softlabels.labels.target_settings import require_defaults, target_settings
from softlabels.models.config import ModelConfig
from softlabels.objects import canonical
from softlabels.store.spec import MOST_FOLDS

SERVED = "softlabels.teacher.served.Served"  # the class path of a teacher that a server holds


@dataclass(frozen=True)
class MemberConfig:
    """One model of the teacher.

    Attributes:
        class_path: the model's class, by its dotted path.
        init_args: what the class is built with.
        weights: a safetensors file; of an estimator of scikit-learn a .skops file.
        weight: the member's share in the ensemble's mean; all alike by default.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_path", canonical(self.class_path))

    @property
    def model(self) -> ModelConfig:
        """How to build it."""
        return ModelConfig(class_path=self.class_path, init_args=self.init_args, weights=self.weights)

    def of_fold(self, fold: int, folds: int) -> MemberConfig:
        """The same with weights that were trained without the rows of a fold: of net.safetensors net.fold0of5.safetensors, so
        that weights of other folds are never taken for them. Raises `ConfigError` where it names no weights.
        """
        if self.weights is None:
            raise ConfigError(
                f"teacher.folds={folds}, and the member {self.class_path} names no weights",
                remedy="give it a file, beside which those of its folds are kept",
            )
        path = Path(self.weights)
        return replace(self, weights=str(path.with_suffix(f".fold{fold}of{folds}{path.suffix}")))


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher: one model, or an ensemble.

    Attributes:
        name: the teacher's name in the store.
        members: its models, a list of {class_path, init_args, weights, weight}; each takes a batch of prepared inputs
            (B, ...) and gives logits (B, C), of rows of positions (B, P, C), of L tokens (B, L - 1, vocabulary); of several
            targets (labels.targets) a mapping of such by name. Or one softlabels.teacher.served.Served, a model that a server
            holds (docs/served.md).
        licence: licence of the weights, for the store's card.
        precision: the arithmetic of the forward pass.
        batch_size: rows per batch of the teacher; part of the specification, since it decides the last bits. For a served
            teacher, rows that are requested before any is stored.
        device: cuda, cpu, or auto (cuda where there is one).
        floor: for scikit-learn estimators, the smallest probability of a class: a number, or laplace:N for a forest of N trees.
            By default there is none, and a class without a vote is impossible.
        folds: from 2 up: each training row is labelled by members that were trained without it. For each member there is one
            model per fold, trained on the rows of the other folds; rows of other splits are labelled by the members themselves.
    """

    members: tuple[MemberConfig, ...]
    name: str = "teacher"
    licence: str = ""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = 256
    device: str = "auto"
    floor: float | str | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        if self.folds is not None and not 2 <= self.folds <= MOST_FOLDS:
            raise ConfigError(
                f"teacher.folds is {self.folds}", remedy=f"give a number from 2 to {MOST_FOLDS}, or leave it out"
            )
        if not self.members:
            raise ConfigError("teacher.members is empty", remedy="list at least one model")
        if self.batch_size < 1:
            raise ConfigError(f"teacher.batch_size is {self.batch_size}", remedy="use 1 or more")


@dataclass(frozen=True)
class LabelsConfig(EncodingSettings):
    """How the store is written.

    Attributes:
        layout: zarr (any Zarr v3 reader opens it) or arrow (`datasets.load_from_disk` opens it).
        reduce: none keeps every member; geometric keeps only the members' mean logits, arithmetic (kind: values) their mean.
        targets: for a teacher with several outputs, how each is stored, by its name: {class: {kind: softmax}, box: {kind:
            values, dtype: float16}}. An entry has the settings above, and classes, the ordered names of its classes.
        inputs: reference names the transfer set; embed puts the prepared inputs into the store.
        compression: none, or zstd (layout zarr; float16 logits shrink by about a tenth).
        rows_per_shard: rows of a shard, the unit of work and commit; by default 16 chunks.
        rows_per_chunk: rows of a chunk, the unit of reading, a multiple of 16; by default about 1 MiB.
        licence: licence of the transfer set, for the store's card.

    Example:
        >>> LabelsConfig(inputs="embed").layout  # dense labels; students need no transfer set
        'zarr'
        >>> sparse = LabelsConfig(encoding="topk", k=3, rank=4)
    """

    layout: Literal["zarr", "arrow"] = "zarr"
    reduce: Reduce = "none"
    targets: dict[str, Any] | None = None
    inputs: Literal["reference", "embed"] = "reference"
    compression: Literal["none", "zstd"] = "none"
    rows_per_shard: int | None = None
    rows_per_chunk: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        self.encodings(1)

    def encodings(self, members: int) -> dict[str, Encoding]:
        """The encodings that the recipe asks for, by target ("" without a name), for a teacher of so many members; without a
        basis.

        Raises:
            ConfigError: settings that do not fit together.
        """
        named = target_settings(self.targets)
        if not named:
            return {"": self.made(members, reduce=self.reduce, inputs=self.inputs)}
        require_defaults(self, self.reduce, named)
        return {name: each.of_target(name, members, self.inputs) for name, each in named.items()}

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The class names that the recipe lists, by target with a name."""
        found = {name: each.classes for name, each in target_settings(self.targets).items()}
        return {name: classes for name, classes in found.items() if classes is not None}
