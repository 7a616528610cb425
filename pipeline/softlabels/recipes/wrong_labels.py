"""Rows some of whose training labels are wrong, as those of hasty annotators: a factory of transfer sets (recipe `forest`)."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from softlabels.errors import ConfigError
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.source import open_split


def wrong_labels(
    *, split: str, source: str, share: float, inputs: tuple[str, ...] = ("image",), label: str = "label", seed: int = 0
) -> Dataset:
    """The rows of one split, of `train` a share of them with another class, drawn evenly from the others.

    Args:
        split: split of the source; of others than train all labels stay right.
        source: as transfer_set.source.
        share: of the training rows, from 0 to 1.
        inputs: as transfer_set.inputs.
        label: the column of classes, numbered from 0.
        seed: of which rows, and which classes.

    Raises:
        ConfigError: no such share. TransferSetError: there is no such source, split or column.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share}", remedy="give a number from 0 to 1")
    config = TransferSetConfig(source=source, inputs=tuple(inputs), label=label, splits={"_": split})
    data = open_split(config, "_").data
    right = np.asarray(data[label], np.int64)
    if split != "train":
        return data
    random, classes = np.random.default_rng(seed), int(right.max()) + 1
    is_wrong = random.permutation(len(right)) < round(share * len(right))
    found = np.where(is_wrong, (right + random.integers(1, classes, len(right))) % classes, right)
    return data.remove_columns(label).add_column(label, found.tolist(), feature=data.features[label])
