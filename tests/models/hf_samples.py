"""Small Hugging Face checkpoints, tokenizers and image processors, made on the spot: nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from softlabels.objects import ObjectSpec
from softlabels.recipes.tokenizer import TokenizerConfig, ensure_tokenizer
from softlabels.transfer import TransferSetConfig

CLASSES = 3
NAMES = ("bird", "fish", "stone")
WORDS = {
    0: ["wing", "feather", "sky", "nest", "song", "beak", "flies"],
    1: ["fin", "water", "sea", "scale", "swims", "gill", "net"],
    2: ["hard", "grey", "road", "wall", "heavy", "cold", "lies"],
}
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40, "vocab_size": 90,
}  # fmt: skip
DISTILBERT = {
    "model_type": "distilbert", "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40,
    "vocab_size": 90,
}  # fmt: skip
MODERNBERT = {
    "model_type": "modernbert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 40, "vocab_size": 90, "pad_token_id": 0, "cls_token_id": 2,
    "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "classifier_pooling": "mean",
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 40,
    "vocab_size": 90,
    "pad_token_id": 0,
}
VIT = {
    "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 12, "patch_size": 4,
}  # fmt: skip
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}


def sentences(rng: Any, rows: int) -> dict[str, list[Any]]:
    """Texts of 1 to 25 words, mostly of their class."""
    labels = [int(label) for label in rng.integers(0, CLASSES, rows)]
    texts = []
    for label in labels:
        kinds = [
            label if rng.random() < 0.8 else int(rng.integers(0, CLASSES)) for _ in range(int(rng.integers(1, 26)))
        ]
        texts.append(" ".join(str(rng.choice(WORDS[kind])) for kind in kinds))
    return {"text": texts, "label": labels}


def texts_config(tokenizer: Path, source: str, **init_args: Any) -> TransferSetConfig:
    """A transfer set of texts in a file."""
    arguments = {"tokenizer": str(tokenizer), "max_length": 30, **init_args}
    prepare = ObjectSpec("softlabels.transfer.tokenize", arguments)
    return TransferSetConfig(name="things", source=source, inputs=("text",), prepare=prepare, classes=NAMES)


def train_tokenizer(folder: Path, rng: Any) -> Path:
    """A tokenizer of at most 90 tokens in `folder`."""
    import datasets

    file = folder.parent / f"{folder.name}.parquet"
    datasets.Dataset.from_dict(sentences(rng, 60)).to_parquet(file)
    ensure_tokenizer(TokenizerConfig(vocab_size=90, max_length=32), texts_config(folder, str(file)))
    return folder


def checkpoint(folder: Path, settings: dict[str, Any], *, auto: str, **more: Any) -> Path:
    """A saved model of random weights; `auto` without a head: "AutoModel"."""
    options = {key: value for key, value in settings.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(settings["model_type"], **{"num_labels": CLASSES, **options, **more})
    getattr(transformers, auto).from_config(config).save_pretrained(folder)
    return folder


def processor(folder: Path, size: int = 12) -> Path:
    """An image processor that resizes to size x size."""
    made = transformers.ViTImageProcessor(size={"height": size, "width": size})
    made.save_pretrained(folder)
    return folder


SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")  # ids 0 to 3 of a `word_tokenizer`
SIXTY = tuple(f"w{number}" for number in range(60))


def word_tokenizer(
    folder: Path, *, words: tuple[str, ...] = SIXTY, bos: bool = False, added: tuple[str, ...] = (), **named: Any
) -> Path:
    """A tokenizer of 64 tokens, a word each, in `folder`; `bos`: it begins every text with <bos>, as Gemma's and Llama's."""
    import tokenizers

    vocabulary = {token: number for number, token in enumerate((*SPECIALS, *words))}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if bos:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 1)]
        )
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **(names | named))
    if added:
        fast.add_special_tokens({"additional_special_tokens": list(added)})
    fast.save_pretrained(folder)
    return folder


def word_texts(rng: Any, count: int, shortest: int = 1, longest: int = 12) -> list[str]:
    """Texts of words that a `word_tokenizer` knows."""
    return [" ".join(rng.choice(SIXTY, int(rng.integers(shortest, longest + 1)))) for _ in range(count)]
