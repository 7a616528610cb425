"""Rows of tokens for language models: texts tokenized, a separator after each, cut into rows of one length. Extra `[hf]`.

The rule. A text is tokenized without special tokens, and the separator's id is appended to it. A text of no tokens (such as
an empty one) gives nothing, not even a separator, and is counted nowhere. With `pack` the texts of a split are one stream in
their order, cut every L tokens; the last row may be shorter, and is kept. Without it every text begins a row, and goes on in
further rows where it is longer. A prepared row is int32 (2, L): token ids, and document numbers 1, 2, ... inside the row (the
rest of a text that began in the row before is document 1); beyond its last token both are 0.

A row's content key is over its own token ids, padding left out (`keys`: a token row). Its hard label is -1: what it predicts
are its own tokens, see `alignment`. N tokens of a split, D texts with tokens, R rows, L tokens a row.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from tqdm import tqdm

from softlabels.errors import ConfigError, TransferSetError
from softlabels.labels import NO_LABEL
from softlabels.objects import ObjectSpec
from softlabels.system.durable import system_errors
from softlabels.transfer.cache import FileRecord, NpyFile
from softlabels.transfer.config import SequencesConfig
from softlabels.transfer.decode import Decoded
from softlabels.transfer.keys import content_keys
from softlabels.transfer.text import load_tokenizer, tokenizer_digest

PACKAGES = ("tokenizers", "transformers")  # their versions decide the ids as well
_BLOCK_TOKENS = 1 << 22
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SequenceInfo:
    """What rows of tokens are, for whoever labels or learns them.

    Attributes:
        length: L, tokens of a row.
        classes: C, the tokenizer's tokens: its largest id and one more.
        vocabulary: digest of the tokenizer's vocabulary, see `vocabulary_digest`.
    """

    length: int
    classes: int
    vocabulary: str

    @property
    def positions(self) -> int:
        """P = L - 1, the distributions of a row."""
        return self.length - 1


@dataclass(frozen=True)
class Tokenization:
    """An opened tokenizer and how its tokens become rows.

    Attributes:
        tokenizer: of transformers.
        config: what the recipe says.
        info: of the rows.
        separator: id of the token that ends a text.
        recorded: how rows are made, as it is written down: a digest in place of the tokenizer's folder.
    """

    tokenizer: Any
    config: SequencesConfig
    info: SequenceInfo
    separator: int
    recorded: ObjectSpec


def vocabulary_digest(tokenizer: Any) -> str:
    """blake3 (hex) over the canonical JSON (keys sorted, no spaces, UTF-8) of {token: id}, added tokens among them."""
    words = json.dumps(tokenizer.get_vocab(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake3(words.encode("utf-8", "surrogatepass")).hexdigest()


def vocabulary_size(tokenizer: Any) -> int:
    """C: the largest id of a token and one more, which is `len(tokenizer)` where no id is left out."""
    return int(max(tokenizer.get_vocab().values())) + 1


def open_tokenization(config: SequencesConfig) -> Tokenization:
    """Open the tokenizer that the recipe names.

    Raises:
        MissingExtra: transformers is not installed.
        ConfigError: no such tokenizer, or a separator that is none of its tokens.
    """
    tokenizer, digest = (
        load_tokenizer(config.tokenizer, config.revision),
        tokenizer_digest(config.tokenizer, config.revision),
    )
    token = tokenizer.eos_token if config.separator is None else config.separator
    vocabulary = tokenizer.get_vocab()
    if token is None or token not in vocabulary:
        what = "has no eos token" if token is None else f"has no token {token!r}"
        raise ConfigError(
            f"the tokenizer {config.tokenizer} {what} to end a text with",
            remedy="give transfer_set.sequences.separator, one of its tokens",
        )
    arguments = {"tokenizer": digest, "length": config.length, "pack": config.pack, "separator": token}
    info = SequenceInfo(config.length, *vocabulary_of(config.tokenizer, config.revision, digest))
    return Tokenization(
        tokenizer, config, info, vocabulary[token], ObjectSpec(f"{__name__}.{token_rows.__name__}", arguments)
    )


@functools.lru_cache(maxsize=8)
def vocabulary_of(name: str, revision: str | None, digest: str) -> tuple[int, str]:
    """Number of tokens of a tokenizer and the digest of its vocabulary, found once; `digest` is that of the tokenizer's files,
    so that an edited folder is read again.
    """
    tokenizer = load_tokenizer(name, revision)
    return vocabulary_size(tokenizer), vocabulary_digest(tokenizer)


def write_sequences(
    tokenization: Tokenization, blocks: Iterable[Decoded], folder: Path, *, texts: int, title: str
) -> tuple[list[FileRecord], dict[str, Any]]:
    """Write inputs.npy (R, 2, L), keys.npy and labels.npy of the texts in `blocks`, `texts` of them. Their records, and how
    many texts had no tokens (`empty`).

    Tokens go to a file first, since the number of rows is known only at their end: memory holds one block, and the keys.

    Raises:
        TransferSetError: rows that are no text, or no tokens at all. DiskFull, StorageError.
    """
    length, scratch = tokenization.config.length, folder / "tokens"
    ends = _write_tokens(tokenization, blocks, scratch, texts=texts, title=title)
    if not len(ends):
        raise TransferSetError("the texts have no tokens", remedy="name the column that holds texts in inputs")
    starts, stops = row_bounds(ends, length=length, pack=tokenization.config.pack)
    with system_errors("read", scratch):
        tokens = np.memmap(scratch, np.int32, "r")
    with ExitStack() as stack:
        inputs, keys, labels = [
            stack.enter_context(NpyFile(folder / f"{name}.npy", rows=len(starts)))
            for name in ("inputs", "keys", "labels")
        ]
        step = max(1, _BLOCK_TOKENS // length)
        for first in range(0, len(starts), step):
            part = slice(first, first + step)
            inputs.append(token_rows(tokens, ends, starts[part], stops[part], length=length))
            own = [np.asarray(tokens[a:b]) for a, b in zip(starts[part], stops[part], strict=True)]
            keys.append(content_keys([Decoded(own)]))
            labels.append(np.full(len(own), NO_LABEL, np.int64))
        records = [file.finish() for file in (inputs, keys, labels)]
    del tokens
    scratch.unlink()
    return records, {"empty": texts - len(ends)}


def row_bounds(
    ends: npt.NDArray[np.int64], *, length: int, pack: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First token of each row and one past its last, (R,) each, from one past the last token of each text (D,)."""
    if pack:
        starts = np.arange(0, ends[-1], length, dtype=np.int64)
        return starts, np.minimum(starts + length, ends[-1])
    begins = np.concatenate([[0], ends[:-1]])
    counts = -(-(ends - begins) // length)  # rows of each text
    first = np.repeat(np.cumsum(counts) - counts, counts)  # the first row of the text that a row belongs to
    starts = np.repeat(begins, counts) + (np.arange(counts.sum()) - first) * length
    return starts, np.minimum(starts + length, np.repeat(ends, counts))


def token_rows(
    tokens: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    *,
    length: int,
) -> Tokens:
    """Prepared rows (B, 2, L) of the tokens (N,) from `starts` (B,) to `stops` (B,); texts end at `ends` (D,)."""
    places = starts[:, None] + np.arange(length)
    real = places < stops[:, None]
    text = np.searchsorted(ends, places, side="right")  # number of the text that a token belongs to
    rows = np.zeros((len(starts), 2, length), np.int32)
    rows[:, 0] = np.where(real, tokens[np.minimum(places, len(tokens) - 1)], 0)
    rows[:, 1] = np.where(real, text - text[:, :1] + 1, 0)
    return rows


def _write_tokens(
    tokenization: Tokenization, blocks: Iterable[Decoded], path: Path, *, texts: int, title: str
) -> npt.NDArray[np.int64]:
    """Write every token (N,) int32 to `path`, separators among them; one past the last token of each text (D,)."""
    ends: list[npt.NDArray[np.int64]] = []
    total = 0
    with ExitStack() as stack, tqdm(total=texts, desc=title, unit="text", delay=2, disable=None) as progress:
        with system_errors("create", path):
            file = stack.enter_context(path.open("wb"))
        for block in blocks:
            rows = block.rows()
            parts = [[*ids, tokenization.separator] for ids in _tokenize(tokenization.tokenizer, rows) if len(ids)]
            if parts:
                with system_errors("write", path):
                    file.write(np.concatenate([np.asarray(part, np.int32) for part in parts]).data)
                ends.append(total + np.cumsum([len(part) for part in parts], dtype=np.int64))
                total = int(ends[-1][-1])
            progress.update(len(rows))
        with system_errors("write", path):
            file.flush()
    return np.concatenate(ends) if ends else np.zeros(0, np.int64)


def _tokenize(tokenizer: Any, texts: Sequence[object]) -> list[list[int]]:
    """The ids of each text, without special tokens."""
    if not all(isinstance(text, str) for text in texts):
        raise TransferSetError("token rows are made of text", remedy="name one column of text in transfer_set.inputs")
    found: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, truncation=False, verbose=False
    )["input_ids"]
    return found
