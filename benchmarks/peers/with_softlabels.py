"""softlabels: a store of our own, by `StoreWriter`, and the ways of reading it that the documentation names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers.columns import CLASSES, KEPT, VOCABULARY, Columns, shapes
from benchmarks.peers.loops import InDataLoader
from benchmarks.peers.reader import CACHE_BYTES, Batch, Way
from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.labels.lost import Lost
from softlabels.labels.soft import SoftLabels
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.reader import Check
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.stream import Loader, SoftLabelBatches, SoftLabelDataset
from softlabels.transfer import TransferRows

PACKAGES = ("softlabels",)
INPUTS = "inputs.npy"  # mapped, as those of a transfer set are


def write(folder: Path, columns: Columns) -> None:
    """A store, chunked by default; inputs beside it, where they are more than the row's number."""
    rows, topk = len(columns["row"]), "top_class" in columns
    encoding = TopkEncoding(k=KEPT, tail="renormalised", nodes=0) if topk else DenseEncoding()
    teacher = TeacherSpec(name="noise", precision="float16", members=(MemberSpec(model="noise"),))
    keys = np.random.default_rng(0).integers(0, 256, (rows, 16), np.uint8)
    spec = store_spec(encoding, teacher=teacher, name="noise", keys=keys, classes=VOCABULARY if topk else CLASSES)
    with StoreWriter(folder / "store", spec) as writer:
        for shard in writer.pending:
            part = slice(*writer.rows_of(shard))
            own: dict[str, Any] = {"keys": keys[part], "labels": columns["label"][part]}
            if topk:
                soft = {name: columns[name][part] for name in shapes("topk")}
                nothing = {
                    each.name: np.zeros((len(keys[part]), *each.shape), each.numpy_dtype) for each in spec.columns
                }
                soft |= {name: nothing[name] for name in spec.soft_columns if name not in soft}
                writer.write_columns(shard, columns=soft, fidelity=Lost(), **own)
            else:
                writer.write_logits(shard, logits=columns["logits"][part], **own)
        writer.seal(checked=topk)
    np.save(folder / "keys.npy", keys)
    np.save(folder / INPUTS, columns["input"] if "input" in columns else columns["row"][:, None])


def rows_of(folder: Path, label: Any) -> TransferRows:
    """What a recipe's transfer set would give."""
    return TransferRows(
        name="noise", split="train", revision=None, source="", inputs=np.load(folder / INPUTS, mmap_mode="r"),
        keys=np.load(folder / "keys.npy"), labels=label, class_names=None, prepare=ObjectSpec("none"),
    )  # fmt: skip


class Windows:
    """Our `Loader`: epoch and number of the next batch are its place."""

    def __init__(self, folder: Path, batch: int, check: Check) -> None:
        store = open_store(folder / "store", check=check)
        self._loader = Loader(rows_of(folder, store.column("label")), store, batch_size=batch, seed=0)
        self._done = 0

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        self._done = state or 0
        for batch in self._loader.epoch(number, self._done):
            self._done += 1
            yield {
                "row": torch.from_numpy(batch.rows),
                "label": batch.labels,
                "input": batch.inputs,
                **stored(batch.soft),
            }

    def state(self) -> Any:
        """See `Reader`."""
        return self._done


def stored(soft: SoftLabels | None) -> dict[str, Tensor]:
    """The columns of a batch's labels."""
    assert soft is not None
    members: Any = soft.members
    columns: dict[str, Tensor] = members.columns if hasattr(members, "columns") else {"logits": members.logits}
    return columns


class Batches:
    """Our `SoftLabelBatches` behind torch's `DataLoader`, which keeps their place where it has no workers."""

    def __init__(self, folder: Path, batch: int, workers: int) -> None:
        store = open_store(folder / "store")
        loader = Loader(rows_of(folder, store.column("label")), store, batch_size=batch, seed=0)
        self._batches, self._workers = SoftLabelBatches(loader), workers

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        if state is None:
            self._batches.set_epoch(number)
        else:
            self._batches.load_state_dict(state)
        yield from DataLoader(self._batches, None, num_workers=self._workers)

    def state(self) -> Any:
        """See `Reader`."""
        return None if self._workers else self._batches.state_dict()


def in_dataloader(folder: Path, batch: int, workers: int, *, windows: bool = False) -> InDataLoader:
    """Our data set of rows behind torch's `DataLoader`, shuffled by torch or in the loader's windows."""
    store = open_store(folder / "store")
    data = SoftLabelDataset(rows_of(folder, store.column("label")), store, cache_bytes=CACHE_BYTES)
    sampler = data.windows(seed=0) if windows else None
    return InDataLoader(lambda: DataLoader(data, batch, shuffle=not windows, sampler=sampler, num_workers=workers))


BLOCKS = "blocks, mixed in windows of chunks"
WAYS = {
    "Loader": Way(lambda folder, batch, workers: Windows(folder, batch, "first"), BLOCKS),
    "Loader, digests checked at each reading": Way(
        lambda folder, batch, workers: Windows(folder, batch, "always"), BLOCKS
    ),
    "SoftLabelBatches": Way(Batches, BLOCKS, in_dataloader=True),
    "SoftLabelDataset in DataLoader, by windows()": Way(
        partial(in_dataloader, windows=True), BLOCKS, in_dataloader=True
    ),
    "SoftLabelDataset in DataLoader": Way(in_dataloader, "all rows", in_dataloader=True),
}
