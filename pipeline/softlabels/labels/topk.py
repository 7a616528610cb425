"""The top-k encoding in numpy: its columns and what they mean. The reference for `topk_soft`,
and what reads a sparse store without torch; `topk_encode` makes the columns, `stored` checks them.

Of a distribution are kept the K largest logits, the tail's mass at any temperature (`tail_mass`) and, with the store's
prior and basis, the tail's shape: a class of the tail has probability

    p_i(T) = tail mass(T) * softmax over the tail of (z_i / T),    z = prior + coefficients @ basis

where the tail is every class that is not stored. With the tails "uniform" and "bucket" z is 0 (all alike; losses may treat
a bucket as one outcome), with "prior" there are no coefficients. "renormalised" has no tail: the K probabilities sum to 1.

N positions (any number of leading axes), M members, C classes, K stored classes, n tail nodes, r basis vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.labels.class_ids import id_dtype, page_dtype, pages, widen
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.tail_mass import CURVE_STEPS, check_beta, curve_weights

Columns = Mapping[str, NDArray[np.generic]]
FINE = 127  # steps of a scale with 8 bits
COARSE = 7  # with 4 bits in two's complement, two a byte
IMPOSSIBLE = -65504.0  # the prior of a class that no position of a sample allows: float16's lowest finite number


def check_encoding(encoding: TopkEncoding, members: int, classes: int | None = None) -> None:
    """Raise `ConfigError` unless the encoding's numbers fit its tail and the numbers of stored members and of classes; where
    classes are not known yet, these are not looked at.
    """
    tail, fix = encoding.tail, "change the encoding"
    if classes is not None and encoding.k > classes:
        raise ConfigError(
            f"k is {encoding.k}, and there are {classes} classes",
            remedy=f"give at most {classes}; so few classes are as well kept dense",
        )
    if (encoding.nodes == 0) != (tail == "renormalised") or encoding.nodes == 1:
        raise ConfigError(
            f"a tail {tail!r} cannot have {encoding.nodes} nodes: 0 for renormalised, else 2 or more", remedy=fix
        )
    if (encoding.rank == 0) == (tail == "lowrank"):
        raise ConfigError(
            f"a tail {tail!r} cannot have rank {encoding.rank}: 1 or more for lowrank, else 0", remedy=fix
        )
    if encoding.fine > encoding.rank:
        raise ConfigError(f"of {encoding.rank} coefficients, {encoding.fine} cannot have 8 bits", remedy=fix)
    if tail == "bucket" and members != 1:
        raise ConfigError(
            f"a bucket is one outcome of one model, and there are {members} members",
            remedy="choose another tail, or reduce the members to one",
        )


def topk_columns(
    encoding: TopkEncoding, classes: int, members: int, positions: int | None = None
) -> tuple[tuple[str, str, tuple[int, ...], tuple[str, ...]], ...]:
    """Name, dtype, shape of one row and names of its axes, of each column in the store's order.

    Args:
        encoding: what is kept.
        classes: C.
        members: M, the stored ones.
        positions: P of a sequence row; None for rows of one position.
    """
    shape, axes = ((members,), ("member",)) if positions is None else ((positions, members), ("position", "member"))
    columns = [("top_class", id_dtype(classes), (*shape, encoding.k), (*axes, "stored"))]
    if pages(classes):
        columns.append(("top_page", page_dtype(encoding.k), (*shape, pages(classes)), (*axes, "page")))
    columns.append(("top_logit", "float16", (*shape, encoding.k), (*axes, "stored")))
    if encoding.tail != "renormalised":
        columns.append(("tail_odds", "float16", (*shape, 2), (*axes, "end")))
        columns.append(("tail_curve", "int16", (*shape, encoding.nodes - 1), (*axes, "node")))
    if encoding.fine:
        columns.append(("tail_fine", "int8", (*shape, encoding.fine), (*axes, "component")))
    if encoding.coarse:
        columns.append(("tail_coarse", "uint8", (*shape, -(-encoding.coarse // 2)), (*axes, "pair")))
    if encoding.rank:
        columns.append(("tail_scale", "float16", (*shape, scales(encoding)), (*axes, "precision")))
    return (*columns, ("label_logit", "float16", shape, axes))


def scales(encoding: TopkEncoding) -> int:
    """How many scales a distribution has: one for its coefficients of 8 bits, one for those of 4, as far as there are any."""
    return (encoding.fine > 0) + (encoding.coarse > 0)


def stored_log_probs(
    columns: Columns, encoding: TopkEncoding, classes: int, temperature: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ids (N, M, K) and log-probabilities (N, M, K) of the stored classes, and the log mass (N, M) of the tail.

    Raises:
        ConfigError: the temperature is not above 0, or below 1 / beta_max, where the tail is not known.
    """
    beta = check_beta(encoding, temperature)
    logits = columns["top_logit"].astype(np.float64)
    stored = _log_sum_exp(beta * logits)
    tail = np.full_like(stored, -np.inf)
    if encoding.tail != "renormalised":
        tail = _tail_log_sum(columns, logits, encoding, beta)
    total = np.logaddexp(stored, tail)
    return widen(columns, classes), beta * logits - total[..., None], tail - total


