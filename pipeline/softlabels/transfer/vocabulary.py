"""The tokens of a tokenizer, their number and the digest by which two of them are compared. Extra `[hf]`."""

from __future__ import annotations

import functools
import json
from typing import Any, Self

from blake3 import blake3

from softlabels.transfer.text import load_tokenizer


class Vocabulary:
    """The tokens of a tokenizer of transformers by their ids.

    Attributes:
        size: the largest id and one more, which is `len(tokenizer)` where no id is left out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._ids: dict[str, int] = tokenizer.get_vocab()
        self._added = frozenset(tokenizer.get_added_vocab())
        self.size = int(max(self._ids.values())) + 1
        self._digests: dict[int, str] = {}

    def digest(self, below: int | None = None) -> str:
        """blake3 (hex) over the canonical JSON (keys sorted, no spaces, UTF-8) of {token: id}, added tokens among them; of the
        tokens whose ids are `below` a number.
        """
        limit = self.size if below is None else min(below, self.size)
        if limit not in self._digests:
            tokens = {token: number for token, number in self._ids.items() if number < limit}
            words = json.dumps(tokens, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            self._digests[limit] = blake3(words.encode("utf-8", "surrogatepass")).hexdigest()
        return self._digests[limit]

    def only_added(self, first: int) -> bool:
        """Whether the tokens from id `first` on were all added, such as special tokens, which no text is cut into."""
        return all(token in self._added for token, number in self._ids.items() if number >= first)

    def name(self, number: int) -> str:
        """A token by its id; "" for none."""
        return next((token for token, own in self._ids.items() if own == number), "")

    def __deepcopy__(self, memo: object) -> Self:
        return self  # it never changes, and models keep one


@functools.lru_cache(maxsize=8)
def vocabulary_of(name: str, revision: str | None, digest: str) -> Vocabulary:
    """The vocabulary of a tokenizer's folder or hub id, made once; `digest` is that of its files, so that an edited folder is
    read again.
    """
    return Vocabulary(load_tokenizer(name, revision))
