"""A tokenizer trained on a transfer set's own texts, for where none can be downloaded. Extra `[hf]`.

Lower-cased WordPiece with BERT's rules for words, in the two files that `AutoTokenizer.from_pretrained` opens. The same
texts give the same bytes. Neighbour: `text` uses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, TransferSetError
from pipeline.objects import require_extra
from pipeline.transfer.config import TransferSetConfig
from pipeline.transfer.decode import decode
from pipeline.transfer.pretrained import whole_folder
from pipeline.transfer.source import open_split

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
_BLOCK_ROWS = 1000


@dataclass(frozen=True)
class TokenizerConfig:
    """A tokenizer to train where the folder that transfer_set.prepare names is not there.

    Attributes:
        vocab_size: tokens, the five special ones among them; fewer where the texts have no more.
        lowercase: whether capitals are made small and accents dropped.
        max_length: the longest row that models with this tokenizer are meant for.
    """

    vocab_size: int = 8192
    lowercase: bool = True
    max_length: int = 512

    def __post_init__(self) -> None:
        for name, least in (("vocab_size", len(SPECIAL) + 1), ("max_length", 3)):
            if getattr(self, name) < least:
                raise ConfigError(f"tokenizer.{name} is {getattr(self, name)}", remedy=f"give {least} or more")


def ensure_tokenizer(config: TokenizerConfig | None, transfer_set: TransferSetConfig, *, split: str = "train") -> bool:
    """Train the tokenizer that the transfer set's prepare function names, on the texts of `split`, unless it is there.

    Returns:
        Whether it was trained now. Nothing is done where `config` is None or prepare names no tokenizer.

    Raises:
        MissingExtra: the package tokenizers is not installed. TransferSetError: input columns that are no text.
        DiskFull, StorageError: nothing half written is left under its name.
    """
    name = transfer_set.prepare.init_args.get("tokenizer")
    if config is None or not isinstance(name, str) or Path(name).expanduser().is_dir():
        return False
    folder = Path(name).expanduser()
    trained = _train(config, texts(transfer_set, split))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)),
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    files = {"tokenizer.json": trained.to_str(pretty=True), "tokenizer_config.json": json.dumps(settings, indent=2)}
    with whole_folder(folder) as part:
        for file, text in files.items():
            (part / file).write_text(f"{text}\n", encoding="utf-8")
    return True


def texts(transfer_set: TransferSetConfig, split: str) -> Iterator[str]:
    """Every text of the input columns of one split, row by row."""
    source = open_split(transfer_set, split)
    for start in range(0, source.rows, _BLOCK_ROWS):
        table = source.block(start, min(start + _BLOCK_ROWS, source.rows))
        columns = [decode(table.column(name), name=name, start=start).values for name in transfer_set.inputs]
        for row in zip(*columns, strict=True):
            for name, text in zip(transfer_set.inputs, row, strict=True):
                if not isinstance(text, str):
                    raise TransferSetError(
                        f"input column {name!r} is no text: there is nothing to train a tokenizer on",
                        remedy="name text columns in inputs, or drop the section tokenizer",
                    )
                yield text


def _train(config: TokenizerConfig, corpus: Iterator[str]) -> Any:
    tokenizers = require_extra("tokenizers", extra="hf")
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=UNKNOWN))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=config.lowercase)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=config.vocab_size, special_tokens=list(SPECIAL), show_progress=False
    )
    made.train_from_iterator(corpus, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{START} $A {END}",
        pair=f"{START} $A {END} $B:1 {END}:1",
        special_tokens=[(token, made.token_to_id(token)) for token in (START, END)],
    )
    return made
