"""One of two processes that accelerate joins: writes which rows it is given, in each way, into `rank<r>.json` of a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader

from softlabels import ConfigError, EmbeddedRows, Loader, Part, SoftLabelBatches, SoftLabelDataset, open_store


def main(folder: Path) -> None:
    store = open_store(folder / "store")
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes

    def batches(size: int, part: Part | None) -> SoftLabelBatches:
        return SoftLabelBatches(Loader(EmbeddedRows(store), store, batch_size=size, seed=0), part=part)

    def rows(dispatch: bool) -> DataLoader:
        data = SoftLabelDataset(EmbeddedRows(store), store)
        config = DataLoaderConfiguration(dispatch_batches=dispatch)
        feed = DataLoader(data, batch_size=16, sampler=data.windows(seed=0))
        return Accelerator(cpu=True, dataloader_config=config).prepare(feed)

    own = batches(32, Part(rank, world))
    feeds = {
        "dispatched": accelerator.prepare(DataLoader(batches(16, Part()), batch_size=None)),
        "own parts": DataLoader(own, batch_size=None),
        "rows dispatched": rows(True),
        "rows by process": rows(False),
    }
    found: dict[str, object] = {
        way: [[batch["row"].tolist() for batch in feed] for _ in range(2)] for way, feed in feeds.items()
    }
    try:
        batches(32, None)
    except ConfigError as error:
        found["nobody said"] = str(error)
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
