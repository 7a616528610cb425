"""Served teachers whose hidden states are asked for: labels of any temperature, against the model's own in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from msgspec import UNSET
from safetensors.torch import save_file

from softlabels import LabelsConfig, label, open_store
from softlabels.errors import (
    ConfigError,
    LabelError,
    LogitsError,
    OtherWeights,
    SoftLabelsError,
    TeacherError,
    WeightsError,
)
from softlabels.foreign.hidden import WHOLE
from softlabels.jobs.watch import Watch
from softlabels.models.product import read_matrix
from softlabels.models.weights import weights_digest
from softlabels.teacher import outputs
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows
from softlabels.transfer.alignment import alignment
from tests.models.lm_samples import GEMMA2, GPT2_LM, saved_lm
from tests.teacher.sequences import TOKENS, exact, token_rows
from tests.teacher.stand_in import StandIn, running
from tests.teacher.test_served import asked, at_victim

ROWS, OUTPUTS = 24, 40  # three outputs are padding
DENSE = LabelsConfig(rows_per_shard=16, rows_per_chunk=16)
TOPK = replace(DENSE, encoding="topk", k=5, rank=14, nodes=6)


class Network:
    """A language model: final states, logits in float64, and a server's view of it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        saved_lm(folder, settings | {"vocab_size": OUTPUTS}, scale=20.0)  # logits of some size: a small mistake is seen
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder).double().eval()
        self.matrix = self.model.get_output_embeddings().weight.detach().float().clone()
        self._known: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, tokens: Any) -> tuple[np.ndarray, np.ndarray]:
        """States (L, d) float32 and logits (L, V)."""
        if tuple(tokens) not in self._known:
            ids = torch.tensor([list(tokens)])
            with torch.inference_mode():
                found = self.model(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
            self._known[tuple(tokens)] = found.hidden_states[-1][0].float().numpy(), found.logits[0].numpy()
        return self._known[tuple(tokens)]

    def served(self) -> StandIn:
        server = StandIn(lambda tokens: exact(self(tokens)[1], 1.0), "sglang")
        server.hidden = lambda tokens: self(tokens)[0]
        return server


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(tmp_path_factory.mktemp("lm") / "model", GPT2_LM)


@pytest.fixture(scope="module")
def rows() -> TransferRows:
    return token_rows(np.random.default_rng(17), ROWS)


@pytest.fixture
def server(network: Network) -> Iterator[StandIn]:
    with running(network.served()) as found:
        yield found


@pytest.fixture
def head(network: Network, tmp_path: Path) -> Path:
    save_file({"lm_head.weight": network.matrix}, tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


def teacher_of(server: StandIn, head: Path, **changes: Any) -> Served:
    return asked(server, output_matrix=str(head), **changes)


@pytest.mark.parametrize("labels", [DENSE, replace(TOPK, layout="arrow")], ids=["dense", "topk"])
def test_labels_are_the_models_own_at_any_temperature(
    labels: LabelsConfig,
    tmp_path: Path,
    network: Network,
    rows: TransferRows,
    server: StandIn,
    head: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outputs, "BLOCK_BYTES", 4 * OUTPUTS * 7)  # blocks end inside of rows
    lines, teacher = list[str](), teacher_of(server, head)
    teacher.rows_at_once = 1 if labels.encoding == "dense" else 10  # one row has no position
    made = label(rows, teacher, labels, tmp_path / "store", watch=Watch(lines.append, lines.append))
    store, where = open_store(tmp_path / "store", split="train"), alignment(rows.inputs)
    assert store.manifest.spec.label_space.classes == TOKENS
    assert store.manifest.spec.encoding.known_at is UNSET
    assert store.manifest.spec.teacher.members[0].weights == read_digest(head, None, None)
    assert any("logits are its hidden states times the output matrix" in line for line in lines)
    at = np.argwhere(where.mask == 1)
    z = np.stack([network(row[0][row[1] > 0].tolist())[1][place, :TOKENS] for row, place in _each(rows, at)])
    for temperature in (1.0, 2.0, 4.0):
        right = exact(z, temperature)
        ours = store.log_probs(range(ROWS), temperature=temperature)[at[:, 0], at[:, 1]].reshape(right.shape)
        kl = (np.exp(right) * (right - ours)).sum(axis=-1)
        if labels.encoding == "dense":
            span = np.abs(z - z.max(axis=-1, keepdims=True)).max()
            assert np.abs(ours - right).max() <= (2**-10 * span + 1e-4) / temperature
        else:
            said = made["train"].fidelity[f"{temperature:g}"]
            assert kl.mean() == pytest.approx(said.kl_mean, rel=0.2, abs=2e-6)
            assert said.kl_mean < 1e-2, said
    assert np.array_equal(store.column("position_mask"), where.mask)


def _each(rows: TransferRows, at: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    return ((rows.inputs[row], int(place)) for row, place in at)


def test_states_that_are_not_those_of_the_logits_are_refused(
    tmp_path: Path, network: Network, rows: TransferRows, server: StandIn, head: Path
) -> None:
    states = server.hidden
    assert states is not None

    def refused(kind: type[SoftLabelsError], said: str, given: Path = head) -> None:
        with pytest.raises(kind, match=said):
            label(rows, teacher_of(server, given), DENSE, tmp_path / "store")
        assert not list(tmp_path.rglob("manifest.json"))

    for name, wrong in (("scaled", network.matrix * 1.1), ("mixed", network.matrix.roll(1, 0))):
        save_file({"lm_head.weight": wrong}, tmp_path / f"{name}.safetensors")
        refused(TeacherError, "sentinel rows of train: hidden states times", tmp_path / f"{name}.safetensors")
    save_file({"w": network.matrix[:, :8].clone()}, tmp_path / "narrow.safetensors")
    refused(TeacherError, "have 16 numbers, and the output matrix takes 8", tmp_path / "narrow.safetensors")
    server.hidden = lambda tokens: network.model.transformer.wte.weight.detach().float().numpy()[list(tokens)]
    refused(TeacherError, "other log-probabilities than the server says.*before its last norm")
    server.hidden = lambda tokens: states(tokens)[-2:]
    refused(LogitsError, f"has 2 hidden states of a prompt of [0-9]+ tokens.*{WHOLE[:50]}")
    server.hidden = lambda tokens: np.full((len(tokens), 16), 1e39)
    refused(LogitsError, "beyond float32")
    server.hidden = lambda tokens: states(tokens) * np.nan
    refused(LogitsError, "NaN or infinite")
    server.hidden = lambda tokens: np.array(["state"])
    refused(LogitsError, "do not begin with a list of states")
    server.hidden = None
    refused(ConfigError, "Please set `--enable-return-hidden-states`")
    server.hidden = states
    server.answered = lambda tokens, k, body: StandIn.answered(
        server, tokens, k, body | {"return_hidden_states": False}
    )  # type: ignore[method-assign]
    refused(LogitsError, "has no meta_info.hidden_states.*start it with --enable-return-hidden-states")


def test_one_rows_states_are_another_ones(
    tmp_path: Path, network: Network, rows: TransferRows, server: StandIn, head: Path
) -> None:
    """SGLang cuts a batch's states as if every prompt of it were computed whole."""
    victim, states = at_victim("wrong", rows), server.hidden
    assert states is not None
    server.hidden = lambda tokens: states([*tokens[1:], 1] if victim(0, tuple(tokens)) else tokens)
    with pytest.raises(TeacherError, match=r"row \d+ of train: hidden states times .* --chunked-prefill-size=-1"):
        label(rows, teacher_of(server, head), DENSE, tmp_path / "store")
    server.hidden = states
    label(rows, teacher_of(server, head), DENSE, tmp_path / "store")  # it goes on


def test_capped_logits_are_refused(tmp_path: Path, rows: TransferRows) -> None:
    capped = Network(tmp_path / "gemma", GEMMA2 | {"final_logit_softcapping": 5.0})
    save_file({"head": capped.matrix}, tmp_path / "head.safetensors")
    with running(capped.served()) as server, pytest.raises(TeacherError, match="caps its logits, as Gemma does"):
        label(rows, teacher_of(server, tmp_path / "head.safetensors"), DENSE, tmp_path / "store")


def test_another_matrix_is_another_teacher(
    tmp_path: Path, network: Network, rows: TransferRows, server: StandIn
) -> None:
    """A bias that the server adds as well, by a name; a file of several matrices."""
    bias = torch.linspace(-1, 1, OUTPUTS)
    tensors = {"a": network.matrix, "b": network.matrix.flip(0), "bias": bias, "short": bias[:7].clone()}
    save_file(tensors, tmp_path / "several.safetensors")
    model, path = server.model, tmp_path / "several.safetensors"
    with pytest.raises(TeacherError, match="with its bias"):
        label(rows, teacher_of(server, path, output_weight="a", output_bias="bias"), DENSE, tmp_path / "store")
    server.model = lambda tokens: exact(model(tokens) + bias.numpy(), 1.0)
    label(rows, teacher_of(server, path, output_weight="a", output_bias="bias"), DENSE, tmp_path / "store")
    save_file({"a": network.matrix + 1e-5, "bias": bias}, tmp_path / "near.safetensors")
    with pytest.raises(OtherWeights, match="give the weights that began it"):
        label(rows, teacher_of(server, tmp_path / "near.safetensors", output_bias="bias"), DENSE, tmp_path / "store")
    for given, said in (
        ({}, r"has 2 matrices \(matrices: a, b\)"),
        ({"output_weight": "c"}, "has no matrix 'c'"),
        ({"output_weight": "a", "output_bias": "short"}, r"'short' of .* is \[7\], and a is \[40, 16\]"),
        ({"output_weight": "a", "output_bias": "none"}, "'none' of .* is none of its tensors"),
    ):
        with pytest.raises(WeightsError, match=said):
            teacher_of(server, path, **given)
    digests = [read_digest(path, weight, chosen) for weight, chosen in (("a", None), ("a", "bias"), ("b", None))]
    assert len({*digests}) == 3


def read_digest(path: Path, weight: str | None, bias: str | None) -> str:
    return weights_digest(read_matrix(path, weight, bias))


def test_settings_that_do_not_fit(
    tmp_path: Path, network: Network, rows: TransferRows, server: StandIn, head: Path
) -> None:
    server.kind = "vllm"
    with pytest.raises(ConfigError, match="answers of vLLM servers have no hidden states"):
        teacher_of(server, head)
    server.kind = "sglang"
    with pytest.raises(ConfigError, match="output_bias is given without a file"):
        asked(server, output_bias="lm_head.bias")
    with pytest.raises(ConfigError, match=r"labels\.kind is given"):
        label(rows, teacher_of(server, head), replace(DENSE, kind="values"), tmp_path / "store")
    save_file({"w": network.matrix[:20].clone()}, tmp_path / "short.safetensors")
    with pytest.raises(LabelError, match="20"):
        label(rows, teacher_of(server, tmp_path / "short.safetensors"), DENSE, tmp_path / "store")
