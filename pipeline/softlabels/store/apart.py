"""`apart`: how far two sealed stores are apart: what they say of themselves, which rows only one has, and of the rows that both
have hard labels and distributions. Rows meet by content key, classes by name. Nothing is written.

What is in memory is both stores' keys, a chunk of each, the chunk that is read, and decoded labels of some positions.

R rows of a store, n of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import UNSET

from softlabels.labels.base import EncodingBase
from softlabels.labels.fidelity import TEMPERATURES
from softlabels.labels.targets import titled
from softlabels.names import renamed
from softlabels.store.alike import class_order, require_renamed
from softlabels.store.apart_target import Side, TargetDiff
from softlabels.store.differences import Difference, differences
from softlabels.store.findings import keys_of
from softlabels.store.gather import Ints, gather
from softlabels.store.json_files import plain_json
from softlabels.store.key_index import met
from softlabels.store.reader import Store

DEFAULT_TEMPERATURES = TEMPERATURES[:3]  # of those at which fidelity is measured


@dataclass(frozen=True)
class StoreDiff:
    """How far two stores are apart.

    Attributes:
        specification: every field in which they differ: its path, and its value in A and in B.
        rows: how many rows both have. only: how many only A has, and only B; `only_rows` the first of them.
        targets: by name. left_out: targets that cannot be compared, and why.
        same_content: whether the content digests are the same, so that all that is stored is, bit by bit, but for inputs.
        other_inputs: how many rows of both hold other inputs, where both hold some; `other_input_rows` the first in A and B.
    """

    specification: tuple[Difference, ...]
    rows: int
    only: tuple[int, int]
    only_rows: tuple[tuple[int, ...], tuple[int, ...]]
    targets: Mapping[str, TargetDiff]
    left_out: Mapping[str, str]
    same_content: bool
    other_inputs: int
    other_input_rows: tuple[tuple[int, int], ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        same = self.same_content and not self.specification and not self.left_out and self.only == (0, 0)
        return same and not self.other_inputs and all(each.equal for each in self.targets.values())


def apart(
    first: Store,
    other: Store,
    *,
    temperatures: Sequence[float] | None,
    most: int,
    rename: Mapping[str, str],
    progress: Callable[[int], object] = lambda rows: None,
) -> StoreDiff:
    """Compare two stores; see `jobs.diff.diff`. `progress` is called with the rows of each step."""
    require_renamed([other], rename)
    stores, keys = (first, other), (keys_of(first), keys_of(other))
    rows, alone = met(*keys)
    sides, left_out = _sides(first, other, temperatures, rename, most)
    wanted = {name for side in sides.values() for name in side.columns}
    wanted |= {"input"} if "input" in {*first.columns} & {*other.columns} else set()
    columns = [[name for name in store.columns if name in wanted] for store in stores]
    moved, shown = 0, list[tuple[int, int]]()
    for at in _blocks(first, other, rows) if wanted else ():
        one, two = (
            gather(store, names, at[:, n]) for n, (store, names) in enumerate(zip(stores, columns, strict=True))
        )
        for side in sides.values():
            side.add(one, two, at, keys[0])
        if "input" in wanted:
            unlike = [
                (a, b)
                for before, now, (a, b) in zip(one["input"], two["input"], at.tolist(), strict=True)
                if before.tobytes() != now.tobytes()
            ]
            moved, shown = moved + len(unlike), (shown + unlike)[:most]
        progress(len(at))
        del one, two  # before the next are read
    said = [renamed(plain_json(store.spec)) for store in stores]
    return StoreDiff(
        specification=tuple(differences(*said)),
        rows=len(rows),
        only=(len(alone[0]), len(alone[1])),
        only_rows=(tuple(alone[0][:most].tolist()), tuple(alone[1][:most].tolist())),
        targets={name: side.result() for name, side in sides.items()},
        left_out=left_out,
        same_content=first.content_digest == other.content_digest,
        other_inputs=moved,
        other_input_rows=tuple(shown),
    )


def _blocks(first: Store, other: Store, rows: Ints) -> Iterator[Ints]:
    """The rows (n, 2) in the order of the first store, a chunk of it at a time; fewer where rows of the other are so large that
    they would take more memory than a chunk does.
    """
    largest = max(store.rows_per_chunk * store.spec.row_bytes for store in (first, other))
    step = max(1, min(first.rows_per_chunk, largest // other.spec.row_bytes))
    for part in np.split(rows, np.flatnonzero(np.diff(rows[:, 0] // first.rows_per_chunk)) + 1):
        yield from (part[start : start + step] for start in range(0, len(part), step))


def _sides(
    first: Store, other: Store, temperatures: Sequence[float] | None, rename: Mapping[str, str], most: int
) -> tuple[dict[str, Side], dict[str, str]]:
    """The targets that are compared, and why others are not."""
    found, left_out = dict[str, Side](), dict[str, str]()
    for name in dict.fromkeys((*first.targets, *other.targets)):
        if name not in first.targets or name not in other.targets:
            left_out[name] = f"only {first.folder if name in first.targets else other.folder} has it"
            continue
        one, two = first.only(name), other.only(name)
        kinds = one.encoding.target, two.encoding.target
        if kinds[0] != kinds[1]:
            left_out[name] = f"its kind is {kinds[0]} in {first.folder} and {kinds[1]} in {other.folder}"
        elif (one.positions is None, one.spec.of_tokens) != (two.positions is None, two.spec.of_tokens):
            left_out[name] = "only one of the stores has rows of positions, or of tokens"
        else:
            where = f"{titled(name)}{first.folder}", f"{titled(name)}{other.folder}"
            order = class_order(one.spec.label_space, two.spec.label_space, rename, where)
            asked = _temperatures(one.encoding, two.encoding, temperatures)
            if kinds[0] != "values" and not asked:
                left_out[name] = "they are known at no common temperature"
            else:
                found[name] = Side(name, one, two, order, asked, most)
    return found, left_out


def _temperatures(one: EncodingBase, other: EncodingBase, asked: Sequence[float] | None) -> tuple[float, ...]:
    """Those asked for, or by default those of a few that both know: of labels that are known at one alone that one."""
    if one.target == "values":
        return ()
    for temperature in asked or ():
        one.check_temperature(temperature)
        other.check_temperature(temperature)
    if asked:
        return tuple(dict.fromkeys(asked))
    alone = sorted({each.known_at for each in (one, other) if each.known_at is not UNSET})
    lowest = max(one.lowest_temperature, other.lowest_temperature)
    if alone:
        return (alone[0],) if len(alone) == 1 and alone[0] >= lowest else ()
    return tuple(each for each in DEFAULT_TEMPERATURES if each >= lowest) or (lowest,)
