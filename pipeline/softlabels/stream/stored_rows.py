"""Rows that a store holds itself, in the place of a transfer set: with their inputs for students, by their keys alone for
judging the stored teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.labels.hard import no_labels
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.hard_labels import label_column
from softlabels.stream.positions import stored_sequence

if TYPE_CHECKING:
    from softlabels.store import Store


class StoredRows:
    """The rows of a store whose inputs are not at hand, for judging the stored teacher: their inputs are their keys. Of token
    rows nobody knows the tokens, and so no label.

    Attributes:
        keys: (R, 16) uint8 content keys.
        inputs: (R, 16), the keys in the place of inputs; None where the store holds the inputs.
        sequence: what rows of tokens are; None for other rows.
    """

    positions = mask = None  # of rows of positions: the store's own
    ragged = False

    def __init__(self, store: Store) -> None:
        self.store, self.name = store, str(store.path)
        self.sequence = stored_sequence(store)
        labels = [stored_name(name, LABEL) for name in store.targets]
        beside = [name for name in labels if name in store.columns and not store.columns[name].shape]
        self.keys = np.asarray(store.column("content_key", beside=beside), np.uint8)
        self.inputs: NDArray[Any] | None = self.keys

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Ordered, or None; of one target."""
        return self.store.class_names

    @property
    def hard(self) -> Mapping[str, NDArray[Any]]:
        """Hard labels by target, see `TransferRows.hard`; each is read when it is asked for."""
        return _Labels(self.store)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Those of the target without a name."""
        return self.hard[""]

    def only(self, name: str) -> Self:
        """The same rows with one target, which then has no name."""
        view = copy(self)
        view.__dict__.pop("labels", None)
        view.store = self.store.only(name)
        return view


class EmbeddedRows(StoredRows):
    """The rows that a store holds itself (`inputs: embed`), in place of a transfer set.

    Example:
        >>> len(EmbeddedRows(store).keys)
        160
        >>> loader = Loader(EmbeddedRows(store), store, batch_size=50, seed=0)
    """

    def __init__(self, store: Store) -> None:
        if "input" not in store.columns:
            raise ConfigError(f"the store {store.path} holds no inputs", remedy="name the transfer set that it labels")
        super().__init__(store)
        self.inputs = None


class _Labels(Mapping[str, NDArray[Any]]):
    """The columns of hard labels of a store's targets, by their names."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._store.targets:
            raise KeyError(name)
        store = self._store.only(name)
        if LABEL not in store.columns:
            return no_labels(store.encoding.target, (store.rows, *label_column(store.spec, store.spec.target).shape))
        return np.asarray(store.column(LABEL))

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.targets)

    def __len__(self) -> int:
        return len(self._store.targets)
