"""Which target the hard labels and class names of a transfer set belong to, as both are named in two places of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from softlabels.errors import ConfigError, some
from softlabels.labels.hard import kind_of
from softlabels.labels.targets import Target, titled
from softlabels.teacher.expected import Array
from softlabels.transfer.class_names import Names
from softlabels.transfer.rows import TransferRows

_AS = {"softmax": "class", "sigmoid": "set or flags", "values": "values"}
_LABEL = "transfer_set.label"


def assigned(rows: TransferRows, kinds: Mapping[str, Target], listed: Mapping[str, Names]) -> TransferRows:
    """The rows with their hard labels and class names by the targets of the store, whose `kinds` are these. One column of
    labels that names no target is that of the only target of its kind; so are class names. `listed`: those that
    `labels.targets` lists.

    Raises:
        ConfigError: labels of a target that there is not, or of another kind; or nobody says whose they are.
    """
    if rows.sequence is not None:  # their labels are their tokens
        return replace(rows, names_of={**rows.names_of, **listed})
    has_any = bool(rows.named) or kind_of(rows.labels, rows.positions) != "softmax" or bool((rows.labels >= 0).any())
    if [*kinds] == [""]:
        _require_unnamed(rows, kinds[""], has_any)
        return rows
    named = dict(rows.named)
    if not named and has_any:
        named = {_only(kind_of(rows.labels, rows.positions), kinds): rows.labels}
    _require_known(named, kinds, rows.positions)
    names = _names(rows, named, kinds)
    for target, own in listed.items():
        if names.get(target, own) != own:
            raise ConfigError(
                f"labels.targets.{target}.classes are {some(own)}, and those of its hard labels {some(names[target] or ())}",
                remedy="list them once, in the order of the teacher's outputs",
            )
    return replace(rows, named=named, names_of={**names, **listed})


def _require_unnamed(rows: TransferRows, kind: Target, has_any: bool) -> None:
    """Of a store of one target without a name."""
    if rows.named:
        raise ConfigError(
            f"{_LABEL} names the targets {some(rows.named)}, and labels says of one target without a name",
            remedy=f"name them in labels.targets, or name one column in {_LABEL}",
        )
    own = kind_of(rows.labels, rows.positions)
    if has_any and own != kind:
        raise ConfigError(
            f"the hard labels ({_LABEL}) are read as {_AS[own]}, and labels.kind is {kind}",
            remedy=f"say transfer_set.label_as: {_AS[kind]}, or label: null where there are no such labels",
        )


def _only(kind: Target, kinds: Mapping[str, Target]) -> str:
    """The one target of this kind."""
    found = [name for name, each in kinds.items() if each == kind]
    if len(found) != 1:
        are = f"the targets {some(found)} are" if found else "no target is"
        raise ConfigError(
            f"{_LABEL} names one column, of labels that are read as {_AS[kind]}, and {are} {kind}",
            remedy=f"say whose it is: label: {{{(found or [*kinds])[0]}: COLUMN}}, or null where there are no hard labels",
        )
    return found[0]


def _require_known(named: Mapping[str, Array], kinds: Mapping[str, Target], positions: int | None) -> None:
    """Labels are those of a target, and of its kind."""
    for name, labels in named.items():
        if name not in kinds:
            raise ConfigError(
                f"{_LABEL} names the target {name!r}, and labels.targets {some(kinds)}", remedy="name it alike in both"
            )
        own = kind_of(labels, positions)
        if own != kinds[name]:
            raise ConfigError(
                f"{_LABEL}.{name} is read as {_AS[own]}, and labels.targets.{name} is {kinds[name]}",
                remedy=f"say {_LABEL}.{name}: {{column: COLUMN, as: {_AS[kinds[name]].partition(' ')[0]}}}",
            )


def _names(rows: TransferRows, named: Mapping[str, Array], kinds: Mapping[str, Target]) -> dict[str, Names | None]:
    """The class names of each target that has some."""
    found = {name: names for name, names in rows.names_of.items() if names is not None and name in kinds}
    if rows.class_names is not None and not rows.named:
        found[next(iter(named), "") or _only("softmax", kinds)] = rows.class_names
    return dict(found)


def names_of(rows: TransferRows, target: str) -> Names | None:
    """The class names of a target."""
    return rows.names_of.get(target) if target else rows.class_names


def require_width(target: str, labels: Array, classes: int, positions: int | None) -> None:
    """Raise `ConfigError` where flags or vectors (R, [P,] C) are not as wide as the teacher's outputs."""
    width = np.shape(labels)[-1]
    if kind_of(labels, positions) != "softmax" and width != classes:
        raise ConfigError(
            f"{titled(target)}the hard labels are {width} numbers each, and the teacher gives {classes}",
            remedy=f"name the column of its labels in {_LABEL}, and all classes",
        )
