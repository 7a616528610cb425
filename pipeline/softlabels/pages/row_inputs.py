"""What a row's inputs are on a page: pictures, sound, texts, tokens and cells, as JSON, from the raw columns of the transfer
set or else from the inputs that the store holds.

Each input is one of {"kind": "picture" | "sound", "source": a data URI}, {"kind": "text", "text"}, {"kind": "tokens",
"tokens": [..]} and {"kind": "cells", "cells": [[name, value], ..]}; with "name", the column's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softlabels.errors import TransferSetError, UserError, one_line
from softlabels.labels import NO_LABEL
from softlabels.pages.media import EDGE, looks_like_picture, picture, sound
from softlabels.pages.token_names import TokenNames, token_names
from softlabels.store import Store
from softlabels.store.key_index import KeyIndex
from softlabels.transfer import load_transfer_set
from softlabels.transfer.columns import column_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Value, decode, is_file
from softlabels.transfer.raw_keys import raw_keys
from softlabels.transfer.rows import open_rows
from softlabels.transfer.sequences import open_tokenization

TEXT = 600  # characters
CELLS = 32  # numbers of a row
TOKENS = 512
CALLED = 200  # characters of what a row is called in a list
_NEXT = "The hard label (●) of a token is the next one."

Ints = NDArray[np.int64]
Json = dict[str, Any]


class RowInputs(ABC):
    """Where inputs come from.

    Attributes:
        said: a sentence about them, for the page.
        names: what the classes of a language model are called, where it is known.
    """

    said: str
    names: TokenNames | None = None

    @abstractmethod
    def of(self, rows: Ints, *, edge: int = EDGE) -> list[list[Json] | None]:
        """The inputs of rows of the store, pictures of at most `edge` pixels an edge; None where they are not there."""

    def called(self, rows: Ints) -> list[str]:
        """What finds each row in a list: the path of its file, else its first text, or numbers or tokens, shortened; "" of
        none.
        """
        return ["" if own is None else _called(own) for own in self.of(rows)]

    def following(self, rows: Ints) -> Ints | None:
        """Of rows of tokens what each position's next one is (n, P), -1 where it is not there; None where no inputs are."""
        return None


def _called(own: Sequence[Json]) -> str:
    for each in own:
        if each["kind"] == "text":
            return one_line(each["text"], CALLED)
        if each["kind"] == "tokens":
            return one_line("".join(each["tokens"]), CALLED)
        if each["kind"] == "cells":
            return one_line(", ".join(str(value) for _, value in each["cells"]), CALLED)
    return ""


class NoInputs(RowInputs):
    """Of a store that holds none, and without a transfer set."""

    def __init__(self, why: str) -> None:
        self.said = why

    def of(self, rows: Ints, *, edge: int = EDGE) -> list[list[Json] | None]:
        """See `RowInputs`."""
        return [None] * len(rows)


class EmbeddedInputs(RowInputs):
    """The prepared inputs that a store holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.said = "Inputs are the prepared ones in the store, as the teacher saw them."
        self.said += f" {_NEXT}" * store.spec.of_tokens

    def of(self, rows: Ints, *, edge: int = EDGE) -> list[list[Json] | None]:
        """See `RowInputs`."""
        return [[self._shown(value, edge)] for value in self._store.gather("input", rows)]

    def called(self, rows: Ints) -> list[str]:
        """See `RowInputs`. Pictures are not drawn."""
        every = self._store.gather("input", rows)
        return ["" if looks_like_picture(value) else _called([self._shown(value, EDGE)]) for value in every]

    def following(self, rows: Ints) -> Ints | None:
        """See `RowInputs`."""
        own = self._store.gather("input", rows)
        return own[:, 0, 1:].astype(np.int64) if own.shape[1:] == (2, (self._store.positions or 0) + 1) else None

    def _shown(self, value: NDArray[np.generic], edge: int) -> Json:
        if self._store.spec.of_tokens and value.ndim == 2 and len(value) == 2:
            return tokens(value, self._store.class_names)
        return shown_value("input", value, edge)


class TransferInputs(RowInputs):
    """The raw columns of a transfer set, whose rows are found by content key."""

    said = "Inputs are the raw columns of the transfer set, found by content key."

    def __init__(self, store: Store, config: TransferSetConfig, split: str) -> None:
        self._config, self._source = config, open_rows(config, split)
        keys, numbers = self._keys(split)
        at = KeyIndex(keys).find(store.column("content_key"))  # type: ignore[arg-type]  # uint8
        self._at = np.where(at < 0, NO_LABEL, numbers[at])
        self.said += _lost(at)

    def _keys(self, split: str) -> tuple[NDArray[np.uint8], Ints]:
        """The keys of the rows that can be read, and their numbers."""
        try:
            rows = load_transfer_set(self._config, split)
        except TransferSetError:
            found = raw_keys(self._config, self._source)
            if found.why is not None:
                self.said += (
                    f" {found.unread:,} of its {self._source.rows:,} rows cannot be read: {one_line(found.why)}."
                )
            return found.keys, found.rows
        return np.asarray(rows.keys), np.arange(len(rows.keys))

    def of(self, rows: Ints, *, edge: int = EDGE) -> list[list[Json] | None]:
        """See `RowInputs`."""
        return [None if at < 0 else self._shown(at, edge) for at in self._at[rows].tolist()]

    def called(self, rows: Ints) -> list[str]:
        """See `RowInputs`. Pictures and sounds are not decoded."""
        return ["" if at < 0 else self._called(at) for at in self._at[rows].tolist()]

    def _called(self, at: int) -> str:
        table = self._source.data[at : at + 1]
        for name in self._config.inputs:
            column = column_at(table, name)
            if not is_file(column.type):
                return _called([self._column(table, name, at, EDGE)])
            if path := (column[0].as_py() or {}).get("path"):
                return one_line(path, CALLED)
        return ""

    def _shown(self, at: int, edge: int) -> list[Json]:
        table = self._source.data[at : at + 1]
        return [self._column(table, name, at, edge) for name in self._config.inputs]

    def _column(self, table: pa.Table, name: str, at: int, edge: int) -> Json:
        """One input of row `at`: what cannot be read says so, and the row's others are shown."""
        try:
            column = column_at(table, name)
            [value] = decode(column, name=name, start=at, images=name in self._source.images, missing=True).rows()
        except TransferSetError as error:
            return {"name": one_line(name, 60), "kind": "text", "text": f"(cannot be read: {one_line(error.what)})"}
        return shown_value(name, value, edge)


