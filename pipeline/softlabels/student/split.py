"""Which training rows are used, held out for validation, and keep their hard label: pure functions of the rows' content keys
and a seed.

Rows are ranked by a hash of key and seed and the smallest are taken, so that the choice depends neither on the order of
the rows nor on the machine, and identical inputs always stay on one side. The choices use independent hashes.

R rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.stream.order import mix

_SHUFFLED, _VALIDATION, _LABELLED, _CHOSEN = range(4)  # what sets the hashes apart


def validation_rows(keys: NDArray[np.uint8], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows to hold out for validation.

    Args:
        keys: (R, 16) uint8 content keys.
        fraction: share of the rows, 0 <= fraction < 1.
        seed: another seed, another choice.

    Returns:
        (R,) bool, True for round(fraction * R) rows; fewer by less than a group of identical inputs where one would have
        to be cut.

    Raises:
        ConfigError: `fraction` outside its range, or one that holds out nothing, or everything, though it is not 0.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(
            f"validation must be >= 0 and < 1, not {fraction}", remedy="give the share of rows to hold out"
        )
    held_out = _smallest(keys, fraction, seed, _VALIDATION)
    if fraction > 0 and (not held_out.any() or held_out.all()):
        raise ConfigError(
            f"validation={fraction} of {len(keys)} rows holds out {int(held_out.sum())}",
            remedy="choose a fraction that leaves rows on both sides, or 0 for no validation split",
        )
    return held_out


def labelled_rows(keys: NDArray[np.uint8], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows keep their hard label: (R,) bool, True for round(fraction * R) rows, as in `validation_rows`.

    Raises:
        ConfigError: `fraction` outside [0, 1], or one that leaves no label though it is not 0.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"hard_label_fraction must lie in [0, 1], not {fraction}", remedy="give a share of the rows")
    kept = _smallest(keys, fraction, seed, _LABELLED)
    if fraction > 0 and len(keys) and not kept.any():
        raise ConfigError(
            f"hard_label_fraction={fraction} of {len(keys)} rows keeps no label",
            remedy="choose a larger fraction, or 0 to use no hard labels",
        )
    return kept


def chosen_rows(keys: NDArray[np.uint8], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are used at all: (R,) bool, True for round(fraction * R) rows, as in `validation_rows`.

    Raises:
        ConfigError: `fraction` outside (0, 1], or one that leaves no row.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"row_fraction must lie in (0, 1], not {fraction}", remedy="give a share of the rows")
    chosen = _smallest(keys, fraction, seed, _CHOSEN)
    if len(keys) and not chosen.any():
        raise ConfigError(
            f"row_fraction={fraction} of {len(keys)} rows leaves no row", remedy="choose a larger fraction"
        )
    return chosen


def shuffled_rows(keys: NDArray[np.uint8], seed: int) -> NDArray[np.int64]:
    """Numbers of the rows in an order that keys (R, 16) and seed decide, of each key the first row alone."""
    _, firsts = np.unique(np.ascontiguousarray(keys).view(np.dtype((np.void, 16)))[:, 0], return_index=True)
    firsts = np.asarray(firsts, np.int64)
    return np.asarray(firsts[np.argsort(_hash(keys[firsts], seed, _SHUFFLED), kind="stable")])


def _smallest(keys: NDArray[np.uint8], fraction: float, seed: int, purpose: int) -> NDArray[np.bool_]:
    """True for the rows whose hash lies below that of the row at the cut, which keeps equal keys together."""
    wanted = round(fraction * len(keys))
    if wanted == len(keys):
        return np.ones(len(keys), bool)
    ranks = _hash(keys, seed, purpose)
    return np.asarray(ranks < np.partition(ranks, wanted)[wanted])


def _hash(keys: NDArray[np.uint8], seed: int, purpose: int) -> NDArray[np.uint64]:
    """(R,) uint64: the two little-endian halves of the key and (seed, purpose), chained through `mix`."""
    halves = np.ascontiguousarray(keys).view("<u8").astype(np.uint64).reshape(len(keys), 2)
    start = mix(np.array([(seed * 4 + purpose) % 2**64], np.uint64))
    return mix(halves[:, 1] ^ mix(halves[:, 0] ^ start))
