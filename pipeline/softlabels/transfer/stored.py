"""A recipe whose rows are to be as those of a store that is there already: what it leaves open, the store decides."""

from __future__ import annotations

from dataclasses import replace

from softlabels.names import renamed
from softlabels.objects import ObjectSpec
from softlabels.store.spec import Preprocessing
from softlabels.transfer import sequences
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.tabular import TABLE
from softlabels.transfer.tabular_fit import is_unfitted


def as_stored(config: TransferSetConfig, preprocessing: Preprocessing) -> TransferSetConfig:
    """The config with the store's own beginning of rows of tokens, and with what its table knew of the columns."""
    prepare, arguments = config.prepare, preprocessing.arguments
    if is_unfitted(prepare) and renamed(preprocessing.function) == TABLE:
        asked = {name: value for name, value in arguments.items() if name != "columns"}
        if asked == {name: [*value] for name, value in prepare.init_args.items() if value is not None}:
            return replace(config, prepare=ObjectSpec(TABLE, arguments))
    return sequences.as_stored(config, preprocessing)
