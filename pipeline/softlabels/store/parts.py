"""Rows of sealed stores as rows of a new one, streamed: some rows of one (`Picked`), rows of several behind each other
(`Behind`), the same rows of several beside each other, as members (`Beside`). Nothing is encoded anew.

What is in memory is the block that is asked for, its parts, and one chunk of one column of a source. n rows of a block, P
positions of a row, M members, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from softlabels.errors import OtherLabels, SpecMismatch
from softlabels.labels.hard import joined, no_labels
from softlabels.labels.hard import reordered as labels_in_order
from softlabels.labels.targets import titled
from softlabels.store.columns import LABEL, Column, bare, is_soft, stored_name
from softlabels.store.gather import Block, Ints, gather
from softlabels.store.reader import Store
from softlabels.store.spec import Spec

MEMBER = "member"  # the axis of columns
SAME = ("fold", "position_mask", "document")  # what rows that stand beside each other must have alike


class Rows(Protocol):
    """Rows of a new store."""

    @property
    def placed(self) -> tuple[tuple[Picked, int], ...]:
        """The parts that they are made of, and the number of the row at which each begins."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int, columns: Collection[str]) -> Block:
        """Some columns of rows `start` to `stop`, as the new store holds them."""


def ahead(rows: Rows, wanted: Sequence[range], columns: Collection[str]) -> None:
    """Tell the stores which of these rows are read next, see `softlabels.store.gather.ChunkSource.ahead`."""
    for part, begin in rows.placed:
        own = [
            np.asarray(part.rows[max(each.start - begin, 0) : max(each.stop - begin, 0)], np.int64) for each in wanted
        ]
        chunks = np.unique(np.concatenate(own) // part.store.rows_per_chunk)
        part.store.ahead([name for name in part.store.columns if name in columns], chunks.tolist())


@dataclass(frozen=True)
class Picked:
    """Rows of a store by their numbers, in any order.

    Attributes:
        rows: their numbers; a range, which takes no memory, for all of them as they stand.
        members: numbers of the members that are kept; None for all.
        orders: of targets whose classes stand in another order, for each class the number that it has in `store`.
    """

    store: Store
    rows: Ints | range
    members: Sequence[int] | None = None
    orders: Mapping[str, Ints] = field(default_factory=dict)

    @property
    def placed(self) -> tuple[tuple[Picked, int], ...]:
        """See `Rows`."""
        return ((self, 0),)

    @property
    def is_whole(self) -> bool:
        """Whether each row of the store, with all its members, is here once."""
        every = self.members is None or sorted(self.members) == [*range(len(self.store.spec.teacher.members))]
        if isinstance(self.rows, range):
            return every and self.rows == range(self.store.rows)
        return every and len(self.rows) == self.store.rows and bool((np.bincount(self.rows) == 1).all())

    def at(self, rows: Ints) -> Ints:
        """Where rows of the store stand here; of a part that is whole."""
        return rows if isinstance(self.rows, range) else np.argsort(self.rows)[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int, columns: Collection[str]) -> Block:
        """See `Rows`; without columns that the store lacks."""
        kinds, needed = self.store.columns, {*columns}
        for target in self.orders:  # classes are put in order in all columns of a target at once
            soft = {stored_name(target, name) for name in self.store.spec.only(target).soft_columns}
            needed |= soft if needed & soft else set()
        rows = np.asarray(self.rows[start:stop], np.int64)
        block = gather(self.store, [name for name in kinds if name in needed], rows)
        members = None if self.members is None else np.asarray(self.members)
        for name in block:
            if members is not None and MEMBER in kinds[name].axes:
                block[name] = block[name].take(members, axis=1 + kinds[name].axes.index(MEMBER))
        for target, order in self.orders.items():
            block |= self._in_order(target, order, block)
        return {name: values for name, values in block.items() if name in columns}

    def _in_order(self, target: str, order: Ints, block: Block) -> Block:
        """What stands in the order of the classes, in their new order."""
        spec = self.store.spec.only(target)
        label = stored_name(target, LABEL)
        found = {label: labels_in_order(block[label], spec.encoding.target, order)} if label in block else {}
        soft = {name: block[at] for name in spec.soft_columns if (at := stored_name(target, name)) in block}
        if soft:
            new = spec.encoding.reordered(soft, order, spec.label_space.classes)
            found |= {stored_name(target, name): values for name, values in new.items()}
        return found


@dataclass(frozen=True)
class Behind:
    """Rows of stores of one teacher, one store's behind those of the other."""

    spec: Spec
    parts: tuple[Picked, ...]

    @property
    def placed(self) -> tuple[tuple[Picked, int], ...]:
        """See `Rows`."""
        begins = np.cumsum([0, *map(len, self.parts)])[:-1].tolist()
        return tuple(zip(self.parts, begins, strict=True))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def read(self, start: int, stop: int, columns: Collection[str]) -> Block:
        """See `Rows`; a store without hard labels has none."""
        blocks = []
        for part, begin in self.placed:
            first, last = max(start - begin, 0), min(stop - begin, len(part))
            if first < last:
                blocks.append(self._whole(part.read(first, last, columns), last - first, columns))
        return (
            blocks[0] if len(blocks) == 1 else {name: np.concatenate([b.pop(name) for b in blocks]) for name in columns}
        )

    def _whole(self, block: Block, rows: int, columns: Collection[str]) -> Block:
        for column in self.spec.columns:
            owner = self.spec.owner(column.name)
            if owner is not None and column.name in columns and column.name not in block:
                block[column.name] = no_labels(owner.encoding.target, (rows, *column.shape))
        return block


@dataclass(frozen=True)
class Beside:
    """The same rows of stores of several teachers, whose members stand one store's behind those of the other. What is no label
    of a member is the first store's, but for hard labels: one is known where any store knows it.
    """

    spec: Spec
    parts: tuple[Picked, ...]

    @property
    def placed(self) -> tuple[tuple[Picked, int], ...]:
        """See `Rows`."""
        return tuple((part, 0) for part in self.parts)

    def __len__(self) -> int:
        return len(self.parts[0])

    def read(self, start: int, stop: int, columns: Collection[str]) -> Block:
        """See `Rows`. Raises `OtherLabels` where two stores know other hard labels of a row."""
        names = [name for name in columns if is_soft(name) or bare(name) == LABEL]
        found = {c.name: np.empty((stop - start, *c.shape), c.numpy_dtype) for c in self._soft if c.name in columns}
        labels, first = defaultdict[str, list[np.ndarray]](list), 0
        for part in self.parts:  # one at a time, each straight to its place
            block = part.read(start, stop, names if part is not self.parts[0] else columns)
            last = first + len(part.store.spec.teacher.members)
            for column in self._soft:
                if column.name in block:
                    axis = 1 + column.axes.index(MEMBER)
                    found[column.name][(slice(None),) * axis + (slice(first, last),)] = block.pop(column.name)
            for name in [*block]:
                labels[name].append(block.pop(name)) if bare(name) == LABEL else found.setdefault(name, block.pop(name))
            first = last
        return found | {name: self._joined(name, arrays, start) for name, arrays in labels.items()}

    @property
    def _soft(self) -> list[Column]:
        return [column for column in self.spec.columns if is_soft(column.name)]

    def _joined(self, name: str, labels: Sequence[np.ndarray], start: int) -> np.ndarray:
        """The hard labels of a target, of the stores that have some."""
        target = self.spec.owner(name)
        assert target is not None
        known, kind = labels[0], target.encoding.target
        having = [part for part in self.parts if name in part.store.columns]
        for part, own in zip(having[1:], labels[1:], strict=True):
            both, apart = joined(known, own, kind)
            all_or_none = kind == "softmax" and not target.encoding.keeps_all and not self.spec.of_tokens
            if all_or_none:
                apart |= (known != own).reshape(len(own), -1).any(axis=1)
            if apart.any():
                at = int(apart.argmax())
                why = ", and topk labels keep the logit of a hard label that all stores know" if all_or_none else ""
                raise OtherLabels(
                    f"{titled(target.name)}row {part.rows[start + at]} of {part.store.folder} has the hard label "
                    f"{_short(own[at])}, and a store before it {_short(known[at])} for the same content key{why}",
                    remedy="label all stores from one transfer set, or leave the row out with `softlabels select`",
                )
            known = both
        return known

    def require_same_rows(self, step: int) -> None:
        """Raise `SpecMismatch` or `OtherLabels` where rows of one key differ in the positions that count, in their fold or hard
        labels. They are read `step` at a time.
        """
        alike = [name for name in SAME if name in self.parts[0].store.columns]
        labels = [column.name for column in self.spec.columns if bare(column.name) == LABEL]
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            self.read(start, stop, labels)
            first, *others = (part.read(start, stop, alike) for part in self.parts) if alike else [Block()]
            for part, block in zip(self.parts[1:], others, strict=False):
                for name, values in block.items():
                    apart = (values != first[name]).reshape(len(values), -1).any(axis=1)
                    if apart.any():
                        row, one = start + int(apart.argmax()), self.parts[0]
                        raise SpecMismatch(
                            f"row {one.rows[row]} of {one.store.folder} and row {part.rows[row]} of {part.store.folder} have "
                            f"one content key, and {name} differs",
                            remedy="label all stores from one transfer set",
                        )


def _short(label: np.ndarray) -> str:
    text = str(label).replace("\n", "")
    return text if len(text) <= 60 else f"{text[:57]}..."
