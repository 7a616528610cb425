"""Small causal language models of several architectures, and token rows for them: nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

VOCABULARY = 90
_SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GPT2_LM = {
    "model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": VOCABULARY,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
LLAMA = {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": False, **_SMALL}
GPT_NEOX = {"model_type": "gpt_neox", **_SMALL}
OPT = {
    "model_type": "opt", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24,
    "word_embed_proj_dim": 8, "max_position_embeddings": 40, "vocab_size": VOCABULARY, "pad_token_id": 0,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GPT_J = {
    "model_type": "gptj", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": VOCABULARY, "rotary_dim": 4,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GEMMA2 = {"model_type": "gemma2", "num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 30.0, **_SMALL}
COHERE = {"model_type": "cohere", "num_key_value_heads": 1, "logit_scale": 0.0625, **_SMALL}
GRANITE = {"model_type": "granite", "num_key_value_heads": 1, "logits_scaling": 4.0, **_SMALL}
PRODUCTS = [
    GPT2_LM,
    LLAMA,
    GPT_NEOX,
    OPT,
    GPT_J,
]  # logits are hidden states times a matrix, perhaps with a bias (GPT-J)
OTHERS = [GEMMA2, COHERE, GRANITE]  # capped, scaled


def saved_lm(folder: Path, settings: dict[str, Any], *, scale: float = 6.0, seed: int = 0) -> Path:
    """A checkpoint of random weights, matrices `scale` times the initial ones so that rows differ."""
    options = {key: value for key, value in settings.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(settings["model_type"], **options)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for tensor in {id(t): t for t in model.parameters()}.values():
            tensor *= scale if tensor.ndim == 2 else 1.0
            if tensor.ndim == 1:
                tensor += 0.1 * torch.randn_like(tensor)
    model.save_pretrained(folder)
    return folder


def token_batch(rng: np.random.Generator, rows: int, length: int, *, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Rows (rows, 2, length) of one or more documents, all but the first with padding at the end."""
    out = np.zeros((rows, 2, length), np.int32)
    for number, row in enumerate(out):
        count = length if number == 0 else int(rng.integers(2, length))
        row[0, :count] = rng.integers(1, vocabulary, count)
        row[1, :count] = 1 + (rng.random(count) < 0.2).cumsum() * (np.arange(count) > 0)
        row[1, 0] = 1
        row[1, :count] = 1 + np.cumsum(np.diff(row[1, :count], prepend=1) > 0)
    return torch.from_numpy(out)
