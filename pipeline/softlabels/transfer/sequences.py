"""Rows of tokens for language models: texts tokenized, a separator after each, cut into rows of one length. Extra `[hf]`.

The rule. A text is tokenized without special tokens; the bos, where there is one, is put before it, and the separator's id
after it. A text of no tokens (such as an empty one) gives nothing, not even a separator, and is counted nowhere. With `pack`
the texts of a split are one stream in their order, cut into rows of L tokens; the last row may be shorter, and is kept. Without
it every text begins a row, and goes on in further rows where it is longer. A row that goes on with a text begins with the bos
too, as a document of its own, since what follows it is no beginning. A prepared row is int32 (2, L): token ids, and document
numbers 1, 2, ... inside the row (the rest of a text that began in the row before is document 1, behind a bos document 2);
beyond its last token both are 0.

A row's content key is over its own token ids, padding left out (`keys`: a token row). Its hard label is -1: what it predicts
are its own tokens, see `alignment`. Neighbour: `vocabulary` says what the tokens are. N tokens of a split, D texts with tokens,
R rows, L tokens a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from softlabels.errors import ConfigError, LabelError, TransferSetError
from softlabels.labels import NO_LABEL
from softlabels.names import renamed
from softlabels.objects import ObjectSpec
from softlabels.store.spec import Preprocessing
from softlabels.system.durable import system_errors
from softlabels.transfer.cache import FileRecord, NpyFile
from softlabels.transfer.config import SequencesConfig, TransferSetConfig
from softlabels.transfer.decode import Decoded
from softlabels.transfer.keys import content_keys
from softlabels.transfer.text import load_tokenizer, tokenizer_digest
from softlabels.transfer.vocabulary import Vocabulary, vocabulary_of

PACKAGES = ("tokenizers", "transformers")  # their versions decide the ids as well
_BLOCK_TOKENS = 1 << 22
_PROBES = ("a", "the", "0", ".", "\u3092")  # texts, of which a tokenizer knows at least one
TOKEN_ROWS = f"{__name__}.token_rows"  # what specifications call this rule
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SequenceInfo:
    """What rows of tokens are, for whoever labels or learns them.

    Attributes:
        length: L, tokens of a row.
        classes: C, the tokenizer's tokens: its largest id and one more; fewer where a model has outputs for the first C only.
        vocabulary: digest of these tokens, see `Vocabulary.digest`.
        bos: the token that begins every row, "" for none.
        words: the tokenizer's vocabulary, where it is at hand.
    """

    length: int
    classes: int
    vocabulary: str
    bos: str = ""
    words: Vocabulary | None = field(default=None, compare=False, repr=False)

    def below(self, classes: int) -> SequenceInfo:
        """The same of the first `classes` tokens, where there are more and the vocabulary is at hand."""
        if classes >= self.classes or self.words is None:
            return self
        return replace(self, classes=classes, vocabulary=self.words.digest(classes))

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
        bos: ids that begin a text, and a row; empty for none.
        recorded: how rows are made, as it is written down: a digest in place of the tokenizer's folder.
    """

    tokenizer: Any
    config: SequencesConfig
    info: SequenceInfo
    separator: int
    bos: tuple[int, ...]
    recorded: ObjectSpec


def open_tokenization(config: SequencesConfig) -> Tokenization:
    """Open the tokenizer that the recipe names.

    Raises:
        MissingExtra: transformers is not installed.
        ConfigError: no such tokenizer, or a separator or bos that is none of its tokens.
    """
    tokenizer = load_tokenizer(config.tokenizer, config.revision)
    digest = tokenizer_digest(config.tokenizer, config.revision)
    token = tokenizer.eos_token if config.separator is None else config.separator
    vocabulary = tokenizer.get_vocab()
    if token is None or token not in vocabulary:
        what = "has no eos token" if token is None else f"has no token {token!r}"
        raise ConfigError(
            f"the tokenizer {config.tokenizer} {what} to end a text with",
            remedy="give transfer_set.sequences.separator, one of its tokens",
        )
    words = vocabulary_of(config.tokenizer, config.revision, digest)
    bos = _habit(tokenizer, config.tokenizer) if config.bos == "auto" else _named_bos(config, vocabulary)
    if config.length < len(bos) + 2:
        raise ConfigError(
            f"rows of {config.length} tokens begin with {len(bos)}", remedy="raise transfer_set.sequences.length"
        )
    written = " ".join(tokenizer.convert_ids_to_tokens(list(bos)))
    arguments = {"tokenizer": digest, "length": config.length, "pack": config.pack, "separator": token}
    arguments |= {"bos": written} if bos else {}  # left out as in stores from before there was one
    info = SequenceInfo(config.length, words.size, words.digest(), written, words)
    return Tokenization(tokenizer, config, info, vocabulary[token], bos, ObjectSpec(TOKEN_ROWS, arguments))


