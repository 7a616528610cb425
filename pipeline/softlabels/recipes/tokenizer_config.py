"""What a recipe says of a tokenizer that is trained for it. Neighbour: `tokenizer` trains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from softlabels.errors import ConfigError

LEAST_TOKENS = {"wordpiece": 6, "bpe": 257}  # the special tokens and one; the bytes and one


@dataclass(frozen=True)
class TokenizerConfig:
    """A tokenizer to train where the folder that transfer_set.prepare or transfer_set.sequences names is not there.

    Attributes:
        kind: wordpiece (BERT's, for classifiers), or bpe (GPT-2's byte-level BPE, for language models).
        vocab_size: tokens, the special ones among them; fewer where the texts have no more.
        lowercase: whether capitals are made small and accents dropped; bpe keeps texts as they are.
        max_length: the longest row that models with this tokenizer are meant for.
    """

    kind: Literal["wordpiece", "bpe"] = "wordpiece"
    vocab_size: int = 8192
    lowercase: bool = True
    max_length: int = 512

    def __post_init__(self) -> None:
        least = LEAST_TOKENS[self.kind]
        for name, smallest in (("vocab_size", least), ("max_length", 3)):
            if getattr(self, name) < smallest:
                raise ConfigError(f"tokenizer.{name} is {getattr(self, name)}", remedy=f"give {smallest} or more")
