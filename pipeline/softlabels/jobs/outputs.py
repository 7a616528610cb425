"""Outputs that something else produced, as arrays: npy, npz, Parquet and CSV files, of one target or of several, of rows or of
positions of rows. Nothing that could run code is read. `imported` makes a store of them.

R rows, P positions, M members, C classes or numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.axes import POSITIONS
from softlabels.errors import ConfigError, UserError, some
from softlabels.jobs.as_logits import Made, as_logits
from softlabels.jobs.at_hand import Positions, refuse_positions
from softlabels.jobs.output_axes import LENGTHS, MASK, says_positions, with_axes
from softlabels.jobs.output_files import BY_CLASS, LABELS, Arrays, read_arrays
from softlabels.jobs.plain_labels import checked_keys, labels_of, of_length
from softlabels.jobs.reading import Reading
from softlabels.jobs.store_outputs import Given

WEIGHTS = "give --weights, one a member"
LOGITS = ("logits", "values", "logit")
_BESIDE = ("inputs", "keys", *MASK, *LENGTHS)
PROBABILITIES = ("probabilities", "probability", "probs", "prob", "proba", "p")


@dataclass(frozen=True)
class Outputs:
    """What a file holds.

    Attributes:
        targets: outputs of each target, by its name ("" of one without), and its hard labels where the file has them.
        positions: of rows of positions; `has_mask`: whether the file says which of them count.
        inputs: (R, ...), keys: (R, 16) uint8, ids: (R,), where the file has them.
        floor: what probabilities were lifted to. said: what there is to say of the values.
    """

    targets: Mapping[str, Given]
    positions: Positions | None
    inputs: NDArray[np.generic] | None
    keys: NDArray[np.uint8] | None
    ids: NDArray[np.generic] | None = None
    has_mask: bool = False
    floor: float | None = None
    said: tuple[str, ...] = ()

    @property
    def first(self) -> Given:
        """Of the first target."""
        return next(iter(self.targets.values()))

    @property
    def rows(self) -> int:
        """R."""
        return len(self.first.logits)


class OutputFile:
    """A file of teacher outputs, whose arrays are at hand.

    Args:
        path: `.npy` holding one array; `.npz` with an array `logits`, `probabilities` or `values`, and optionally `inputs`,
            `labels`, `keys`, `mask` or `lengths`; or `.parquet` with columns of these names (lists of numbers), or `.csv`; in
            both, outputs may stand in one column a class (`output_files`). Of several targets `NAME.logits`, `NAME.labels`.
        how: what the file does not say.

    Raises:
        UserError: another kind of file, names or shapes. ConfigError: axes of which nobody says which is which.
    """

    def __init__(self, path: Path, how: Reading) -> None:
        self.path, self.how, self.wanted = path, how, how.wanted
        names = _label_names(self.wanted)
        arrays, others = read_arrays(path, words=_words(how), labels=names, classes=how.classes or ())
        self.arrays = arrays
        self.at = {name: _found(arrays, name, how, path) for name in self.wanted}
        if how.key is not None and how.key not in arrays:
            raise UserError(
                f"{path} has no {how.key}", remedy=f"give ids of the rows under this name; it has {', '.join(arrays)}"
            )
        used = {*self.at.values(), *names, *_BESIDE, how.key}
        self.unread = [name for name in (*arrays, *others) if name not in used]
        self.labelled = any(name in arrays for name in names)
        given = {array: arrays[array] for array in self.at.values()}
        kinds = {array: self.wanted[name].kind for name, array in self.at.items()}
        self.has_mask = says_positions(arrays) or any(isinstance(values, list) for values in given.values())
        self.shaped, self.positions = with_axes(given, arrays, how, kinds, path)

    @property
    def says_rows(self) -> bool:
        """Whether it says which row is which."""
        return self.how.key is not None or "keys" in self.arrays or "inputs" in self.arrays

    def read(self, mask: NDArray[np.uint8] | None = None) -> Outputs:
        """What it holds; `mask` (R, P) of the rows that it is of, where the file has none. Raises `LogitsError` for
        probabilities that are none, and logits that seem to be probabilities.
        """
        path, how, where = self.path, self.how, self.positions
        if where is not None and mask is not None and not self.has_mask and mask.shape == where.mask.shape:
            where = replace(where, mask=mask)
        targets, said, floor = dict[str, Given](), self._said(), None
        for name, array in self.at.items():
            made = self._made(name, array, self.shaped[array], where)
            hard = self._hard(name, made.logits, where)
            targets[name], floor = Given(made.logits, made.values, hard), floor or made.floor
            said += [f"{name}{': ' * bool(name)}{line}" for line in made.said]
        rows = len(next(iter(targets.values())).logits)
        return Outputs(
            targets, where,
            inputs=of_length(self._plain("inputs"), rows, path, "inputs"),
            keys=None if how.key == "keys" else checked_keys(self._plain("keys"), rows, path),
            ids=None if how.key is None else of_length(self._plain(how.key), rows, path, how.key),
            has_mask=self.has_mask, floor=floor, said=tuple(said),
        )  # fmt: skip

    def _made(self, target: str, array: str, values: NDArray[np.floating], where: Positions | None) -> Made:
        """The logits of a target."""
        called, kind = f"{array} in {self.path}", self.wanted[target].kind
        if where is None:
            labels = next((self.arrays[name] for name in _label_names([target]) if name in self.arrays), None)
            refuse_positions(
                called, values, labels, kind, named=self.how.weights is not None, positions=POSITIONS, who=WEIGHTS
            )
        mask, word = None if where is None else where.mask, array.rpartition(".")[2]
        if word == "values" and kind != "values" and self.how.kind == "auto":
            says = f"--targets.{target}.kind=values" if target else "--target=values"
            raise ConfigError(f"{called} are to be stored as a {kind}", remedy=f"say {says}, or --kind=logits")
        by_name = word in PROBABILITIES
        return as_logits(values, kind, self.how.kind, self.how.floor, mask, named=by_name, name=called)

    def _hard(self, target: str, logits: NDArray[np.floating], where: Positions | None) -> NDArray[Any] | None:
        """Hard labels of a target, as `softlabels.labels.hard` says; None where the file has none."""
        name = next((name for name in _label_names([target]) if name in self.arrays), None)
        if name is None:
            return None
        kind, classes = self.wanted[target].kind, self.wanted[target].classes
        given = self.arrays[name] if where is not None else self._plain(name)
        return labels_of(target, given, logits.shape, where, kind, classes, source=self.path)

    def _said(self) -> list[str]:
        """A line on what was not read, which may be hard labels by another name."""
        if not self.unread:
            return []
        hint = "" if self.labelled else "; hard labels are called labels, of a target NAME.labels"
        return [f"not read of {self.path.name}: {some(self.unread)}{hint}"]

    def _plain(self, name: str) -> NDArray[np.generic] | None:
        """An array of rows that are alike; None where there is none."""
        found = self.arrays.get(name)
        if isinstance(found, list):
            instead = "; a label of a sigmoid is 0 or 1 for each class" if name in _label_names(self.wanted) else ""
            instead = ", or ids of the rows in place of inputs (--key=NAME)" if name == "inputs" else instead
            raise UserError(
                f"the lists of {name} in {self.path} are not all equally long",
                remedy=f"give rows that are alike{instead}",
            )
        return found


def _words(how: Reading) -> tuple[str, ...]:
    """Names of columns that are taken, whatever their type."""
    own = [each for name in how.wanted for each in (how.column_of(name), *(_names(name) if name else ()))]
    return (*LOGITS, *PROBABILITIES, "inputs", *MASK, *LENGTHS, *(each for each in (*own, how.key) if each is not None))


def _names(target: str) -> tuple[str, ...]:
    """What the array of a target's outputs may be called."""
    return (*(f"{target}.{word}" for word in (PROBABILITIES[0], *LOGITS[:2])), target)


