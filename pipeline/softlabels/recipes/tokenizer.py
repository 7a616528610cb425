"""A tokenizer trained on a transfer set's own texts, for where none can be downloaded. Extra `[hf]`.

Two kinds, both in the two files that `AutoTokenizer.from_pretrained` opens: lower-cased WordPiece with BERT's rules for words,
for classifiers, and byte-level BPE with GPT-2's, for language models: every text is tokens and can be had back from them. The
same texts give the same bytes. `transfer.text` and `transfer.sequences` use it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from softlabels.errors import TransferSetError
from softlabels.objects import require_extra
from softlabels.recipes.tokenizer_config import TokenizerConfig
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.fill import blocks
from softlabels.transfer.pretrained import whole_folder
from softlabels.transfer.source import open_split

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # WordPiece's ids 0 to 4
END_OF_TEXT = "<|endoftext|>"  # id 0 of byte-level BPE: begins and ends texts, and pads
_BYTES = 256
_MOST_LETTERS = 1000
Corpus = Callable[[], Iterator[str]]


def named_tokenizer(transfer_set: TransferSetConfig) -> str | None:
    """The tokenizer that a transfer set names, in its sequences or among the arguments of prepare; None where it names none."""
    if transfer_set.sequences is not None:
        return transfer_set.sequences.tokenizer
    name = transfer_set.prepare.init_args.get("tokenizer")
    return name if isinstance(name, str) else None


def ensure_tokenizer(config: TokenizerConfig | None, transfer_set: TransferSetConfig, *, split: str = "train") -> bool:
    """Train the tokenizer that the transfer set names, on the texts of `split`, unless it is there.

    Returns:
        Whether it was trained now. Nothing is done where `config` is None or the transfer set names no tokenizer.

    Raises:
        MissingExtra: the package tokenizers is not installed. TransferSetError: input columns that are no text.
        DiskFull, StorageError: nothing half written is left under its name.
    """
    name = named_tokenizer(transfer_set)
    if config is None or name is None or Path(name).expanduser().is_dir():
        return False
    folder = Path(name).expanduser()
    train = _train_wordpiece if config.kind == "wordpiece" else _train_bpe
    trained, tokens = train(config, lambda: texts(transfer_set, split))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        **tokens,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    files = {"tokenizer.json": trained.to_str(pretty=True), "tokenizer_config.json": json.dumps(settings, indent=2)}
    with whole_folder(folder) as part:
        for file, text in files.items():
            (part / file).write_text(f"{text}\n", encoding="utf-8")
    return True


def texts(transfer_set: TransferSetConfig, split: str) -> Iterator[str]:
    """Every text of the input columns of one split, row by row; missing ones are left out."""
    source = open_split(transfer_set, split)
    for _, _, columns in blocks(transfer_set, source):
        for row in zip(*(column.values for column in columns), strict=True):
            for name, text in zip(transfer_set.inputs, row, strict=True):
                if text is None:
                    continue
                if not isinstance(text, str):
                    raise TransferSetError(
                        f"input column {name!r} is no text: there is nothing to train a tokenizer on",
                        remedy="name text columns in inputs, or drop the section tokenizer",
                    )
                yield text


def _train_bpe(config: TokenizerConfig, corpus: Corpus) -> tuple[Any, dict[str, str]]:
    """The trained tokenizer, an object of the package tokenizers, and its special tokens by what they are for.

    Its letters are the 256 bytes, numbered in one order, and equal counts are told apart by number: the same in every process.
    """
    tokenizers = require_extra("tokenizers", extra="hf")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.train_from_iterator(
        corpus(),
        tokenizers.trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return made, dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)


def _train_wordpiece(config: TokenizerConfig, corpus: Corpus) -> tuple[Any, dict[str, str]]:
    """As `_train_bpe`; the corpus is read twice.

    The package numbers letters inside words (##a) in the order of a hash table that differs from process to process, and
    breaks ties by number. So they are numbered here, as special tokens, and the vocabulary goes into a tokenizer without
    them.
    """
    tokenizers = require_extra("tokenizers", extra="hf")
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=config.lowercase)
    counts = Counter(letter for text in corpus() for letter in normalizer.normalize_str(text) if not letter.isspace())
    most = max(1, (config.vocab_size - len(SPECIAL)) // 4)  # each stands there twice, as a word's first and as ##
    letters = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[: min(most, _MOST_LETTERS)])
    numbered = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    learner = _tokenizer(tokenizers, normalizer, {})
    learner.train_from_iterator(
        corpus(),
        tokenizers.trainers.WordPieceTrainer(
            vocab_size=config.vocab_size,
            special_tokens=numbered,
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            show_progress=False,
        ),
    )
    made = _tokenizer(tokenizers, normalizer, learner.get_vocab(with_added_tokens=True))
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{START} $A {END}",
        pair=f"{START} $A {END} $B:1 {END}:1",
        special_tokens=[(token, made.token_to_id(token)) for token in (START, END)],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return made, dict(zip(names, SPECIAL, strict=True))


def _tokenizer(tokenizers: Any, normalizer: Any, vocabulary: dict[str, int]) -> Any:
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN))
    made.normalizer = normalizer
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    return made
