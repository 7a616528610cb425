"""Hugging Face models as teachers and students: from a folder or hub id, or from scratch by a config. Extra `[hf]`.

Any classifier that `AutoModelForSequenceClassification` or `AutoModelForImageClassification` knows; language models are
`causal_lm`'s. Weights come from safetensors files only, and no code is run that stands in a checkpoint. Neighbours:
`softlabels.transfer.text` and `vision` prepare the inputs, `hf_folder` writes a trained model as such a folder again.

B batch, K arrays of a tokenizer or channels of an image, L tokens, H height, W width, C classes.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.labels.targets import Target
from softlabels.models.hf_facts import head_of, numbered_names
from softlabels.models.hf_network import PAD_REMEDY, new_network, places_of, pretrained_network
from softlabels.models.inputs import check_dtype
from softlabels.models.spread import is_spread
from softlabels.transfer.pretrained import matching, one_line, pretrained_folder
from softlabels.transfer.text import FILES, tokenizer_digest
from softlabels.transfer.vocabulary import Vocabulary, vocabulary_of

_log = logging.getLogger(__name__)
_said: set[tuple[object, ...]] = set()  # a student is built many times in a run, and says so once


class HuggingFaceModel(nn.Module):
    """What all of them share; not for use by itself.

    Args:
        model: folder or hub id of a checkpoint; None builds the architecture from `config`, untrained.
        config: keys of the model's config.json: all that matter with `model_type` where `model` is None, else those to change,
            such as a dropout.
        classes: C, of a model that has a head of classes: by default those of the checkpoint; of another number the head is new
            and untrained.
        revision: branch, tag or commit on the hub.
        device_map: of a checkpoint that fits no single device, where its layers go, as `from_pretrained` takes it: auto, or
            {module: device}, a device being a GPU's number, cpu or disk. For teachers. max_memory: of auto, the most that a
            device holds: {0: 20GiB, cpu: 60GiB}.

    Attributes:
        network: the transformers model.
        untrained: names of the tensors that no checkpoint gave: all where there is none, the head where it is new.
        class_names: ordered, where the checkpoint's head of classes is used and names them; else None.
        words: the vocabulary of the checkpoint's own tokenizer, of models that read tokens; None where it has none.
        target: what its outputs are, by the `problem_type` of its config; None of models without a head of classes. head: the
            words of the config that say so.

    Raises:
        MissingExtra: transformers is not installed.
        ConfigError: no such folder or hub id, unknown keys, an architecture that cannot be built.
        WeightsError: pickles, adapters, quantized weights, or tensors that do not fit.
        ClassMismatch: a head of no known kind.
    """

    network: Any  # transformers is an extra: none of its types are known here
    _auto = ""  # the class of transformers that knows the architectures
    _labelled = True  # whether they have a head of classes
    _reads_tokens = False  # whether the checkpoint's tokenizer says what its inputs mean

    def __init__(
        self,
        model: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        classes: int | None = None,
        revision: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        max_memory: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        options, self.words = dict(config or {}), None
        places = places_of(device_map, max_memory, model)
        if model is None:
            self.network = new_network(self._auto, options, classes, labelled=self._labelled)
            self.untrained = tuple(self.state_dict())
        else:
            self.network, missing = pretrained_network(
                self._auto, model, options, classes, revision, labelled=self._labelled, places=places
            )
            self.untrained = tuple(f"network.{name}" for name in sorted(missing))
            if self.untrained and (model, self.untrained) not in _said:
                _said.add((model, self.untrained))
                say = "%s gives no values for %s: they start untrained, unless a weights file gives them"
                _log.warning(say, model, ", ".join(self.untrained))
            self.words = own_vocabulary(model, revision) if self._reads_tokens else None
        self.target: Target | None = None
        self.head = ""
        if self._labelled:
            self.target, self.head = head_of(self.network.config, str(model))
        names = numbered_names(self.network.config, str(model)) if self._labelled and not self.untrained else ()
        placeholders = any(re.fullmatch(r"LABEL_\d+", name) for name in names)
        self.class_names = None if placeholders else names or None
        self._takes = frozenset(inspect.signature(self.network.forward).parameters)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What moves or casts all tensors. Raises `ConfigError` where a device_map has spread them."""
        if is_spread(self):
            raise ConfigError(
                f"{type(self).__name__} is spread over devices by its device_map, and cannot be moved to one",
                remedy="only teacher-logits takes it so: leave device_map out of what is trained, judged or exported",
            )
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    @contextmanager
    def _plain_errors(self, inputs: Tensor) -> Iterator[None]:
        """What an architecture says against inputs, as an error of ours."""
        try:
            yield
        except (ValueError, IndexError, TypeError) as error:
            raise ConfigError(
                f"{type(self.network).__name__} cannot take inputs of {inputs.dtype} and shape {list(inputs.shape)}: "
                f"{one_line(error)}",
                remedy=PAD_REMEDY
                if "padding token" in str(error)
                else "change the model's config, or transfer_set.prepare",
            ) from error

    def _check_ids(self, lowest: int, highest: int, tokens: object) -> None:
        if lowest < 0 or (isinstance(tokens, int) and highest >= tokens):
            raise ConfigError(
                f"rows have token ids from {lowest} to {highest} and {type(self.network).__name__} embeddings for {tokens}",
                remedy="give the tokenizer that belongs to the model, or vocab_size in its config",
            )


