"""What a recipe says about its transfer set; nothing is opened here. Neighbours: `source` opens it, `rows` prepares it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from softlabels.errors import ConfigError
from softlabels.objects import ObjectSpec
from softlabels.transfer.label_config import As, LabelColumn, RowPositions, label_columns, row_positions
from softlabels.transfer.pseudo_config import PseudoDataConfig

MAX_LENGTH = 1 << 16  # tokens of a row; its documents are numbered in uint16
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_STACK = ObjectSpec("softlabels.transfer.stack")


@dataclass(frozen=True)
class SequencesConfig:
    """Rows of tokens for language models; the rule stands in `softlabels.transfer.sequences`.

    Attributes:
        tokenizer: folder or hub id of a Hugging Face tokenizer or model.
        length: tokens of a row; each predicts the next, so a row has length - 1 distributions.
        pack: true: the texts one after the other, cut every `length` tokens; false: every text begins a row of its own.
        separator: the token that ends every text; by default the tokenizer's eos token.
        revision: branch, tag or commit of the tokenizer on the hub.
        bos: what begins every text, and every row that goes on with one: auto, what the tokenizer itself puts before a text
            (of a store that is there already, what begins its rows); none; or a token.
    """

    tokenizer: str
    length: int
    pack: bool = True
    separator: str | None = None
    revision: str | None = None
    bos: str = "auto"

    def __post_init__(self) -> None:
        if not self.bos:
            raise ConfigError("transfer_set.sequences.bos is empty", remedy="give auto, none, or a token")
        if not 2 <= self.length <= MAX_LENGTH:
            raise ConfigError(
                f"transfer_set.sequences.length is {self.length}", remedy=f"give 2 to {MAX_LENGTH} tokens a row"
            )


@dataclass(frozen=True)
class TransferSetConfig:
    """The data that the teacher labels, and how its rows become arrays.

    Attributes:
        name: the set's name in the store; if empty, the last part of a local source, or the hub id.
        source: Hugging Face hub id, local folder (Parquet, Arrow, image folder, `save_to_disk`) or file.
        factory: instead of a source, a function `factory(split=..., **init_args)` that returns a `datasets.Dataset` or a
            dict of numpy arrays, first axis = rows.
        subset: name of the configuration on the hub; for a local source only if it has configurations.
        revision: branch, tag or commit on the hub.
        inputs: input columns; their order counts, their names do not. `objects.area` is a field of a column of structs.
        label: column of hard labels: whole numbers, false and true, or names of classes; None: no hard labels (not read for
            rows of tokens, which predict their own next tokens). For several targets a mapping: {class: COLUMN, box: {column:
            COLUMN, as: values}}; each may list its classes.
        label_as: what a label is: class; set, a list of the classes that apply; flags, a list of 0, 1 or null for each class;
            values, a list of real numbers.
        positions: how many positions a row has, each with its own label: 300, or {most: 228, length: COLUMN of whole numbers},
            or {most: 228} for as many positions as labels. The label column then holds lists, one label per position.
        key: "content", or the name of a column of ids that identify rows.
        key_salt: where the salt of the keys is, a file or env:NAME. Without the salt, nobody can tell which rows are in the
            store, or match rows to its labels.
        prepare: function from a list of decoded rows to one array (B, ...); see `softlabels.transfer.prepare`.
        splits: name of the split in the store -> name of the split in the source, or a slice of it: `train[:12000]`.
        split_column: for a source that is one table: the column that gives the split of a row; `splits` names its values.
        classes: ordered class names, instead of the source's own. In a CSV each is a class, also None or NA.
        missing: refuse: missing inputs (null) and prepared rows that are not finite are errors; pass: prepare gets None.
        mixed_images: images with different bit depths, colour modes or value ranges are intended, and prepare makes them alike.
        sample_by: what a row of a text file is: line (the default; empty lines too), paragraph or document.
        sequences: make rows of tokens from one column of text, for language models; instead of prepare.
        pseudo_data: rows without hard labels that are made of a split's own and follow them; docs/data.md has examples.

    Example:
        >>> scaled = ObjectSpec("softlabels.transfer.scale", {"divisor": 16})
        >>> digits = TransferSetConfig(name="digits", source="./data/digits", inputs=("image",), label="label", prepare=scaled)
    """

    name: str = ""
    source: str | None = None
    factory: ObjectSpec | None = None
    subset: str | None = None
    revision: str | None = None
    inputs: tuple[str, ...] = ("image",)
    label: str | dict[str, Any] | None = "label"
    label_as: As = "class"
    positions: int | dict[str, Any] | None = None
    key: str = "content"
    key_salt: str | None = None
    prepare: ObjectSpec = field(default_factory=lambda: _STACK)
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    split_column: str | None = None
    classes: tuple[str, ...] | None = None
    missing: Literal["refuse", "pass"] = "refuse"
    mixed_images: bool = False
    sample_by: Literal["line", "paragraph", "document"] | None = None
    sequences: SequencesConfig | None = None
    pseudo_data: PseudoDataConfig | None = None

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
        if self.key_salt == "":
            raise ConfigError(
                "transfer_set.key_salt is empty", remedy="give a file or env:NAME, or null for keys without salt"
            )
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ConfigError("class names repeat in classes", remedy="give every class a name of its own")
        if self.split_column is not None and self.factory is not None:
            raise ConfigError(
                "split_column is given, and a factory makes the rows",
                remedy="let factory(split=...) return each split's rows",
            )
        if self.sequences is not None:
            self._check_sequences()
        if self.pseudo_data is not None:
            self._check_pseudo_data(self.pseudo_data)
        _ = self.targets, self.row_positions  # refuse what cannot be meant

    def _check_sequences(self) -> None:
        """Refuse what rows of tokens have no use for; the default label column is not read."""
        wrong = {
            f"inputs names {len(self.inputs)} columns": len(self.inputs) != 1,
            f"prepare is {self.prepare.class_path}": self.prepare != _STACK,
            f"label is {self.label!r}": self.label not in (None, "label"),
            f"label_as is {self.label_as}": self.label_as != "class",
            f"positions is {self.positions!r}": self.positions is not None,
            f"key is {self.key!r}": self.key != "content",
            "classes are named": self.classes is not None,
        }
        for what in (what for what, is_wrong in wrong.items() if is_wrong):
            raise ConfigError(
                f"{what}, and transfer_set.sequences makes rows of tokens",
                remedy="give one column of text in inputs, and leave label, label_as, positions, key, prepare and classes out",
            )

    def _check_pseudo_data(self, asked: PseudoDataConfig) -> None:
        """Refuse pseudo rows where nothing would say what they are."""
        if asked.split not in self.splits:
            raise ConfigError(
                f"transfer_set.pseudo_data.split is {asked.split!r}", remedy=f"the splits are {', '.join(self.splits)}"
            )
        lacks = {
            "sequences makes rows of tokens": self.sequences is not None,
            f"positions is {self.positions!r}, which counts labels that pseudo rows lack": isinstance(
                self.positions, dict
            ),
            f"key is {self.key!r}, and MUNGE makes no ids": self.key != "content" and asked.factory is None,
        }
        for why in (why for why, holds in lacks.items() if holds):
            raise ConfigError(
                f"transfer_set.pseudo_data is given, and {why}",
                remedy="add rows to the source instead, or drop pseudo_data",
            )

    @property
    def targets(self) -> tuple[LabelColumn, ...]:
        """The columns of hard labels to read; rows of tokens have none."""
        return label_columns(self.label, self.label_as, self.classes) if self.sequences is None else ()

    @property
    def row_positions(self) -> RowPositions | None:
        """How many positions a row has; None without positions, and for tokens."""
        return row_positions(self.positions, labelled=bool(self.targets))

    @property
    def origin(self) -> str:
        """The source, or the dotted path of the factory."""
        return self.source if self.source is not None else self.factory.class_path if self.factory else ""