def as_stored(config: TransferSetConfig, preprocessing: Preprocessing) -> TransferSetConfig:
    """The config whose rows begin as those of a store that is there already: where it says auto, what the store says decides,
    and a store that says nothing has no bos.
    """
    sequences = config.sequences
    if sequences is None or sequences.bos != "auto":
        return config
    return replace(config, sequences=replace(sequences, bos=stored_bos(preprocessing) or "none"))


def stored_bos(preprocessing: Preprocessing) -> str | None:
    """What begins the rows of a store, "" for nothing; None where something else than this module made them."""
    if renamed(preprocessing.function) != TOKEN_ROWS:
        return None
    return str(preprocessing.arguments.get("bos", ""))


def _habit(tokenizer: Any, name: str) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text of its own accord."""
    for text in _PROBES:
        plain, whole = tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer(text)["input_ids"]
        if len(plain):
            for start in range(len(whole) - len(plain) + 1):
                if whole[start : start + len(plain)] == plain:
                    return tuple(whole[:start])
            break
    raise ConfigError(
        f"the token that the tokenizer {name} puts before a text is unclear: it splits {text!r} otherwise with special tokens",
        remedy="give transfer_set.sequences.bos: a token, or none",
    )


def _named_bos(config: SequencesConfig, vocabulary: dict[str, int]) -> tuple[int, ...]:
    """The ids of the recipe's own token; of several with spaces between."""
    if config.bos == "none":
        return ()
    tokens = [config.bos] if config.bos in vocabulary else config.bos.split()
    for token in tokens:
        if token not in vocabulary:
            raise ConfigError(
                f"the tokenizer {config.tokenizer} has no token {token!r} to begin a text with",
                remedy="give transfer_set.sequences.bos: one of its tokens, auto or none",
            )
    return tuple(vocabulary[token] for token in tokens)


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
    bos = tokenization.bos
    starts, stops = row_bounds(ends, length=length, pack=tokenization.config.pack, lead=len(bos))
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
            block = token_rows(tokens, ends, starts[part], stops[part], length=length, bos=bos)
            inputs.append(block)
            own = [ids[document > 0] for ids, document in block]
            keys.append(content_keys([Decoded(own)]))
            labels.append(np.full(len(own), NO_LABEL, np.int64))
        records = [file.finish() for file in (inputs, keys, labels)]
    del tokens
    scratch.unlink()
    return records, {"empty": texts - len(ends)}


