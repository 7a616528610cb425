"""The transfer set: the rows that the teacher labels, their content keys and their prepared inputs.

config -> `source` opens a split -> `decode` and `images` give values -> `keys` hash them, `prepare` shapes them,
`label_columns` reads the labels (or `sequences` makes rows of tokens of texts) -> `cache` keeps all three -> `rows` hands
them out. No torch, no soft labels. Prepare functions that ship: `stack`, `scale`, `image`, `resize`, `vector`, `table`,
`audio`, `tokenize`, `vision.process`.
Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softlabels.lazy import exports

if TYPE_CHECKING:
    from softlabels.transfer.config import TransferSetConfig as TransferSetConfig
    from softlabels.transfer.keys import array_keys as array_keys
    from softlabels.transfer.pictures import resize as resize
    from softlabels.transfer.prepare import image as image
    from softlabels.transfer.prepare import scale as scale
    from softlabels.transfer.prepare import stack as stack
    from softlabels.transfer.prepare import vector as vector
    from softlabels.transfer.rows import TransferRows as TransferRows
    from softlabels.transfer.rows import load_transfer_set as load_transfer_set
    from softlabels.transfer.sound import audio as audio
    from softlabels.transfer.sound import waveform as waveform
    from softlabels.transfer.tabular import table as table
    from softlabels.transfer.text import tokenize as tokenize

if not TYPE_CHECKING:  # a type checker that knew of it would take every name for one that is there
    __getattr__ = exports(__name__)
