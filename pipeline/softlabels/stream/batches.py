"""The loader's batches for training loops that bring their own `DataLoader`: whole windows, divided by worker and by process.

`dataset.py` gives single rows by number, in whatever order; this is the faster way. `stretch.py` says which rows a worker
gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from softlabels.errors import ConfigError, SpecMismatch
from softlabels.labels.soft import SoftLabels
from softlabels.stream.collate import Columns, soft_labels_of
from softlabels.stream.loader import Loader
from softlabels.stream.parts import Part
from softlabels.stream.stretch import Stretch

_ASK_WORKERS = "use torchdata's StatefulDataLoader, and its state_dict and load_state_dict; or give num_workers=0"


class SoftLabelBatches(IterableDataset[dict[str, Tensor]]):
    """The batches of a `Loader` for `DataLoader`, as dicts of tensors by the names that `SoftLabelDataset` lists.

    They are already batches, so pass `batch_size=None`. A pass gives every row once, for any number of workers and processes:
    each gives its own stretch of the epoch's sequence, so none reads the others' chunks, and they need not communicate.
    `batch_size` counts the rows of all processes together; each makes the same number of steps. In one process with at most one
    worker, the batches are those of `Loader.epoch`. With n workers, batch b comes from worker b % n; worker 0 begins at the
    epoch's first row, and each next worker where the one before ends. With several processes, rank 0 begins there, and each
    next rank where the last worker of the one before ends. So the order depends on both numbers, and on nothing else. Memory is
    that of the loader, in each worker.

    `state_dict` gives the position of a pass, to the batch, and `load_state_dict` resumes there: in this process if it has no
    workers, else in torchdata's `StatefulDataLoader`, which asks the workers.

    Args:
        loader: one of all rows, without a `part`: processes with a part exchange rows, and workers cannot.
        part: `Part(rank, world)` if each process has its own batches; `Part()`, all, if one reads for the others, as in
            accelerate. Required if torch.distributed joins several processes.

    Raises:
        ConfigError: a loader of a part, no `part` among several processes, or batches that do not give each process a row.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> batches = SoftLabelBatches(Loader(EmbeddedRows(store), store, batch_size=50, seed=0))
        >>> for epoch in range(2):
        ...     batches.set_epoch(epoch)
        ...     for batch in DataLoader(batches, batch_size=None):  # num_workers=2, where reading costs much
        ...         soft = batches.soft_labels(batch)
    """

    def __init__(self, loader: Loader, *, part: Part | None = None) -> None:
        if loader.part.world > 1:
            raise ConfigError(
                "the loader gives a part of its batches", remedy="make it without `part`, which SoftLabelBatches takes"
            )
        self.loader, self._part = loader, part
        self._stretch()  # refuses here what it would refuse in a worker
        shared = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # by this process and its workers
        # The epoch, so that workers that are kept hear of the next one; and whether workers gave the last pass.
        self._epoch, self._by_workers = shared[0], shared[1]
        self._place = 0, 0  # epoch and batch that come next
        # The place at which the next pass begins, if not at its first batch, and who was given it.
        self._loaded: Mapping[str, Any] | None = None
        self._loaded_by_worker = False

    def __len__(self) -> int:
        """Batches of an epoch, in this process."""
        return self._stretch().steps

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass: 0 at first, and without workers the next one after a complete pass. With workers each
        pass is the same epoch until this sets another. A loaded position is kept if it is in this epoch.
        """
        self._epoch.fill_(epoch)
        self._by_workers.fill_(0)
        if self._loaded is None or self._loaded["epoch"] != epoch:
            self._loaded, self._place = None, (epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and texts: the next epoch and batch, and what they depend on.

        Raises:
            ConfigError: workers give the batches, and this process does not know how many.
        """
        if get_worker_info() is None and self._by_workers:
            raise ConfigError(
                "worker processes give these batches, and only they know their positions", remedy=_ASK_WORKERS
            )
        epoch, batch = self._place
        return {"epoch": epoch, "batch": batch, **self._facts()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the next pass at this position.

        Raises:
            SpecMismatch: when the pass begins, for another order, or another number of processes or workers.
            ConfigError: not a state of such batches; or, when the pass begins, the state was loaded in this process but workers
                give the batches.
        """
        needed = {"epoch", "batch", *self._facts()}
        if not (isinstance(state, Mapping) and needed <= state.keys()) or min(state["epoch"], state["batch"]) < 0:
            raise ConfigError("this is not a state of SoftLabelBatches", remedy="give the result of state_dict()")
        self._loaded, self._place = dict(state), (state["epoch"], state["batch"])
        self._loaded_by_worker = get_worker_info() is not None
        if get_worker_info() is None:
            self._epoch.fill_(state["epoch"])

    def soft_labels(self, batch: Mapping[str, Tensor], target: str = "") -> SoftLabels:
        """As `SoftLabelDataset.soft_labels`."""
        return soft_labels_of(self.loader.examples, batch, target)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self._place, batch = (int(self._epoch), 0), 0
        self._by_workers.fill_(get_worker_info() is not None)
        if self._loaded is not None:
            if differences := [
                f"{name} {self._loaded[name]}, not {value}"
                for name, value in self._facts().items()
                if self._loaded[name] != value
            ]:
                raise SpecMismatch(
                    f"the state is of other batches than these: {', '.join(differences)}",
                    remedy="resume with the rows, store, settings, processes and workers that it was saved with",
                )
            if not self._loaded_by_worker and get_worker_info() is not None:
                raise ConfigError(
                    "a state was loaded into SoftLabelBatches, and worker processes give its batches",
                    remedy=_ASK_WORKERS,
                )
            batch = self._loaded["batch"]
            self._place, self._loaded = (self._loaded["epoch"], batch), None
        return self._pass(self._stretch(), *self._place)

    def _pass(self, stretch: Stretch, epoch: int, batch: int) -> Iterator[dict[str, Tensor]]:
        with closing(self.loader.columns(epoch, stretch, start=stretch.first(batch))) as batches:
            for own, tensors in enumerate(batches, stretch.first(batch) + 1):
                self._place = epoch, stretch.number(own)
                yield Columns(tensors)
        if get_worker_info() is None:
            self.set_epoch(epoch + 1)

    def _facts(self) -> dict[str, Any]:
        stretch = self._stretch()
        return {"order": self.loader.order_digest, "processes": stretch.part.world, "workers": stretch.workers}

    def _stretch(self) -> Stretch:
        part, worker = self._part, get_worker_info()
        if part is None:
            part = Part()
            if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                raise ConfigError(
                    f"torch.distributed joins {dist.get_world_size()} processes, and this one's part of the rows is not given",
                    remedy="give part=Part(dist.get_rank(), dist.get_world_size()), or part=Part() if one reads for all",
                )
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return Stretch(len(self.loader.rows), self.loader.batch_size, part, number, workers)

    def __getstate__(self) -> dict[str, Any]:
        self._stretch()  # a spawned worker knows nothing of torch.distributed
        return self.__dict__