def topk_log_probs(
    columns: Columns, encoding: TopkEncoding, classes: int, basis: NDArray[np.float16] | None, temperature: float
) -> NDArray[np.float64]:
    """Log-probabilities (N, M, C) of each member; -inf for probability 0.

    Args:
        columns: of the store, leading axes as they are.
        encoding: of the store.
        classes: C.
        basis: (1 + r, C), the prior and the basis; None where the tail has none.
        temperature: T >= 1 / beta_max.

    Raises:
        ConfigError: see `stored_log_probs`.
    """
    ids, log_p, log_tail = stored_log_probs(columns, encoding, classes, temperature)
    z = _tail_logits(columns, ids, encoding, classes, basis) / temperature
    if ids.shape[-1] < classes:
        z = z - _log_sum_exp(z)[..., None] + log_tail[..., None]
    np.put_along_axis(z, ids, log_p, axis=-1)
    return z


def _tail_log_sum(
    columns: Columns, logits: NDArray[np.float64], encoding: TopkEncoding, beta: float
) -> NDArray[np.float64]:
    """g(beta) (N, M) from the columns and the logits (N, M, K) among them; -inf where there is no tail."""
    odds = columns["tail_odds"].astype(np.float64)
    empty = np.isneginf(odds[..., 0])
    odds = np.where(empty[..., None], 0.0, odds)
    first = odds[..., 0] + np.log(np.isfinite(logits).sum(axis=-1))
    last = odds[..., 1] + _log_sum_exp(encoding.beta_max * logits)
    along = beta / encoding.beta_max
    weights = np.array(curve_weights(beta, encoding.nodes, encoding.beta_max), np.float64)
    g = (1 - along) * first + along * last + columns["tail_curve"].astype(np.float64) / CURVE_STEPS @ weights
    return np.where(empty, -np.inf, g)


def _tail_logits(
    columns: Columns, ids: NDArray[np.int64], encoding: TopkEncoding, classes: int, basis: NDArray[np.float16] | None
) -> NDArray[np.float64]:
    """z (N, M, C) that says the tail's shape, each position up to a constant; -inf at the stored classes `ids` (N, M, K) and at
    those that the prior holds for impossible. Where it holds a whole tail for impossible, that tail's classes are alike.
    """
    z = np.zeros((*ids.shape[:-1], classes))
    if encoding.tail in ("lowrank", "prior"):
        assert basis is not None
        wide = basis.astype(np.float64)
        z += wide[0]
        if encoding.tail == "lowrank":
            z += coefficients(columns, encoding) @ wide[1:]
        possible = np.broadcast_to(wide[0] != IMPOSSIBLE, z.shape).copy()
        np.put_along_axis(possible, ids, False, axis=-1)
        z = np.where(possible.any(axis=-1, keepdims=True), np.where(possible, z, -np.inf), 0.0)
    np.put_along_axis(z, ids, -np.inf, axis=-1)
    return z


def coefficients(columns: Columns, encoding: TopkEncoding) -> NDArray[np.float64]:
    """Coefficients (N, M, r) of the basis vectors."""
    scale, parts = columns["tail_scale"].astype(np.float64), []
    if encoding.fine:
        parts.append(columns["tail_fine"].astype(np.float64) * scale[..., :1] / FINE)
    if encoding.coarse:
        parts.append(_unpacked(columns["tail_coarse"])[..., : encoding.coarse] * scale[..., -1:] / COARSE)
    return np.concatenate(parts, axis=-1)


def _unpacked(pairs: NDArray[np.generic]) -> NDArray[np.float64]:
    """Coefficients (..., 2 n) in steps, -7 to 7, of pairs (..., n): the first of a pair in its low 4 bits."""
    high, low = np.divmod(pairs.astype(np.float64), 16)
    steps = np.stack([low, high], axis=-1).reshape(*pairs.shape[:-1], -1)
    return np.where(steps > COARSE, steps - 16, steps)


def _log_sum_exp(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis; -inf where all are -inf."""
    peak = z.max(axis=-1, initial=-np.inf)
    anchor = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):  # log 0 = -inf is meant
        return np.asarray(anchor + np.log(np.exp(z - anchor[..., None]).sum(axis=-1)))


def _require(holds: bool | np.bool_, what: str) -> None:
    if not holds:
        raise ValueError(what)


def check_basis(basis: NDArray[np.float16], encoding: TopkEncoding, classes: int) -> None:
    """Raise `ValueError` unless `basis` can be a prior and a basis: (1 + r, C) float16, all finite."""
    shape = (1 + encoding.rank, classes)
    _require(
        basis.dtype == np.float16 and basis.shape == shape, f"the basis is {basis.dtype} {basis.shape}, not {shape}"
    )
    _require(np.isfinite(basis).all(), "the basis is NaN or infinite")
