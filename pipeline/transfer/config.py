"""What a recipe says about its transfer set; nothing is opened here. Neighbours: `source` opens it, `rows` prepares it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pipeline.errors import ConfigError
from pipeline.objects import ObjectSpec

_SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class TransferSetConfig:
    """The data that the teacher labels, and how its rows become arrays.

    Attributes:
        name: how the set is named in the store; empty: the last part of a local source, or the hub id.
        source: Hugging Face hub id, local folder (Parquet, Arrow, image folder, `save_to_disk`) or file.
        factory: instead of a source, a function `factory(split=..., **init_args)` that returns a `datasets.Dataset` or a
            dict of numpy arrays, first axis = rows.
        subset: configuration name on the hub.
        revision: branch, tag or commit on the hub.
        inputs: input columns; their order counts, their names do not.
        label: column of hard labels; None: there are none.
        key: "content", or the name of an id column that says which row is which.
        prepare: function from a list of decoded rows to one array (B, ...); see `pipeline.transfer.prepare`.
        splits: name of the split in the store -> name of the split in the source.
        classes: ordered class names, instead of those that the source gives.
    """

    name: str = ""
    source: str | None = None
    factory: ObjectSpec | None = None
    subset: str | None = None
    revision: str | None = None
    inputs: tuple[str, ...] = ("image",)
    label: str | None = "label"
    key: str = "content"
    prepare: ObjectSpec = field(default_factory=lambda: ObjectSpec("pipeline.transfer.prepare.stack"))
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.source is None) == (self.factory is None):
            given = "neither" if self.source is None else "both"
            raise ConfigError(
                f"a transfer set needs source or factory, {given} given", remedy="give exactly one of them"
            )
        if not self.inputs:
            raise ConfigError(
                "a transfer set needs at least one input column, inputs is empty", remedy="name them in inputs"
            )
        for split in self.splits:
            if not _SPLIT_NAME.fullmatch(split):
                raise ConfigError(f"{split!r} is no split name", remedy="use letters, digits, '_', '-' and '.'")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ConfigError("class names repeat in classes", remedy="give every class a name of its own")

    @property
    def origin(self) -> str:
        """The source, or the dotted path of the factory."""
        return self.source if self.source is not None else self.factory.class_path if self.factory else ""
