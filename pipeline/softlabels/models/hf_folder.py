"""A trained Hugging Face model as a folder that transformers itself opens again. Extra `[hf]`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from softlabels.errors import ConfigError
from softlabels.models.hf import HuggingFaceModel
from softlabels.objects import ObjectSpec
from softlabels.system.local import LocalFolder, local_folder
from softlabels.transfer.config import SequencesConfig
from softlabels.transfer.pretrained import quiet, whole_folder
from softlabels.transfer.text import load_tokenizer
from softlabels.transfer.vision import load_processor


def save_hf(
    model: nn.Module,
    folder: Path | str | LocalFolder,
    *,
    class_names: Sequence[str] | None = None,
    prepare: ObjectSpec | None = None,
    sequences: SequencesConfig | None = None,
) -> None:
    """Write the model, and the tokenizer or image processor of its inputs, for `from_pretrained(folder)`; all or nothing.

    Args:
        model: a `SequenceClassifier`, `ImageClassifier` or `CausalLM`.
        folder: replaced where it holds such a model already.
        class_names: ordered; written as id2label.
        prepare: the prepare function of its inputs; a tokenizer's max_length is written with it.
        sequences: of a language model, how its rows were made: its tokenizer is written as it is.

    Raises:
        ConfigError: a model of another kind, another number of names than of classes, or a folder that holds something else.
        DiskFull, StorageError.

    Example:
        >>> from softlabels.models import SequenceClassifier
        >>> from softlabels.models.hf_folder import save_hf
        >>> small = {"model_type": "distilbert", "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "vocab_size": 20}
        >>> save_hf(SequenceClassifier(config=small, classes=2), "mine", class_names=["no", "yes"])
        >>> same = SequenceClassifier("mine")
    """
    if not isinstance(model, HuggingFaceModel):
        raise ConfigError(
            f"{type(model).__name__} is no Hugging Face model",
            remedy="use a class of softlabels.models.hf or causal_lm as student",
        )
    folder = local_folder(folder)
    if folder.names() and not folder.exists("config.json"):
        raise ConfigError(
            f"{folder} holds something that is no Hugging Face model, and would be lost", remedy="name another folder"
        )
    config = model.network.config
    if class_names is not None:
        if len(class_names) != config.num_labels:
            raise ConfigError(
                f"{len(class_names)} class names for {config.num_labels} classes", remedy="name every class"
            )
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: number for number, name in enumerate(class_names)}
    with quiet(), whole_folder(folder) as part:
        if sequences is not None:
            tokenizer = load_tokenizer(sequences.tokenizer, sequences.revision)
            _name_special_tokens(model.network, tokenizer, sequences.separator)
            _suppress_padding(model.network, tokenizer)
            tokenizer.save_pretrained(part)
        model.network.save_pretrained(part)
        if sequences is None:
            _save_preparation(part, prepare)


def _name_special_tokens(network: Any, tokenizer: Any, separator: str | None) -> None:
    """Let generation begin and end with the token that ends a text in the rows, where the model's own ids are no tokens.

    A model that is built from a config has its architecture's ids, such as gpt2's 50256, whatever its vocabulary is.
    """
    end = tokenizer.eos_token_id if separator is None else tokenizer.convert_tokens_to_ids(separator)
    for config in (network.config, network.generation_config):
        for name in ("bos_token_id", "eos_token_id"):
            own = getattr(config, name, None)
            if not isinstance(own, int) or own >= len(tokenizer):
                setattr(config, name, end)


def _suppress_padding(network: Any, tokenizer: Any) -> None:
    """Let generation never draw an output beyond the tokenizer's tokens: nothing was ever learned there."""
    tokens, outputs = max(tokenizer.get_vocab().values()) + 1, network.get_output_embeddings().out_features
    if outputs > tokens:
        network.generation_config.suppress_tokens = list(range(tokens, outputs))


def _save_preparation(folder: Path, prepare: ObjectSpec | None) -> None:
    if prepare is None:
        return
    arguments = prepare.init_args
    if prepare.class_path == "softlabels.transfer.vision.process":
        load_processor(arguments["processor"], arguments.get("revision")).save_pretrained(folder)
    elif prepare.class_path == "softlabels.transfer.tokenize":
        # a copy: the object is kept for the next rows
        tokenizer = copy.deepcopy(load_tokenizer(arguments["tokenizer"], arguments.get("revision")))
        if arguments.get("max_length") is not None:
            tokenizer.model_max_length = arguments["max_length"]
        tokenizer.save_pretrained(folder)
