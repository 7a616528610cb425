"""What a page looks at in each target of each split before it shows rows: scores, likely label errors, and where inputs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softlabels.pages.row_inputs import RowInputs, inputs_of
from softlabels.pages.row_scan import Scan, scan
from softlabels.store import Store
from softlabels.transfer.config import TransferSetConfig


@dataclass(frozen=True)
class Looked:
    """A store of one target, what was found of its rows, and their inputs."""

    store: Store
    found: Scan
    inputs: RowInputs


def looked_at(
    stores: Mapping[str, Store], transfer: TransferSetConfig | None = None, *, every_label: bool = False
) -> dict[tuple[str, str], Looked]:
    """By split and target, in their order.

    Args:
        stores: sealed stores by split.
        transfer: where raw inputs are; None for those that the stores hold.
        every_label: look for label errors among all rows, however long it takes.
    """
    inputs = {split: inputs_of(store, transfer, split) for split, store in stores.items()}
    return {
        (split, target): Looked(own := store.only(target), scan(own, every_label=every_label), inputs[split])
        for split, store in stores.items()
        for target in store.targets
    }
