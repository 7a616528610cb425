"""What the classes of a language model are called: the tokens of its recipe's tokenizer, as they read in a text."""

from __future__ import annotations

from typing import Any

from softlabels.errors import UserError, one_line
from softlabels.store import Store
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.sequences import open_tokenization

_SEEN = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
_PART = "\ufffd"  # of a letter


class TokenNames:
    """Names by number: blanks are drawn, and one that is no whole letter, or that the tokenizer lacks, is `token 163`."""

    def __init__(self, tokenizer: Any, known: int, classes: int) -> None:
        self._tokenizer, self._known, self._classes = tokenizer, known, classes

    def __len__(self) -> int:
        return self._classes

    def __getitem__(self, number: int) -> str:
        word = ""
        if number < self._known:
            word = self._tokenizer.decode([int(number)], clean_up_tokenization_spaces=False)
        name = one_line(word.translate(_SEEN), 60)
        return name if name and _PART not in name else f"token {number}"


def token_names(store: Store, transfer: TransferSetConfig | None) -> TokenNames | None:
    """Those of a store of tokens; None of another one, and where no recipe names its tokenizer."""
    if transfer is None or transfer.sequences is None or not store.spec.of_tokens or len(store.targets) > 1:
        return None
    try:
        opened = open_tokenization(transfer.sequences)
    except UserError:  # which the section of its rows says
        return None
    same = opened.info.below(store.classes).vocabulary == store.spec.label_space.vocabulary
    return TokenNames(opened.tokenizer, opened.info.classes, store.classes) if same else None
