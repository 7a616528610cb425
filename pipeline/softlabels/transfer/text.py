"""Text to token ids with a Hugging Face tokenizer: the prepare function of a text recipe. Extra `[hf]`.

B batch, K arrays that the tokenizer gives (input ids, where it makes them token types, attention mask), L tokens.
Neighbours: `tokenizer` trains one, `softlabels.models.hf` takes what stands here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from softlabels.errors import ConfigError, TransferSetError
from softlabels.transfer.file_arguments import file_digest, reads_files
from softlabels.transfer.prepare import Row
from softlabels.transfer.pretrained import load_from, matching, one_line, pretrained_folder

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "*.model", "*.spm",
)  # fmt: skip
_NO_LIMIT = 1_000_000  # tokenizers that know no limit say 10^30


def _digests(*, tokenizer: str, max_length: int | None = None, revision: str | None = None) -> dict[str, str | None]:
    """Of the arguments of `tokenize`."""
    return {"tokenizer": tokenizer_digest(tokenizer, revision), "revision": None}


@reads_files(_digests, packages=("tokenizers", "transformers"))
def tokenize(
    rows: Sequence[Row], *, tokenizer: str, max_length: int | None = None, revision: str | None = None
) -> npt.NDArray[np.int32]:
    """Texts, or pairs of texts, as the tokenizer's ids, cut and padded to one length: (B, K, L) int32.

    K holds, in this order, input_ids, token_type_ids where the tokenizer makes them, attention_mask (1 = a token of the row,
    0 = padding). What a row's logits are does not depend on how long the padding is.

    Args:
        rows: texts, or with two input columns (text, second text); None, a missing one, is an empty text.
        tokenizer: folder or hub id of a Hugging Face tokenizer or model.
        max_length: L; by default what the tokenizer says is its model's limit.
        revision: branch, tag or commit on the hub.

    Raises:
        MissingExtra: transformers is not installed.
        ConfigError: no such tokenizer, no max_length where the tokenizer knows none, or it cannot pad.
        TransferSetError: rows that are no text, or a text of no tokens.

    Example:
        >>> from softlabels.transfer import tokenize
        >>> words = PreTrainedTokenizerFast.from_pretrained("tokenizer", pad_token="w0")
        >>> folder = words.save_pretrained("padded")
        >>> tokenize(["w1 w2 w3", "w4"], tokenizer="padded", max_length=4)[1].tolist()  # ids and attention mask
        [[4, 0, 0, 0], [1, 0, 0, 0]]
    """
    given = load_tokenizer(tokenizer, revision)
    tuples = [row if isinstance(row, tuple) else (row,) for row in rows]
    texts = [tuple("" if part is None else part for part in row) for row in tuples]
    if any(len(row) > 2 or not all(isinstance(part, str) for part in row) for row in texts):
        raise TransferSetError(
            "tokenize takes one or two columns of text", remedy="name text columns in inputs, or set another prepare"
        )
    columns = [list(column) for column in zip(*texts, strict=True)]
    types = "token_type_ids" in given.model_input_names
    try:
        found = given(
            *columns,
            padding="max_length",
            truncation=True,
            max_length=_length(given, tokenizer, max_length),
            return_attention_mask=True,
            return_token_type_ids=types,
            return_tensors="np",
        )
    except ValueError as error:  # no padding token, or a pair that cannot be cut so short
        raise ConfigError(
            f"the tokenizer {tokenizer} cannot prepare these rows: {one_line(error)}",
            remedy="give a tokenizer with a padding token, and max_length above its special tokens",
        ) from error
    names = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    empty = np.flatnonzero(~found["attention_mask"].any(axis=1))
    if empty.size:
        raise TransferSetError(
            f"the text {texts[empty[0]][0]!r} has no tokens",
            remedy="filter such rows out, or use a tokenizer with [CLS]",
        )
    return np.stack([np.asarray(found[name], np.int32) for name in names], axis=1)


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub id, a transformers object. Raises `ConfigError`, `MissingExtra`."""
    folder = _folder(name, revision)
    return load_from(str(folder), "AutoTokenizer", "tokenizer", _digest(folder))


def tokenizer_digest(name: str, revision: str | None = None) -> str:
    """Digest of the files of a tokenizer (folder or hub id) that decide the ids. Raises `ConfigError`, `MissingExtra`."""
    return _digest(_folder(name, revision))


def _folder(name: str, revision: str | None) -> Path:
    train = (
        "copy the folder of the tokenizer that the teacher was trained with; for a new teacher train-teacher makes one "
        "(section tokenizer of a recipe)"
    )
    try:
        folder = pretrained_folder(name, revision=revision, patterns=(*FILES, "config.json"))
    except ConfigError as error:
        raise ConfigError(error.what, remedy=f"{error.remedy}; {train}") from error
    if not matching(folder, FILES):
        raise ConfigError(f"there is no tokenizer in {name}", remedy=f"name a folder with tokenizer.json; {train}")
    return folder


def _digest(folder: Path) -> str:
    """Digest of the files that decide the ids. Of config.json, which models share with weights, what names the class."""
    digest = file_digest(*matching(folder, FILES))
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return digest
    kind = ".".join(str(config[key]) for key in ("model_type", "tokenizer_class") if config.get(key))
    return f"{digest}.{kind}" if kind else digest


def _length(tokenizer: Any, name: str, max_length: int | None) -> int:
    length = tokenizer.model_max_length if max_length is None else max_length
    if not isinstance(length, int) or not 1 <= length < _NO_LIMIT:
        known = "the tokenizer knows no limit" if max_length is None else f"max_length is {max_length}"
        raise ConfigError(f"{name}: {known}", remedy="give prepare.init_args.max_length, the tokens of a row")
    return length
