"""Language models: logits of each position are transformers' own, the product form is offered only where it is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from softlabels.errors import ConfigError, WeightsError
from softlabels.models import ModelConfig, build_model, load_weights, save_weights, weights_digest
from softlabels.models.build import untrained
from softlabels.models.causal_lm import CausalLM
from softlabels.models.hf_folder import save_hf
from softlabels.student.average import WeightAverage
from softlabels.transfer.config import SequencesConfig
from softlabels.transfer.text import load_tokenizer
from softlabels.transfer.vocabulary import Vocabulary
from tests.models.hf_samples import VIT, train_tokenizer
from tests.models.lm_samples import GPT2_LM, LLAMA, OTHERS, PRODUCTS, VOCABULARY, saved_lm, token_batch

CLASS = "softlabels.models.CausalLM"


def kind(settings: dict[str, Any]) -> str:
    return str(settings["model_type"])


@pytest.mark.parametrize("settings", [*PRODUCTS, *OTHERS], ids=kind)
def test_logits_are_transformers_own_at_every_position(
    settings: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = saved_lm(tmp_path / "model", settings)
    model = CausalLM(str(folder)).eval()
    own = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = token_batch(rng, 6, 13)
    with torch.no_grad():
        logits = model(rows)
        assert logits.dtype == torch.float32
        assert logits.shape == (6, 12, VOCABULARY)
        for row, given in zip(rows.long(), logits, strict=True):
            count = int((row[1] > 0).sum())
            for position in range(min(count, 12)):  # one prefix at a time: nothing but tokens 0 to p is seen
                prefix = own(input_ids=row[None, 0, : position + 1]).logits[0, -1]
                torch.testing.assert_close(given[position], prefix, rtol=1e-4, atol=1e-4)
    assert logits.std(dim=(0, 1)).median() > 0.01  # rows differ, so that agreement says something


@pytest.mark.parametrize("settings", PRODUCTS, ids=kind)
def test_hidden_states_times_the_output_matrix_are_the_logits(
    settings: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    model = CausalLM(str(saved_lm(tmp_path / "model", settings))).eval()
    rows = token_batch(rng, 5, 11)
    given = model.output_matrix()
    assert given is not None
    weight, bias = given
    assert weight.requires_grad
    assert (bias is None) == (kind(settings) != "gptj")
    with torch.no_grad():
        hidden = model.hidden(rows)
        assert hidden.shape == (5, 10, weight.shape[1])
        product = hidden @ weight.T + (0 if bias is None else bias)
        torch.testing.assert_close(product, model(rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", OTHERS, ids=kind)
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_no_matrix_where_the_logits_are_more_than_a_product(
    settings: dict[str, Any], scale: float, tmp_path: Path
) -> None:
    """Also where the logits are so small that a cap does not show."""
    model = CausalLM(str(saved_lm(tmp_path / "model", settings, scale=scale)))
    assert model.output_matrix() is None
    assert model.output_matrix() is None


def test_trying_leaves_no_trace() -> None:
    model = build_model(ModelConfig(CLASS, {"config": GPT2_LM | {"resid_pdrop": 0.5}}))
    assert isinstance(model, CausalLM)
    model.network.transformer.h[0].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    assert model.output_matrix() is not None
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.network.get_output_embeddings()._forward_hooks


def test_padding_and_what_stands_behind_it_change_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    model = CausalLM(str(saved_lm(tmp_path / "model", GPT2_LM))).eval()
    rows = token_batch(rng, 6, 13)
    other = rows.clone()
    other[:, 0][other[:, 1] == 0] = 17
    longer = torch.nn.functional.pad(rows, (0, 9))
    real = (rows[:, 1] > 0)[:, :-1]
    with torch.no_grad():
        torch.testing.assert_close(model(other)[real], model(rows)[real], rtol=0, atol=0)
        torch.testing.assert_close(model(longer)[:, :12][real], model(rows)[real], rtol=1e-4, atol=1e-4)


def test_the_last_token_is_not_read(tmp_path: Path, rng: np.random.Generator) -> None:
    model = CausalLM(str(saved_lm(tmp_path / "model", LLAMA))).eval()
    rows = token_batch(rng, 1, 13)
    other = rows.clone()
    other[:, 0, -1] = (rows[:, 0, -1] + 1) % VOCABULARY
    with torch.no_grad():
        assert torch.equal(model(other), model(rows))
    earlier = rows.clone()
    earlier[:, 0, 5] = (rows[:, 0, 5] + 1) % VOCABULARY
    with torch.no_grad():
        changed = (model(earlier) - model(rows)).abs().amax(-1)[0]
    assert (changed[:5] == 0).all()  # causal
    assert (changed[5:] > 1e-4).all()


def test_as_many_positions_as_the_model_has_are_taken(rng: np.random.Generator) -> None:
    model = CausalLM(config=GPT2_LM).eval()
    assert model(token_batch(rng, 2, 41)).shape == (2, 40, VOCABULARY)
    with pytest.raises(ConfigError, match="rows have 41 positions and GPT2LMHeadModel 40"):
        model(token_batch(rng, 2, 42))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (torch.full((2, 2, 5), VOCABULARY), rf"ids from {VOCABULARY} to {VOCABULARY} and .* embeddings for {VOCABULARY}"),
        (torch.full((2, 2, 5), -1), "token ids from -1 to -1"),
        (torch.ones(2, 3, 5, dtype=torch.int32), r"takes token rows \(B, 2, L\), a batch has .* shape \[2, 3, 5\]"),
        (torch.ones(2, 5, dtype=torch.int32), "takes token rows"),
        (torch.ones(2, 2, 1, dtype=torch.int32), "takes token rows"),
        (torch.ones(2, 2, 5), "takes token rows"),
    ],
)  # fmt: skip
def test_rows_that_it_cannot_take(rows: torch.Tensor, words: str) -> None:
    for call in ("forward", "hidden"):
        with pytest.raises(ConfigError, match=words):
            getattr(CausalLM(config=GPT2_LM), call)(rows)


def test_an_id_that_only_the_unread_token_has_is_refused_too() -> None:
    rows = torch.ones(1, 2, 5, dtype=torch.int32)
    rows[0, 0, -1] = VOCABULARY
    with pytest.raises(ConfigError, match=f"from 1 to {VOCABULARY}"):
        CausalLM(config=GPT2_LM)(rows)


@pytest.mark.parametrize(
    ("init_args", "words"),
    [
        ({}, r"config\.model_type is missing; give model .* such as gpt2$"),
        ({"config": {**GPT2_LM, "n_layers": 2}}, "no 'n_layers'; did you mean n_layer"),
        ({"config": VIT}, "cannot build vit"),
        ({"model": "./nowhere"}, r"no folder \./nowhere"),
    ],
)
def test_what_cannot_be_built(init_args: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_model(ModelConfig(CLASS, init_args))


def test_a_checkpoint_of_another_vocabulary_is_no_start(tmp_path: Path) -> None:
    folder = saved_lm(tmp_path / "model", GPT2_LM)
    with pytest.raises(WeightsError, match="do not fit in shape"):
        CausalLM(str(folder), config={"vocab_size": 95})
    assert untrained(CausalLM(str(folder))) == ()


def test_tied_weights_stay_tied_through_files_and_averages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CausalLM(config=GPT2_LM)
    inside = model.network
    assert inside.lm_head.weight is inside.transformer.wte.weight
    save_weights(model, tmp_path / "own.safetensors")
    names = load_file(tmp_path / "own.safetensors").keys()
    assert len({"network.lm_head.weight", "network.transformer.wte.weight"} & names) == 1
    other = CausalLM(config=GPT2_LM)
    assert weights_digest(other) != weights_digest(model)
    load_weights(other, tmp_path / "own.safetensors")
    assert weights_digest(other) == weights_digest(model)
    assert other.network.lm_head.weight is other.network.transformer.wte.weight

    average = WeightAverage(model, 0.5)
    before = model.network.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.network.lm_head.weight += 1
    average.update(model)
    moved = average.model.network.lm_head.weight
    assert moved is average.model.network.transformer.wte.weight
    torch.testing.assert_close(moved.detach(), before + (1 - 1 / 10))  # d = 1 / 10 at first: moved once, not twice
    matrix = average.model.output_matrix()
    assert matrix is not None
    assert matrix[0] is moved


def test_from_scratch_is_a_pure_function_of_the_seed() -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(build_model(ModelConfig(CLASS, {"config": GPT2_LM})))
    digests = [weights_digest(model) for model in made]
    assert digests[0] == digests[1] != digests[2]
    assert set(untrained(made[0]) or ()) == set(made[0].state_dict())


def test_a_folder_of_ours_is_one_of_transformers(tmp_path: Path, rng: np.random.Generator) -> None:
    tokenizer = train_tokenizer(tmp_path / "tokenizer", rng)
    torch.manual_seed(0)
    model = CausalLM(config=GPT2_LM).eval()
    assert model.vocabulary is None
    save_hf(model, tmp_path / "out", sequences=SequencesConfig(str(tokenizer), 12, separator="[SEP]"))
    again = CausalLM(str(tmp_path / "out")).eval()
    rows = token_batch(rng, 3, 9)
    with torch.no_grad():
        torch.testing.assert_close(again(rows), model(rows))
    assert again.network.lm_head.weight is again.network.transformer.wte.weight
    assert again.vocabulary == Vocabulary(load_tokenizer(str(tokenizer))).digest()
    assert not list((tmp_path / "out").glob("*.bin"))
    with pytest.raises(ConfigError, match="is no Hugging Face model"):
        save_hf(torch.nn.Linear(2, 2), tmp_path / "other")


def test_a_model_from_a_config_ends_where_its_tokenizers_texts_end(tmp_path: Path, rng: np.random.Generator) -> None:
    """An architecture's own ids, such as gpt2's 50256, are no tokens of a small vocabulary; ids that are stay."""
    tokenizer = train_tokenizer(tmp_path / "tokenizer", rng)
    end = load_tokenizer(str(tokenizer)).convert_tokens_to_ids("[SEP]")
    settings = {name: value for name, value in GPT2_LM.items() if name not in ("bos_token_id", "eos_token_id")}
    for config, expected in ((settings, end), (settings | {"bos_token_id": 0, "eos_token_id": 1}, 1)):
        folder = tmp_path / str(expected)
        save_hf(CausalLM(config=config), folder, sequences=SequencesConfig(str(tokenizer), 12, separator="[SEP]"))
        for name in ("config.json", "generation_config.json"):
            assert json.loads((folder / name).read_text())["eos_token_id"] == expected
    assert "suppress_tokens" not in json.loads((tmp_path / "1" / "generation_config.json").read_text())
    tokens = max(load_tokenizer(str(tokenizer)).get_vocab().values()) + 1
    padded = CausalLM(config=settings | {"vocab_size": tokens + 3})
    save_hf(padded, tmp_path / "padded", sequences=SequencesConfig(str(tokenizer), 12, separator="[SEP]"))
    said = json.loads((tmp_path / "padded" / "generation_config.json").read_text())
    assert said["suppress_tokens"] == [tokens, tokens + 1, tokens + 2]


def test_a_checkpoint_knows_the_vocabulary_of_its_tokenizer(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = saved_lm(tmp_path / "model", GPT2_LM)
    assert CausalLM(str(folder)).vocabulary is None
    tokenizer = train_tokenizer(tmp_path / "tokenizer", rng)
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert CausalLM(str(folder)).vocabulary == Vocabulary(load_tokenizer(str(tokenizer))).digest()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    assert CausalLM(str(folder)).vocabulary is None  # said in a warning, see below


def test_a_tokenizer_that_does_not_open_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved_lm(tmp_path / "model", GPT2_LM)
    (folder / "tokenizer.json").write_text("{}")
    assert CausalLM(str(folder)).vocabulary is None
    assert "is not compared with that of the transfer set" in caplog.text
