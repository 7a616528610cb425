"""webdataset: tars of .npy members, a shuffle of shards and a shuffle buffer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset

from benchmarks.peers.columns import Columns
from benchmarks.peers.reader import BUFFER, Batch, Way

PACKAGES = ("webdataset",)
SHARD_BYTES = 1 << 24  # several shards of the few rows that are read here


def write(folder: Path, columns: Columns) -> None:
    """A sample a row; the numbers of a row are one member."""
    wide = [name for name, each in columns.items() if each.ndim > 1]
    with webdataset.ShardWriter(str(folder / "%05d.tar"), maxsize=SHARD_BYTES, verbose=0) as out:
        for row in range(len(columns["row"])):
            numbers = np.array([columns["row"][row], columns["label"][row]])
            out.write(
                {
                    "__key__": f"{row:08d}",
                    "numbers.npy": numbers,
                    **{f"{name}.npy": columns[name][row] for name in wide},
                }
            )


class Reader:
    """`WebDataset` decoded and batched; it keeps no place."""

    def __init__(self, folder: Path, batch: int, workers: int) -> None:
        self._files, self._batch, self._workers = sorted(map(str, folder.glob("*.tar"))), batch, workers

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        stream = webdataset.WebDataset(self._files, shardshuffle=len(self._files), seed=number, empty_check=False)
        batches = stream.shuffle(BUFFER).decode().batched(self._batch, collation_fn=stacked)
        yield from webdataset.WebLoader(batches, batch_size=None, num_workers=self._workers)

    def state(self) -> Any:
        """See `Reader`."""
        return None


def stacked(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Samples to tensors of a batch."""
    numbers = np.stack([each["numbers.npy"] for each in samples])
    wide = [name for name in samples[0] if name.endswith(".npy") and name != "numbers.npy"]
    arrays = {name.removesuffix(".npy"): np.stack([each[name] for each in samples]) for name in wide}
    found = {"row": numbers[:, 0], "label": numbers[:, 1], **arrays}
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in found.items()}


WAYS = {"WebLoader": Way(Reader, f"shards, and a buffer of {BUFFER:,} rows", in_dataloader=True)}
