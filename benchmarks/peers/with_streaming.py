"""MosaicML streaming: MDS shards of the default size, read in the place where they lie.

It imports torchvision for data sets of images, and the package index has no torchvision for torch's CPU build: a stand-in takes
its place, of which nothing is called here.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.columns import Columns
from benchmarks.peers.reader import Batch, Way


def stand_in() -> None:
    """For torchvision, once `transformers`, which streaming imports too, has found none."""
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # Python's way of saying that there is none
    import transformers.tokenization_utils_base  # noqa: F401

    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        module: Any = types.ModuleType(f"torchvision{name}")
        module.__path__, module.VisionDataset, module.to_tensor = [], object, object
        sys.modules[module.__name__] = module


stand_in()
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # noqa: E402

PACKAGES = ("mosaicml-streaming",)


def write(folder: Path, columns: Columns) -> None:
    """A sample a row, each column an array of its dtype and shape."""
    kinds = {
        name: "int" if each.ndim == 1 else f"ndarray:{each.dtype}:{','.join(map(str, each.shape[1:]))}"
        for name, each in columns.items()
    }
    with MDSWriter(out=str(folder), columns=kinds) as out:
        for row in range(len(columns["row"])):
            out.write({name: int(each[row]) if each.ndim == 1 else each[row] for name, each in columns.items()})


class Reader:
    """`StreamingDataLoader` over a `StreamingDataset` shuffled by its default, py1e."""

    def __init__(self, folder: Path, batch: int, workers: int) -> None:
        self._data = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch)
        self._loader: Any = StreamingDataLoader(self._data, batch_size=batch, num_workers=workers)

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        if state is not None:
            self._loader.load_state_dict(state)
        yield from self._loader

    def state(self) -> Any:
        """See `Reader`."""
        return self._loader.state_dict()


WAYS = {"StreamingDataLoader": Way(Reader, "py1e: rows of a block of 262,144, here all", in_dataloader=True)}
