"""Causal language models as teachers and students: any architecture of `AutoModelForCausalLM`. Extra `[hf]`.

They take rows of tokens (`softlabels.transfer.sequences`) and give the logits of each position's next token. Weights come from
safetensors files only, and no code is run that stands in a checkpoint.

B batch, L tokens of a row, P = L - 1 positions, d hidden width, V outputs (at least the tokenizer's tokens: more are padding).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models.hf import HuggingFaceModel
from softlabels.models.spread import is_spread

_PROBE_TOKENS = 4
_LARGE = 1000.0  # far beyond where an architecture that caps its logits caps them


class CausalLM(HuggingFaceModel):
    """A language model over rows of tokens.

    Args:
        model: folder or hub id of a checkpoint; None builds the architecture from `config`, untrained.
        config: keys of the model's config.json: all that matter with `model_type` where `model` is None, else those to change.
        revision: branch, tag or commit on the hub. device_map, max_memory: see there.

    Attributes:
        network: the transformers model.
        untrained: names of the tensors that no checkpoint gave: all where there is none.
        vocabulary: digest of the vocabulary of the checkpoint's own tokenizer; None where it has none.

    Raises:
        MissingExtra, ConfigError, WeightsError: as every model of `softlabels.models.hf`.

    Example:
        >>> from softlabels.models import CausalLM
        >>> small = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 20}
        >>> CausalLM(config=small)(torch.ones(1, 2, 8, dtype=torch.int32)).shape  # token ids and document numbers
        torch.Size([1, 7, 20])
    """

    _auto = "AutoModelForCausalLM"
    _labelled, _reads_tokens = False, True

    def __init__(
        self,
        model: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        revision: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        max_memory: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__(model, config=config, revision=revision, device_map=device_map, max_memory=max_memory)
        self.vocabulary = None if self.words is None else self.words.digest()
        self._is_product: bool | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, P, V) of rows of tokens (B, 2, L): position p has read tokens 0 to p. Positions in padding mean nothing.

        Raises:
            ConfigError: other shapes, ids that the model has no embedding for, more tokens than it has positions for.
        """
        with self._plain_errors(inputs):
            logits_BPV: Tensor = self.network(**self._given(inputs)).logits
        return logits_BPV

    def hidden(self, inputs: Tensor) -> Tensor:
        """The last hidden states (B, P, d): with `output_matrix` (W, b) logits are hidden @ W.T + b. Raises as `forward`."""
        with self._plain_errors(inputs):
            hidden_BPd: Tensor = self.network.base_model(**self._given(inputs)).last_hidden_state
        return hidden_BPd

    def output_matrix(self) -> tuple[Tensor, Tensor | None] | None:
        """The weight (V, d) and bias (V,) that make logits of `hidden`; the parameters themselves.

        None where the architecture does more than that product, such as capping or scaling its logits, or is spread over
        devices: then only `forward` gives them. That is tried out once.
        """
        if self._is_product is None:
            self._is_product = not is_spread(self) and self._try_product()
        if not self._is_product:
            return None
        head = self.network.get_output_embeddings()
        return head.weight, head.bias

    def _given(self, inputs: Tensor) -> dict[str, Any]:
        """The arguments of the network: tokens 0 to P - 1, for the last one predicts nothing, and which of them are real."""
        if inputs.ndim != 3 or inputs.shape[1] != 2 or inputs.shape[2] < 2 or inputs.is_floating_point():
            raise ConfigError(
                f"a language model takes token rows (B, 2, L), a batch has {inputs.dtype} and shape {list(inputs.shape)}",
                remedy="make them with transfer_set.sequences",
            )
        positions = inputs.shape[2] - 1
        limit = getattr(self.network.config, "max_position_embeddings", None)
        if isinstance(limit, int) and positions > limit:
            raise ConfigError(
                f"rows have {positions} positions and {type(self.network).__name__} {limit}",
                remedy="lower transfer_set.sequences.length, or raise max_position_embeddings in the config",
            )
        if not torch.compiler.is_compiling():  # an exported graph knows no values to check
            lowest, highest = torch.stack(torch.aminmax(inputs[:, 0])).tolist()  # one wait for the device
            self._check_ids(lowest, highest, self.network.get_input_embeddings().num_embeddings)
        tokens_B2P = inputs[:, :, :positions].long()
        given = {"input_ids": tokens_B2P[:, 0], "attention_mask": (tokens_B2P[:, 1] > 0).long()}
        return given | ({"use_cache": False} if "use_cache" in self._takes else {})

    @torch.no_grad()
    def _try_product(self) -> bool:
        """Whether logits are the output layer's product with the last hidden states, and nothing else.

        The layer's input must be those hidden states, and what it gives must come out unchanged, also where it is large: a cap
        of 30 does not show on the small logits of an untrained model.
        """
        network, head = self.network, self.network.get_output_embeddings()
        if not isinstance(head, nn.Linear) or network.base_model is network:
            return False
        device = head.weight.device
        rows = torch.arange(_PROBE_TOKENS + 1, device=device).remainder(network.get_input_embeddings().num_embeddings)
        given = self._given(torch.stack([rows, torch.ones_like(rows)])[None])
        large = torch.linspace(
            -_LARGE, _LARGE, _PROBE_TOKENS * head.out_features, device=device, dtype=head.weight.dtype
        )
        large = large.reshape(1, _PROBE_TOKENS, head.out_features)
        seen: list[Tensor] = []

        def exchange(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> Tensor:
            seen.append(inputs[0])
            return large

        hook = head.register_forward_hook(exchange)
        try:
            with _evaluating(network), torch.autocast(device.type, enabled=False):
                logits, hidden = network(**given).logits, network.base_model(**given).last_hidden_state
        finally:
            hook.remove()
        reads_hidden = len(seen) == 1 and seen[0].shape == hidden.shape and torch.allclose(seen[0], hidden, 1e-4, 1e-4)
        return reads_hidden and logits.shape == large.shape and torch.equal(logits.to(large.dtype), large)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode: no dropout, no random number drawn; each of its modules as it was afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