class SequenceClassifier(HuggingFaceModel):
    """Text classifiers: `AutoModelForSequenceClassification`. Takes what `softlabels.transfer.tokenize` gives.

    Example:
        >>> from softlabels.models import SequenceClassifier
        >>> small = {"model_type": "distilbert", "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "vocab_size": 20}
        >>> SequenceClassifier(config=small, classes=4)(torch.ones(1, 2, 8, dtype=torch.int32)).shape
        torch.Size([1, 4])
    """

    _auto = "AutoModelForSequenceClassification"
    _reads_tokens = True

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of tokens (B, K, L): input ids, perhaps token types, attention mask.

        Columns that are padding in every row are cut off first: they would cost time and change nothing. What the mask says is
        padding becomes the token that the network takes for padding, whatever the tokenizer put there: some networks look for
        the last token that is none, or count positions by it.

        Raises:
            ConfigError: other shapes, ids that the model has no embedding for, more tokens than it has positions for.
        """
        self._check(inputs)
        if not torch.compiler.is_compiling():  # an exported graph knows no values to check and to cut by
            inputs = self._trim(inputs)
        tokens_BKL = inputs.long()
        mask_BL = tokens_BKL[:, -1]
        given = {"input_ids": torch.where(mask_BL != 0, tokens_BKL[:, 0], self._padding), "attention_mask": mask_BL}
        if tokens_BKL.shape[1] == 3 and "token_type_ids" in self._takes:
            given["token_type_ids"] = tokens_BKL[:, 1]
        with self._plain_errors(inputs):
            logits_BC: Tensor = self.network(**given).logits
        return logits_BC

    @property
    def _padding(self) -> int:
        """The token that stands in padding; any, where the network knows none."""
        own = getattr(self.network.config, "pad_token_id", None)
        return own if isinstance(own, int) and own >= 0 else 0

    def _check(self, inputs: Tensor) -> None:
        if inputs.ndim != 3 or inputs.shape[1] not in (2, 3) or inputs.is_floating_point():
            raise ConfigError(
                f"a text model takes tokens (B, 2 or 3, L), a batch has {inputs.dtype} and shape {list(inputs.shape)}",
                remedy="set prepare to softlabels.transfer.tokenize",
            )
        limit = getattr(self.network.config, "max_position_embeddings", None)
        if isinstance(limit, int) and inputs.shape[2] > limit:
            raise ConfigError(
                f"rows have {inputs.shape[2]} tokens and {type(self.network).__name__} positions for {limit}",
                remedy="lower max_length in transfer_set.prepare, or raise max_position_embeddings in the config",
            )

    def _trim(self, inputs: Tensor) -> Tensor:
        """`inputs` without the outer columns that are padding in every row; ids are checked on the way."""
        real = inputs[:, -1] != 0
        used = real.any(0)
        length = inputs.shape[2]
        places = torch.arange(length, device=inputs.device)
        first, last = torch.where(used, places, length).min(), torch.where(used, places, -1).max()
        ids = torch.where(real, inputs[:, 0], 0)
        facts = torch.stack([first, last, ids.min().long(), ids.max().long()])
        start, end, lowest, highest = facts.tolist()  # one wait for the device
        self._check_ids(lowest, highest, getattr(self.network.config, "vocab_size", None))
        return inputs[:, :, start : end + 1] if end >= start else inputs


class ImageClassifier(HuggingFaceModel):
    """Image classifiers: `AutoModelForImageClassification`. Takes what `softlabels.transfer.vision.process` gives."""

    _auto = "AutoModelForImageClassification"

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of pixels (B, K, H, W) in the dtype of the weights.

        Raises:
            ConfigError: another dtype, or a shape that the model does not take.
        """
        check_dtype(inputs, expected=self.network.dtype, model=type(self.network).__name__)
        channels = getattr(self.network.config, "num_channels", None)
        if inputs.ndim != 4 or (isinstance(channels, int) and inputs.shape[1] != channels):
            raise ConfigError(
                f"{type(self.network).__name__} takes images (B, {channels}, H, W), a batch has shape {list(inputs.shape)}",
                remedy="set prepare to softlabels.transfer.vision.process with this model's processor",
            )
        with self._plain_errors(inputs):
            logits_BC: Tensor = self.network(pixel_values=inputs).logits
        return logits_BC


def own_vocabulary(name: str, revision: str | None) -> Vocabulary | None:
    """The vocabulary of the tokenizer that lies with a checkpoint; None where there is none, or none that opens."""
    folder = pretrained_folder(name, revision=revision, patterns=(*FILES, "config.json"))
    if not matching(folder, FILES):
        return None
    try:
        return vocabulary_of(str(folder), None, tokenizer_digest(str(folder)))
    except ConfigError as error:
        _log.warning("the tokenizer in %s is not compared with that of the transfer set: %s", name, error.what)
        return None
