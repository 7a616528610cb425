"""The same examples as a map-style torch dataset, for training loops that want rows by number and bring their own `DataLoader`.

Random rows cost a whole chunk each unless the chunk is in the cache, so they are shuffled by `windows`. Where a loop takes
batches as they come, those of `batches.py` are faster.

Shape letters: R rows of the transfer set, P positions, M members, C classes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from softlabels.errors import ConfigError, Stalled
from softlabels.labels.soft import SoftLabels
from softlabels.store.key_index import Missing
from softlabels.stream.chunk_cache import cached
from softlabels.stream.collate import Rows, soft_labels_of, tensors_of
from softlabels.stream.examples import join_examples
from softlabels.stream.join import Ints
from softlabels.stream.loader import require_positive, row_bytes
from softlabels.stream.order import Order, default_block, default_span, order_digest
from softlabels.stream.prefetch import prefetch
from softlabels.stream.stored_rows import EmbeddedRows
from softlabels.stream.travel import packed, unpacked
from softlabels.stream.windows import Windows
from softlabels.system.patience import AGAIN, patience, process

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer import TransferRows


class SoftLabelDataset(Dataset[dict[str, Tensor]]):
    """Examples by number: `{"input", "label", "row"}` and, with a store, its columns of soft labels, as tensors.

    `input` has the shape and dtype of a prepared input, `label` is int64 (-1 = none), `row` the int64 number of the row in the
    transfer rows. For rows of positions `label` is (P,), for tokens each position's next token, with `mask` (P,) bool, the
    positions that count. Dense labels are `logits` ([P,] M, C) float16 and `shift` ([P,] M) float32; sparse ones are the
    columns of `softlabels.labels.topk`, with unsigned integers viewed as signed ones. Other kinds of targets have labels as in
    `softlabels.labels.hard`, and `logits` ([P,] M, C) or `values` ([P,] M, D). If targets have names, their columns begin with
    them: `box.label`, `box.values`.

    `DataLoader` makes batches of them, tensors with the same names and an axis of rows first, and `soft_labels` makes
    `SoftLabels` from a batch. Shuffle with `windows`, not with `shuffle=True`, which reads a chunk for every row if the labels
    are larger than `cache_bytes`.

    Works in worker processes, forked or spawned; each of them reads all chunks. `SoftLabelBatches` divides them.

    Args:
        cache_bytes: size of the decoded chunks that each worker process keeps in memory.
        rows, store, selection, missing, weights, members, labelled, targets: as in `loader.Loader`.

    Raises:
        UnlabelledRows, LabelError, ClassMismatch, AlignmentError, ConfigError: as for `examples.join_examples`.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> data = SoftLabelDataset(EmbeddedRows(store), store)
        >>> for batch in DataLoader(data, batch_size=50, sampler=data.windows(seed=0)):
        ...     soft = data.soft_labels(batch)
    """

    def __init__(
        self,
        rows: TransferRows | EmbeddedRows,
        store: Store | None,
        *,
        selection: Ints | None = None,
        missing: Missing = "error",
        weights: Sequence[float] | None = None,
        members: Sequence[int] | None = None,
        labelled: NDArray[np.bool_] | None = None,
        targets: Collection[str] | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        examples = join_examples(
            rows, store, selection=selection, missing=missing, weights=weights, members=members, labelled=labelled,
            targets=targets,
        )  # fmt: skip
        self._examples = cached(examples, cache_bytes)
        self._keys = rows.keys[examples.items]
        self._block = default_block(
            row_bytes(examples, rows, store or (rows.store if isinstance(rows, EmbeddedRows) else None))
        )

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Rows:
        """What `DataLoader` calls for a batch: each chunk is read once for all of them, and they are stacked already."""
        given = np.asarray(indices)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ConfigError(
                f"examples are numbered by integers, not by {given.dtype} of shape {given.shape[1:]}",
                remedy="ask for one by its number; for batches give DataLoader a batch_size or batch_sampler",
            )
        numbers = given.astype(np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"examples are numbered 0 to {len(self) - 1}")
        return Rows(tensors_of(self._examples, self._examples.with_inputs(self._examples.take(numbers))))

    def windows(self, *, seed: int, block: int | None = None, window: int = 16) -> Windows:
        """A sampler that shuffles as a `Loader` does: it shuffles blocks of rows, and then the rows of `window` blocks at a
        time, by keys, seed and epoch. `cache_bytes` should hold the chunks of three windows.

        Args:
            seed, block, window: as in `loader.Loader`.

        Raises:
            ConfigError: a block or window below 1.
        """
        require_positive(window=window, block=block)
        items, block = self._examples.items, block or self._block
        blocks, facts = items // block, {"window": window, "seed": seed, "block": block}
        digest = order_digest(keys=self._keys, blocks=blocks, facts=facts)
        span = default_span(block, len(items), window)
        return Windows(Order(blocks, digest=digest, window=window, batch_size=1, span=span), len(items))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_examples": packed(self._examples)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_examples": unpacked(state["_examples"])}

    def soft_labels(self, batch: Mapping[str, Tensor], target: str = "") -> SoftLabels:
        """The soft labels of a collated batch, with the member weights of this dataset; for rows of positions one per position,
        row after row. `target`: its name, if the store has several.
        """
        return soft_labels_of(self._examples, batch, target)


def watched(batches: DataLoader[Any]) -> Iterator[Any]:
    """One pass over the batches of a `DataLoader`, whose worker processes are waited for no longer than `patience` says.

    `DataLoader(timeout=...)` does not notice a worker that stops while it hands over a batch. Without workers this thread reads
    them itself, as without `watched`: another one would draw random numbers at the same time as the model.

    Raises:
        Stalled: naming the workers that are stopped, or all of them where none is; all are ended.

    Example:
        >>> from softlabels.stream import watched
        >>> batches = SoftLabelBatches(Loader(EmbeddedRows(store), store, batch_size=50, seed=0))
        >>> sum(len(batch["input"]) for batch in watched(torch.utils.data.DataLoader(batches, batch_size=None)))
        160
    """
    if batches.num_workers == 0:
        yield from batches
        return
    workers: list[multiprocessing.process.BaseProcess] = []

    def source() -> Iterator[Any]:
        iterator: Any = iter(batches)
        workers.extend(iterator._workers)  # of which some, with persistent_workers, were started for an earlier pass
        yield from iterator

    try:
        yield from prefetch(source())
    except Stalled as error:
        found = {worker.pid or 0: process(worker.pid or 0) for worker in workers}
        stopped = {pid: text for pid, text in found.items() if "stopped" in text}
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)  # or it would not hear that it is to end, and be waited for
        raise Stalled(
            f"no batch for {patience():g} s from {len(workers)} workers: {' and '.join((stopped or found).values())}",
            remedy=AGAIN,
        ) from error
