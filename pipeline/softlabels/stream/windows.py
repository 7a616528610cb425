"""The order of `order.py` as a torch sampler, for `dataset.py`: the rows of a window are wanted together, so that each chunk is
read once.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from softlabels.stream.order import Order


class Windows(Sampler[int]):
    """The numbers of examples, shuffled by windows; `SoftLabelDataset.windows` makes it.

    A pass that ends is followed by the next epoch. `set_epoch` chooses one, as accelerate, Lightning and `Trainer` do.
    """

    def __init__(self, order: Order, examples: int) -> None:
        self._order, self._examples, self._epoch = order, examples, 0

    def __len__(self) -> int:
        return self._examples

    def set_epoch(self, epoch: int) -> None:
        """Which one the next pass gives."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        number = self._epoch
        epoch = self._order.epoch(number)
        for window in range(epoch.windows):
            yield from epoch.window(window).tolist()
        self._epoch = number + 1
