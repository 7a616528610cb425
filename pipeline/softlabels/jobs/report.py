"""`report`: a store, and runs of students beside it, as one HTML page that needs no server and no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from softlabels.jobs.watch import LOGGED, Watch
from softlabels.pages.page import page
from softlabels.pages.slider import Slider
from softlabels.pages.store_section import store_sections
from softlabels.store import open_store, store_splits
from softlabels.system.local import write_atomically
from softlabels.system.places import Place, files_of
from softlabels.transfer.config import TransferSetConfig


def report(
    store: Place,
    runs: Sequence[Path] = (),
    *,
    out: str | Path = "report.html",
    transfer: TransferSetConfig | None = None,
    watch: Watch = LOGGED,
) -> Path:
    """Write the page; what stood at `out` is replaced.

    Args:
        store: a sealed store, or a folder of splits.
        runs: folders of finished runs.
        out: the file.
        transfer: where the inputs of the rows are, of a store that does not hold them.

    Returns:
        The file.

    Raises:
        StorePathError, UnsealedStore: no sealed store. DamagedStore: a chunk is damaged.
        MissingExtra: vl-convert is not installed. DiskFull, StorageError: the page cannot be written.
    """
    place = files_of(store)
    splits = {split: open_store(folder) for split, folder in store_splits(place).items()}
    sections = store_sections(splits)
    first = next(iter(splits.values())).spec
    title = f"{first.teacher.name} on {first.transfer_set.name}"
    write_atomically(Path(out), page(title, sections, slider=Slider.of([*splits.values()])).encode())
    watch.say(f"report: {out}")
    return Path(out)