class TokenInputs(RowInputs):
    """The rows of tokens of a transfer set, which are found by content key."""

    said = f"Inputs are the tokens of the transfer set, found by content key. {_NEXT}"

    def __init__(self, store: Store, config: TransferSetConfig, split: str) -> None:
        assert config.sequences is not None
        self._rows = load_transfer_set(config, split)
        self._words, self.names = open_tokenization(config.sequences).tokenizer, token_names(store, config)
        self._at = KeyIndex(np.asarray(self._rows.keys)).find(store.column("content_key"))  # type: ignore[arg-type]  # uint8
        self.said += _lost(self._at)

    def of(self, rows: Ints, *, edge: int = EDGE) -> list[list[Json] | None]:
        """See `RowInputs`."""
        return [
            None if at < 0 else [tokens(np.asarray(self._rows.inputs[at]), self._words)]
            for at in self._at[rows].tolist()
        ]

    def following(self, rows: Ints) -> Ints | None:
        """See `RowInputs`."""
        at = self._at[rows]
        own = np.asarray(self._rows.inputs[at.clip(min=0)])[:, 0, 1:].astype(np.int64)
        own[at < 0] = NO_LABEL
        return own


def _lost(at: Ints) -> str:
    """What is said of the store's rows that were not found."""
    lost = int((at < 0).sum())
    return f" {lost:,} of {len(at):,} rows of the store are not in it." if lost else ""


def inputs_of(store: Store, transfer: TransferSetConfig | None, split: str) -> RowInputs:
    """Where a page finds the inputs of a store's rows. What cannot be opened is said, and the labels are shown alone."""
    why = "The store holds no inputs, and no recipe was given (--config=RECIPE): rows are shown by their labels alone."
    if transfer is not None:
        try:
            return (TransferInputs if transfer.sequences is None else TokenInputs)(store, transfer, split)
        except UserError as error:
            why = f"The inputs could not be opened, rows are shown by their labels alone: {one_line(error)}"
    return EmbeddedInputs(store) if store.spec.inputs == "embed" else NoInputs(why)


def shown_value(name: str, value: Value, edge: int = EDGE) -> Json:
    """One input of a row, pictures of at most `edge` pixels an edge."""
    return {"name": one_line(name, 60), **_shown(value, edge)}


def _shown(value: Value, edge: int) -> Json:
    if value is None:
        return {"kind": "text", "text": "(missing)"}
    if isinstance(value, str):
        if not value:
            return {"kind": "text", "text": "(empty)"}
        return {"kind": "text", "text": value if len(value) <= TEXT else value[:TEXT] + " …"}
    if isinstance(value, bytes):
        clip = sound(value)
        if clip:
            return {"kind": "sound", "source": clip}
        return {
            "kind": "text",
            "text": f"a file of {len(value):,} bytes" if clip is None else "(a sound without samples)",
        }
    if isinstance(value, list):
        return _cells([[number, text[:TEXT]] for number, text in enumerate(value[:CELLS])], len(value))
    array = np.asarray(value)
    if looks_like_picture(array):
        return {"kind": "picture", "source": picture(array, edge), "shape": [*array.shape]}
    if array.ndim == 0:
        return {"kind": "text", "text": _number(array[()])}
    flat = array.reshape(-1)
    return _cells([[number, _number(each)] for number, each in enumerate(flat[:CELLS])], flat.size)


def _cells(cells: Sequence[Sequence[object]], count: int) -> Json:
    return {"kind": "cells", "cells": cells, "more": count - len(cells)}


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def tokens(ids: NDArray[np.generic], words: Any) -> Json:
    """A row of tokens, (2, L) ids and documents, by a tokenizer, the names of the classes, or their numbers."""
    own, documents = ids.astype(np.int64)
    own = own[documents > 0][: TOKENS + 1]
    if hasattr(words, "decode"):
        found = [words.decode([token], clean_up_tokenization_spaces=False) for token in own.tolist()]
    elif words:
        found = [words[token] if 0 <= token < len(words) else str(token) for token in own.tolist()]
    else:
        found = [str(token) for token in own.tolist()]
    return {"kind": "tokens", "tokens": [each[:60] for each in found]}
