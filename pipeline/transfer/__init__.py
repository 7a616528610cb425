"""The transfer set: the rows that the teacher labels, their content keys and their prepared inputs.

config -> `source` opens a split -> `decode` and `images` give values -> `keys` hash them, `prepare` shapes them,
`hard_labels` reads the labels (or `sequences` makes rows of tokens of texts) -> `cache` keeps all three -> `rows` hands them
out. No torch, no soft labels.
"""

from pipeline.transfer.config import TransferSetConfig
from pipeline.transfer.keys import array_keys
from pipeline.transfer.rows import TransferRows, load_transfer_set

__all__ = ["TransferRows", "TransferSetConfig", "array_keys", "load_transfer_set"]