def _label_names(targets: Collection[str]) -> tuple[str, ...]:
    """What the arrays of hard labels may be called."""
    return tuple(f"{name}.{word}" if name else word for name in targets for word in LABELS)


def _found(arrays: Arrays, target: str, how: Reading, path: Path) -> str:
    """The name of the array of a target's outputs. Raises `UserError`."""
    column = how.column_of(target)
    if column is not None:
        name: str | None = column
    elif target:
        name = next((name for name in _names(target) if name in arrays), None)
    else:
        name = _name_of_outputs(arrays, how.key)
    if name is not None and name in arrays:
        return name
    has = ", ".join(arrays) or "no outputs"
    if target:
        raise UserError(
            f"{path} has {has}, and no outputs of the target {target} ({column or some(_names(target))})",
            remedy=f"call its array {target}.logits, .probabilities or .values, or name it: --targets.{target}.column=NAME",
        )
    raise UserError(
        f"{path} has {has}, no {column or 'logits or probabilities'}",
        remedy="leave out --column: the array of a npy file has no name, and --kind says what it holds"
        if path.suffix == ".npy"
        else " ".join(_targets(arrays))
        or "name the array or column of outputs with --column (of columns p0, p1, ... the word: --column=p), or the "
        "classes with --classes=a,b,... where columns have these names; of several targets say --targets",
    )


def _targets(arrays: Arrays) -> list[str]:
    """The words that say which targets these are, where arrays are called NAME.logits and the like."""
    parts = [(target, word) for target, _, word in (name.rpartition(".") for name in arrays) if target]
    kinds = {name: word == "values" for name, word in parts if word in (*LOGITS, *PROBABILITIES)}
    said = [f"--targets.{name}.kind={'values' if values else 'softmax'}" for name, values in kinds.items()]
    return ["say what each target is:", *said] if said else []


def _name_of_outputs(arrays: Arrays, key: str | None) -> str | None:
    """The array of outputs by its name; else the columns that the classes name, or the only array that there is."""
    named = next((name for name in (*LOGITS[:1], *PROBABILITIES[:1], *LOGITS, *PROBABILITIES) if name in arrays), None)
    if named is None and BY_CLASS in arrays:
        return BY_CLASS
    others = [name for name in arrays if name not in (*_BESIDE, *LABELS, key)]
    return named or (others[0] if len(others) == 1 else None)
