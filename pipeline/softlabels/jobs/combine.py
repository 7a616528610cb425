"""`merge`, `concat` and `select`: stores made of stores, without a teacher. What is stored is copied, rows meet by content
key, and the same call resumes where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from softlabels.errors import ConfigError, UnlabelledRows, UserError, some
from softlabels.jobs.sources import paired_splits
from softlabels.jobs.watch import LOGGED, Watch, counted
from softlabels.store import Store, open_store
from softlabels.store.columns import KEY_BYTES
from softlabels.store.combine import concatenated, merged, selected
from softlabels.store.derived import Derived, fill
from softlabels.store.gather import Ints
from softlabels.store.key_index import Missing, Repeated
from softlabels.store.records import Manifest
from softlabels.store.root import require_apart, require_root, write_root
from softlabels.system.places import Place, Target, files_of, folder_of

_RANGE = re.compile(r"(\d*):(\d*)(?::(\d+))?|(\d+)")
_NOBODY: Mapping[str, str] = {}


def merge(
    stores: Sequence[Place],
    out: Target,
    *,
    weights: Sequence[float] | None = None,
    rename: Mapping[str, str] = _NOBODY,
    missing: Missing = "error",
    repeated: Repeated = "error",
    splits: Sequence[str] | None = None,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Make the teachers of several stores the members of one.

    Rows are matched by content key and have the order of the first store; named classes are matched by name. A row has a hard
    label if any store has it; inputs, split and names are those of the first store.

    Args:
        stores: two or more, each one split, or each a folder of the same splits. out: where the new store goes.
        weights: one number per store, which its members share in proportion to their weights; by default each member keeps its
            own.
        rename: class names in the later stores, and their names in the first store.
        missing: rows that a store lacks: "error", or "skip" to leave them out.
        repeated: rows with the content key of an earlier row of their store: "error", or keep the "first".
        splits: names of splits; by default all. watch: gets the messages, and is asked whether to stop.

    Returns:
        The manifest of each split's store.

    Raises:
        SpecMismatch: targets, encodings, positions or kinds of keys differ; rows with one key differ in positions; `out` was
            begun with other settings. ClassMismatch: other classes. MeanUnavailable: a store keeps a mean of its members.
            OtherLabels: rows with one key and different hard labels. UnlabelledRows, RepeatedRow: see above. ConfigError:
            weights or names that do not fit. StorePathError: `out` is one of the stores, or holds something else.
        Interrupted: `watch` asked to stop. DiskFull, StorageError, DamagedStore: of the disk.

    Example:
        >>> one = select("stores/noise", "stores/one", members=[0])
        >>> merge(["stores/noise", "stores/one"], "stores/both", weights=[2, 1])["train"].spec.stored_members
        4
    """
    _require_several(stores, "merged")
    return _made(stores, out, splits, lambda each: merged(each, weights, rename, missing, repeated), watch)


