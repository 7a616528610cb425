"""What a recipe says of hard labels: which columns hold them, what their values mean, and how many positions a row has.

Nothing is opened here. Neighbours: `config` is the whole transfer set, `label_columns` reads the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from softlabels.errors import ConfigError, require_keys
from softlabels.labels.targets import require_distinct, require_names
from softlabels.store.spec import MAX_POSITIONS

As = Literal["class", "set", "flags", "values"]
_KINDS = get_args(As)
_SECTION = "transfer_set.label"
LISTED = "transfer_set.classes"  # where a recipe lists the names of classes, where targets have no names


@dataclass(frozen=True)
class LabelColumn:
    """The hard labels of one target.

    Attributes:
        target: its name; empty where it has none.
        column: the column that holds them, or `column.field` of one inside a struct.
        kind: what a value is: `class` a class; `set` a list of the classes that hold; `flags` a list of 0, 1 or null, one a
            class; `values` a list of real numbers. With positions a list of such, one a position.
        classes: ordered names of the classes, or of the values; None: as the source says.
    """

    target: str
    column: str
    kind: As = "class"
    classes: tuple[str, ...] | None = None

    @property
    def listed(self) -> str:
        """Where a recipe lists the names."""
        return f"{_SECTION}.{self.target}.classes" if self.target else LISTED

    @property
    def is_of_classes(self) -> bool:
        """Whether a value names classes, which a source may have names for."""
        return self.kind in ("class", "set")


@dataclass(frozen=True)
class RowPositions:
    """How many positions a row has.

    Attributes:
        most: P, the positions of the arrays.
        fixed: every row has `most`; else as many as `length` says, or as its labels are.
        length: column that says how many a row has.
    """

    most: int
    fixed: bool
    length: str | None = None


def label_columns(
    label: str | Mapping[str, Any] | None, label_as: As, classes: tuple[str, ...] | None
) -> tuple[LabelColumn, ...]:
    """The hard labels that `transfer_set.label` names.

    Raises:
        ConfigError: a target or setting that cannot be meant.
    """
    if not isinstance(label, Mapping):
        if label is None and label_as != "class":
            raise ConfigError(
                f"transfer_set.label_as is {label_as}, and label is null", remedy="name the column, or drop label_as"
            )
        return () if label is None else (LabelColumn("", label, _kind(label_as, "transfer_set.label_as"), classes),)
    for name, given in (("label_as", label_as != "class"), ("classes", classes is not None)):
        if given:
            raise ConfigError(
                f"transfer_set.{name} is given, and transfer_set.label names targets",
                remedy="say it of each target: label: {tags: {column: tags, as: set, classes: [a, b]}}",
            )
    require_names(label, _SECTION, "give null where there are no hard labels")
    return tuple(_target(name, given) for name, given in label.items())


def _target(name: str, given: object) -> LabelColumn:
    where = f"{_SECTION}.{name}"
    entry: Mapping[str, Any] = given if isinstance(given, Mapping) else {"column": given}
    require_keys(entry, ("column", "as", "classes"), where)
    column, classes = entry.get("column"), entry.get("classes")
    if not isinstance(column, str) or not column:
        raise ConfigError(
            f"{where}: column is {column!r}, expected a column's name",
            remedy=f"write {name}: COLUMN, or {name}: {{column: COLUMN, as: class}}; leave out targets without hard labels",
        )
    names = None if classes is None else tuple(classes) if isinstance(classes, list | tuple) else (None,)
    if names is not None and not all(isinstance(each, str) for each in names):
        raise ConfigError(f"{where}: classes is {classes!r}, expected a list of texts", remedy="quote numbers")
    require_distinct(names, where)
    return LabelColumn(name, column, _kind(entry.get("as", "class"), f"{where}.as"), names)


def _kind(given: object, where: str) -> As:
    if given not in _KINDS:
        raise ConfigError(f"{where} is {given!r}", remedy=f"give one of {', '.join(_KINDS)}")
    return cast(As, given)


def row_positions(given: int | Mapping[str, Any] | None, *, labelled: bool) -> RowPositions | None:
    """The positions that `transfer_set.positions` asks for; `labelled`: whether there are label columns.

    Raises:
        ConfigError: a number or setting that cannot be meant.
    """
    if given is None:
        return None
    entry = given if isinstance(given, Mapping) else {"most": given}
    require_keys(entry, ("most", "length"), "transfer_set.positions")
    most, length = entry.get("most"), entry.get("length")
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MAX_POSITIONS:
        raise ConfigError(
            f"transfer_set.positions is {most!r}, expected a whole number from 1 to {MAX_POSITIONS}",
            remedy="write positions: 300, or positions: {most: 228, length: COLUMN}",
        )
    if length is not None and (not isinstance(length, str) or not length):
        raise ConfigError(
            f"transfer_set.positions.length is {length!r}, expected a column's name", remedy="name one, or leave it out"
        )
    fixed = not isinstance(given, Mapping)
    if not fixed and length is None and not labelled:
        raise ConfigError(
            "transfer_set.positions does not say how many positions a row has, and there are no labels that show it",
            remedy=f"give length, a column of whole numbers, or positions: {most} where every row has as many",
        )
    return RowPositions(most, fixed, length)
