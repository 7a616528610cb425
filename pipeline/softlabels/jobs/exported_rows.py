"""What `export_labels` writes of a store: named arrays of some rows, and lines on what is not among them. `AllRows` is all,
with names that import knows; `TokenRows` the k largest log-probabilities of tokens at one temperature.

R rows, P positions of a row, M members, C classes, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.foreign import axolotl, distillkit
from softlabels.labels.ensemble import check_temperature
from softlabels.store import Store
from softlabels.store.columns import LABEL, stored_name
from softlabels.transfer.alignment import alignment

_BLOCK = 1 << 22  # probabilities at once
_WRITTEN = {"axolotl": axolotl.written, "distillkit-raw": distillkit.written}
Arrays = dict[str, NDArray[Any]]


class Rows:
    """What is written: `columns` of row ranges, and lines on what is not."""

    said: list[str]

    def __init__(self, store: Store, temperature: float | None, k: int | None, mean: str) -> None:
        self.store, self.k, self.mean, self.said = store, k, mean, []
        self.asked = temperature

    def blocks(self) -> Iterator[Arrays]:
        """The rows in order, a chunk after the other."""
        for start in range(0, self.store.rows, self.store.rows_per_chunk):
            yield self.columns(np.arange(start, min(start + self.store.rows_per_chunk, self.store.rows)))

    def columns(self, rows: NDArray[np.int64]) -> Arrays:
        """The named arrays of some rows."""
        raise NotImplementedError

    def temperature(self, one: Store) -> float:
        """T of log-probabilities. Raises `ConfigError`."""
        found = one.encoding.near_1 if self.asked is None else self.asked
        check_temperature(found)
        one.encoding.check_temperature(found)
        return found

    def largest(self, one: Store, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ids and log-probabilities (n, [P,] k) of the most probable classes of a target of softmax."""
        kept = self.kept(one)
        columns = {name: one.gather(name, rows) for name in one.soft_columns}
        lead = (len(rows),) if one.positions is None else (len(rows), one.positions)
        flat = {name: values.reshape(-1, *values.shape[len(lead) :]) for name, values in columns.items()}
        step, parts = max(1, _BLOCK // one.classes), []
        for start in range(0, int(np.prod(lead)), step):
            part = {name: values[start : start + step] for name, values in flat.items()}
            parts.append(
                one.encoding.largest_log_probs(
                    part, one.classes, one.basis, temperature=self.temperature(one), mean=self.mean,
                    weights=one.member_weights, k=kept,
                )
            )  # fmt: skip
        ids, log_p = (np.concatenate(each).reshape(*lead, kept) for each in zip(*parts, strict=True))
        return ids.astype(np.int32), log_p.astype(np.float32)

    def kept(self, one: Store) -> int:
        """k. Raises `ConfigError`."""
        most = one.encoding.kept(one.classes)
        if self.k is None and one.encoding.keeps_all:
            raise ConfigError(
                f"{one.path} keeps all {one.classes} classes of a position", remedy="say how many are written with --k"
            )
        found = most if self.k is None else self.k
        if not 1 <= found <= most:
            raise ConfigError(f"k is {found}, and {one.path} keeps {most} classes", remedy=f"give --k from 1 to {most}")
        return found


class AllRows(Rows):
    """Keys, hard labels, mask, inputs, and the labels of every target: all members' outputs where the store keeps them, else
    ids and log-probabilities of the ensemble's most probable classes, and what these leave of 1.
    """

    def __init__(self, store: Store, temperature: float | None, k: int | None, mean: str) -> None:
        super().__init__(store, temperature, k, mean)
        if (temperature, k) != (None, None) and all(store.only(name).encoding.keeps_all for name in store.targets):
            raise ConfigError(
                f"temperature and k are of log-probabilities; of {store.path} all outputs of all members are written",
                remedy="leave them out: softmax(logits / T) is right at any T",
            )

    def columns(self, rows: NDArray[np.int64]) -> Arrays:
        """See `Rows`."""
        store = self.store
        found: Arrays = {"keys": store.gather("content_key", rows)}
        others = {"position_mask": "mask", "document": "document", "input": "inputs"}
        found |= {name: store.gather(column, rows) for column, name in others.items() if column in store.columns}
        for name in store.targets:
            one = store.only(name)
            if LABEL in one.columns and not store.spec.of_tokens:
                found[stored_name(name, "labels")] = one.gather(LABEL, rows)
            if one.encoding.keeps_all:
                columns = {column: one.gather(column, rows) for column in one.soft_columns}
                word = "values" if one.encoding.target == "values" else "logits"
                found[stored_name(name, word)] = one.encoding.outputs(columns)
            else:
                ids, log_p = self.largest(one, rows)
                rest = 1 - np.exp(log_p.astype(np.float64)).sum(axis=-1)
                found |= {stored_name(name, "ids"): ids, stored_name(name, "log_probs"): log_p}
                found[stored_name(name, "rest")] = rest.clip(0).astype(np.float32)
        return found


class TokenRows(Rows):
    """Rows of tokens, in the form of DistillKit's raw captures or of axolotl's prepared data sets."""

    def __init__(self, store: Store, form: str, temperature: float | None, k: int | None, mean: str) -> None:
        super().__init__(store, temperature, k, mean)
        self._form = form
        if not store.spec.of_tokens or store.targets != ("",) or "input" not in store.columns:
            what = "labels no tokens"
            if store.spec.of_tokens:
                what = (
                    "has several targets"
                    if "input" in store.columns
                    else "does not hold its tokens (inputs: reference)"
                )
            raise ConfigError(
                f"{store.path} {what}, and {form} is rows of tokens",
                remedy="export it as parquet or npz, or label with labels.inputs=embed",
            )
        at = self.temperature(store)
        self.said = [
            f"the file holds the {self.kept(store)} largest of each position; of all others it has what these leave of 1, and "
            "that at one temperature",
            f"log-probabilities at T={at:g}, which the file does not say: tell its readers",
        ]

    def columns(self, rows: NDArray[np.int64]) -> Arrays:
        """See `Rows`; arrays of one array a row."""
        ids, log_p = self.largest(self.store, rows)
        inputs = self.store.gather("input", rows)
        mask = alignment(inputs).mask > 0  # which refuses inputs that are no rows of tokens
        written: list[dict[str, Any]] = []
        for row, (tokens, documents) in enumerate(inputs):
            length = int((documents > 0).sum())
            kept = slice(max(length - 1, 0))
            written.append(_WRITTEN[self._form](tokens[:length], ids[row, kept], log_p[row, kept], mask[row, kept]))
        return {name: _ragged([each[name] for each in written]) for name in written[0]}


def _ragged(values: list[NDArray[Any]]) -> NDArray[Any]:
    """An array of arrays."""
    found = np.empty(len(values), object)
    for number, each in enumerate(values):
        found[number] = each
    return found