def concat(
    stores: Sequence[Place],
    out: Target,
    *,
    rename: Mapping[str, str] = _NOBODY,
    repeated: Repeated = "error",
    splits: Sequence[str] | None = None,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Concatenate the rows of several stores of one teacher.

    Args:
        repeated: rows that an earlier store has: "error", or keep the "first". The others: as for `merge`.

    Returns:
        The manifest of each split's store.

    Raises:
        SpecMismatch: another teacher, or differently prepared inputs; the others as for `merge`.

    Example:
        >>> first = select("stores/noise", "stores/first", rows=":90", splits=["train"])
        >>> rest = select("stores/noise", "stores/rest", rows="90:", splits=["train"])
        >>> concat(["stores/first", "stores/rest"], "stores/whole")["train"].spec.rows
        160
    """
    _require_several(stores, "concatenated")
    return _made(stores, out, splits, lambda each: concatenated(each, rename, repeated), watch)


def select(
    store: Place,
    out: Target,
    *,
    rows: str | ArrayLike | None = None,
    members: Sequence[int] | None = None,
    targets: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Take some rows, members, targets and splits out of a store.

    Args:
        store: one split, or a folder of splits. out: where the new store goes.
        rows: rows of one split, in the wanted order: their numbers, or content keys (n, 16) uint8, or text such as
            "0:1000,1500", "::2". By default all.
        members: their numbers, in order. targets: names of targets. splits: names of splits.

    Returns:
        The manifest of each split's store.

    Raises:
        UserError, SeveralTargets, UnlabelledRows: rows, members or targets that do not exist. ConfigError: nothing is chosen.
            MeanUnavailable: members of a store that keeps their mean. The others as for `merge`.

    Example:
        >>> select("stores/noise", "stores/few", rows=":50", splits=["train"])["train"].spec.rows
        50
    """
    if rows is None and members is None and targets is None and splits is None:
        raise ConfigError(
            "nothing is selected", remedy="choose rows, members, targets or splits; `softlabels convert` copies a store"
        )

    def chosen(each: Sequence[Store]) -> Derived:
        return selected(each[0], chosen_rows(each[0], rows), members, targets)

    return _made([store], out, splits, chosen, watch, one_split=rows is not None)


def _require_several(stores: Sequence[Place], how: str) -> None:
    if isinstance(stores, str) or len(stores) < 2:
        raise ConfigError(f"one store cannot be {how}", remedy="name two stores or more")


def _made(
    stores: Sequence[Place],
    out: Target,
    only: Sequence[str] | None,
    plan: Callable[[Sequence[Store]], Derived],
    watch: Watch,
    *,
    one_split: bool = False,
) -> dict[str, Manifest]:
    """Every split, once all are planned: what does not fit is refused before anything is written."""
    target, folders = folder_of(out), [files_of(each) for each in stores]
    for folder in folders:
        require_apart(folder, target)
    splits = paired_splits(folders, only)
    single = [*splits.values()] == [folders]
    if one_split and len(splits) > 1:
        raise ConfigError(
            f"rows are selected from {len(splits)} splits ({some(splits)})",
            remedy=f"choose one: --splits={next(iter(splits))}",
        )
    opened = {name: [*map(open_store, found)] for name, found in splits.items()}
    plans = {name: plan(found) for name, found in opened.items()}
    if not single:
        require_root(target, tuple(splits))
    done = {}
    for name, made in plans.items():
        with tqdm(total=made.spec.shards, desc=name, unit="shard", disable=None) as bar:
            place = target if single else target.within(name)
            done[name] = fill(place, made, progress=bar.update, should_stop=watch.should_stop)
        _say(name, made, done[name], watch)
    if not single:
        write_root(target)
    return done


def _say(name: str, made: Derived, manifest: Manifest, watch: Watch) -> None:
    """What was made, and which rows were left out, of several stores."""
    spec, parts = manifest.spec, [part for part, _ in made.rows.placed]
    left = "; ".join(
        f"{count:,} of {part.store.rows:,} rows of {part.store.folder} left out"
        for part in parts
        if (count := part.store.rows - len(part)) and len(parts) > 1
    )
    what = f"{counted(spec.rows, 'row')}, {counted(len(spec.teacher.members), 'member')}, {manifest.bytes:,} bytes"
    watch.say(f"{name}: {what}, content digest {manifest.content_digest}{'; ' * bool(left)}{left}")


def chosen_rows(store: Store, rows: str | ArrayLike | None) -> Ints | range:
    """Numbers of a store's rows. Raises `UserError` for what is none, or named twice."""
    if rows is None:
        return range(store.rows)
    found = _parsed(rows, store.rows) if isinstance(rows, str) else _numbers(store, np.asarray(rows))
    wrong = found[(found < 0) | (found >= store.rows)]
    if len(wrong) or not len(found):
        raise UserError(
            f"{store.folder} has the rows 0 to {store.rows - 1}, and {some(wrong) or 'none'} asked for",
            remedy="name rows of it",
        )
    counts = np.bincount(found)
    if (counts > 1).any():
        raise UserError(f"row {some(np.flatnonzero(counts > 1))} is named twice", remedy="name each row once")
    return found


def _numbers(store: Store, rows: NDArray[np.generic]) -> Ints:
    """Of an array of numbers, or of content keys."""
    if rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == KEY_BYTES:
        found = store.find(rows.astype(np.uint8, copy=False))
        if (found < 0).any():
            raise UnlabelledRows(
                f"{store.folder} holds no row of {int((found < 0).sum()):,} of {len(found):,} content keys",
                remedy="give keys of its rows",
            )
        return found
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise UserError(
            f"rows are {rows.dtype} {rows.shape}", remedy="give numbers of rows, or content keys (n, 16) uint8"
        )
    return rows.astype(np.int64)


def _parsed(text: str, rows: int) -> Ints:
    """Of text such as `0:1000,1500` or `::2`."""
    parts = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None or found[3] == "0" or len(part) > 60:
            raise ConfigError(
                f"rows are {text[:60]!r}", remedy='write numbers and ranges, as in "0:1000,1500" or "::2"'
            )
        start, stop, step, one = (None if each in (None, "") else int(each) for each in found.groups())
        if one is not None:
            parts.append(np.array([min(one, 1 << 62)]))
        else:
            chosen = range(rows)[slice(start, stop, step)]
            parts.append(np.arange(chosen.start, chosen.stop, chosen.step))
    return np.concatenate(parts).astype(np.int64)
