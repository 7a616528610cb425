"""The content keys of a split's rows where some cannot be read: those rows have none, and nothing is prepared.

For looking at rows, never for labels: labelling and training refuse such a split (`rows`). Neighbours: `fill` reads the
same blocks, `keys` has the rule. R rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from softlabels.errors import TransferSetError
from softlabels.transfer.columns import column_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.fill import decoded
from softlabels.transfer.keys import content_keys, id_keys, salted_keys
from softlabels.transfer.salt import read_salt
from softlabels.transfer.source import Source

_BLOCK = 256  # rows
Keys = npt.NDArray[np.uint8]


class RawKeys(NamedTuple):
    """Keys (n, 16) uint8 of the rows with the numbers `rows` (n,) int64, ascending; how many more there are, and what the
    first of these is refused for.
    """

    keys: Keys
    rows: npt.NDArray[np.int64]
    unread: int
    why: TransferSetError | None


def raw_keys(config: TransferSetConfig, source: Source) -> RawKeys:
    """The keys of those rows of a split that can be read, by content or id.

    Raises:
        TransferSetError: no row of the first 256 can be read. ConfigError: there is no salt where the recipe names one.
    """
    salt = None if config.key_salt is None else read_salt(config.key_salt)
    found: list[Keys] = []
    rows: list[int] = []
    why: TransferSetError | None = None
    for start in range(0, source.rows, _BLOCK):
        for at, part in _parts(config, source, start):
            if isinstance(part, TransferSetError):
                why = why or part
            else:
                found.append(part)
                rows += range(at, at + len(part))
        if why is not None and not found:
            raise why
    keys = np.concatenate(found) if found else np.empty((0, 16), np.uint8)
    return RawKeys(
        keys if salt is None else salted_keys(keys, salt), np.array(rows, np.int64), source.rows - len(rows), why
    )


def _parts(config: TransferSetConfig, source: Source, start: int) -> Iterator[tuple[int, Keys | TransferSetError]]:
    """First row and keys of a block; row by row where one of them is refused."""
    table = source.data[start : start + _BLOCK]
    try:
        yield start, _keys(config, source, table, start)
    except TransferSetError:
        for number in range(len(table)):
            try:
                yield start + number, _keys(config, source, table.slice(number, 1), start + number)
            except TransferSetError as error:
                yield start + number, error


def _keys(config: TransferSetConfig, source: Source, table: pa.Table, start: int) -> Keys:
    if config.key != "content":
        return id_keys(column_at(table, config.key), name=config.key, start=start)
    return content_keys(decoded(config, source, table, start=start))
