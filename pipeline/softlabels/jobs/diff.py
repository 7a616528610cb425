"""`diff`: how far two stores, or two folders of splits, are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tqdm import tqdm

from softlabels.errors import ConfigError
from softlabels.jobs.sources import paired_splits
from softlabels.store import open_store
from softlabels.store.apart import StoreDiff, apart
from softlabels.system.places import Place

_NOBODY: Mapping[str, str] = {}


def diff(
    a: Place,
    b: Place,
    *,
    temperatures: Sequence[float] | None = None,
    most: int = 10,
    rename: Mapping[str, str] = _NOBODY,
    splits: Sequence[str] | None = None,
) -> dict[str, StoreDiff]:
    """Compare two sealed stores.

    Rows are matched by content key, in any order; named classes are matched by name. The ensembles are compared: the arithmetic
    mean of the members, or the geometric mean if a store keeps that.

    Args:
        a, b: two stores of one split, or two folders of the same splits.
        temperatures: the temperatures of the comparison; by default 1, 2 and 4, or the only one at which labels are known. Rows
            and classes are sorted by the first.
        most: the number of rows to list that changed most, or that only one store has.
        rename: class names in B, and their names in A. splits: names of splits; by default all.

    Returns:
        The differences in each split.

    Raises:
        ClassMismatch, OtherTokenizer: other classes. ConfigError: a temperature at which labels are not known; other splits.
            StorePathError, UnsealedStore: no sealed store. DamagedStore: a chunk is damaged.

    Example:
        >>> found = diff("stores/noise", "stores/noise")["train"]
        >>> found.equal, [line.agreement for line in found.targets[""].lines]
        (True, [1.0, 1.0, 1.0])
    """
    if most < 0:
        raise ConfigError(f"most is {most}", remedy="give 0 or more")
    found = {}
    for split, (one, other) in paired_splits([a, b], splits).items():
        stores = open_store(one), open_store(other)
        with tqdm(total=stores[0].rows, desc=split, unit="row", disable=None) as bar:
            found[split] = apart(*stores, temperatures=temperatures, most=most, rename=rename, progress=bar.update)
    return found