def row_bounds(
    ends: npt.NDArray[np.int64], *, length: int, pack: bool, lead: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First token of each row and one past its last, (R,) each, from one past the last token of each text (D,). Rows that go on
    with a text leave room for `lead` tokens before it.
    """
    if pack:
        starts = _packed(ends, length, lead)
        return starts, np.append(starts[1:], ends[-1])
    begins = np.concatenate([[0], ends[:-1]])
    counts = 1 + np.maximum(0, -(-(ends - begins - length) // (length - lead)))  # rows of each text
    first = np.repeat(np.cumsum(counts) - counts, counts)  # the first row of the text that a row belongs to
    number = np.arange(counts.sum()) - first
    starts = np.repeat(begins, counts) + number * (length - lead) + np.minimum(number, 1) * lead
    stops = starts + np.where(number == 0, length, length - lead)
    return starts, np.minimum(stops, np.repeat(ends, counts))


def _packed(ends: npt.NDArray[np.int64], length: int, lead: int) -> npt.NDArray[np.int64]:
    """First token of each row of one stream."""
    if lead == 0:
        return np.arange(0, ends[-1], length, dtype=np.int64)
    starts, at, total = [], 0, int(ends[-1])
    while at < total:
        starts.append(at)
        at += length if _begins_text(ends, np.int64(at)) else length - lead
    return np.array(starts, np.int64)


def _begins_text(ends: npt.NDArray[np.int64], at: Any) -> Any:
    """Whether a text begins with the tokens `at`."""
    text = np.searchsorted(ends, at, side="right")
    return np.where(text > 0, ends[text - 1], 0) == at


def token_rows(
    tokens: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    *,
    length: int,
    bos: tuple[int, ...] = (),
) -> Tokens:
    """Prepared rows (B, 2, L) of the tokens (N,) from `starts` (B,) to `stops` (B,); texts end at `ends` (D,). Rows that go on
    with a text begin with `bos`.
    """
    lead = np.where(_begins_text(ends, starts), 0, len(bos))[:, None]
    places = starts[:, None] + np.arange(length) - lead
    real, inside = places < stops[:, None], np.arange(length) < lead
    text = np.searchsorted(ends, places, side="right")  # number of the text that a token belongs to
    first = np.searchsorted(ends, starts, side="right")[:, None]
    rows = np.zeros((len(starts), 2, length), np.int32)
    rows[:, 0] = np.where(real, tokens[np.clip(places, 0, len(tokens) - 1)], 0)
    rows[:, 1] = np.where(real, text - first + 1 + (lead > 0), 0)
    if bos:
        rows[:, 0, : len(bos)] = np.where(inside[:, : len(bos)], bos, rows[:, 0, : len(bos)])
        rows[:, 1][inside] = 1
    return rows


def require_known_tokens(name: str, inputs: npt.NDArray[np.generic], sequence: SequenceInfo, classes: int) -> None:
    """Raise `LabelError` where a row (R, 2, L) of `name` holds a token that none of `classes` outputs stands for."""
    if classes >= sequence.classes:
        return
    step = max(1, _BLOCK_TOKENS // sequence.length)
    for start in range(0, len(inputs), step):
        block = np.asarray(inputs[start : start + step])
        strange = (block[:, 0] >= classes) & (block[:, 1] > 0)
        if strange.any():
            row, place = (int(number) for number in np.argwhere(strange)[0])
            token = int(block[row, 0, place])
            word = "" if sequence.words is None else f" ({sequence.words.name(token)!r})"
            raise LabelError(
                f"row {start + row} of {name} holds token {token}{word} at place {place}, and the teacher has outputs for the "
                f"first {classes} of the tokenizer's {sequence.classes} tokens",
                remedy="leave texts with such tokens out, or give a teacher that has an output for them",
            )


def _write_tokens(
    tokenization: Tokenization, blocks: Iterable[Decoded], path: Path, *, texts: int, title: str
) -> npt.NDArray[np.int64]:
    """Write every token (N,) int32 to `path`, separators among them; one past the last token of each text (D,)."""
    ends: list[npt.NDArray[np.int64]] = []
    total = 0
    with tqdm(total=texts, desc=title, unit="text", delay=2, disable=None) as progress:
        for block in blocks:
            rows = block.rows()
            found = _tokenize(tokenization.tokenizer, rows)
            parts = [[*tokenization.bos, *ids, tokenization.separator] for ids in found if len(ids)]
            if parts:
                with system_errors("write", path), path.open("ab") as file:
                    file.write(np.concatenate([np.asarray(part, np.int32) for part in parts]).data)
                ends.append(total + np.cumsum([len(part) for part in parts], dtype=np.int64))
                total = int(ends[-1][-1])
            progress.update(len(rows))
    return np.concatenate(ends) if ends else np.zeros(0, np.int64)


def _tokenize(tokenizer: Any, texts: Sequence[object]) -> list[list[int]]:
    """The ids of each text, without special tokens."""
    if not all(isinstance(text, str) for text in texts):
        raise TransferSetError("token rows are made of text", remedy="name one column of text in transfer_set.inputs")
    found: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, truncation=False, verbose=False
    )["input_ids"]
    return found
