"""Teachers of token rows: the right distribution at the right position, the same store however it was interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from softlabels import Ensemble, LabelsConfig, label
from softlabels.errors import ClassMismatch, ConfigError, Interrupted, LabelError, LogitsError, TeacherError
from softlabels.labels.encoding import DenseEncoding, Encoding
from softlabels.models import build_model
from softlabels.store import open_store
from softlabels.store.basis import resumable_basis
from softlabels.store.verify import verify
from softlabels.teacher import outputs
from softlabels.teacher.ensemble import load_ensemble
from softlabels.teacher.label import label_rows
from softlabels.teacher.pilot import pilot_rows
from softlabels.teacher.recheck import compare_with_teacher
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer import TransferRows
from softlabels.transfer.alignment import alignment
from softlabels.transfer.sequences import SequenceInfo, require_known_tokens
from tests.teacher.conftest import Teachers
from tests.teacher.models import OnlyForward
from tests.teacher.sequences import DENSE, INFO, LENGTH, TOKENS, exact, other_length, sequence_writer, token_rows, topk

POSITIONS = LENGTH - 1


@pytest.fixture
def rows(rng: np.random.Generator) -> TransferRows:
    """60 rows of fresh random tokens."""
    return token_rows(rng)


def by_hand(config: Any, inputs: np.ndarray, row: int, position: int) -> np.ndarray:
    """Logits (M, C) of one position, from the tokens up to it and from nothing else."""
    found = []
    for member in config.members:
        weight = {name: t.double() for name, t in build_model(member.model).state_dict().items()}
        tokens = weight["embedding.weight"][torch.from_numpy(inputs[row, 0, : position + 1]).long()]
        mean = tokens.mean(0) @ weight["middle.weight"].T + weight["middle.bias"]
        found.append(torch.tanh(mean + tokens[-1]) @ weight["out.weight"].T + weight["out.bias"])
    return torch.stack(found)[:, :TOKENS].numpy()


@pytest.mark.parametrize("kinds", [("TinyLM", "TinyLM"), ("OnlyForward", "TinyLM")])
def test_logits_of_each_position_in_the_order_of_rows(
    kinds: tuple[str, str], rows: TransferRows, teacher: Teachers
) -> None:
    config = teacher(*kinds)
    ensemble = load_ensemble(config)
    ensemble.expect(INFO)
    logits = ensemble.logits(rows.inputs[:7])
    assert logits.shape == (7, POSITIONS, 2, TOKENS)
    flat = ensemble.outputs(rows.inputs[:7])
    assert len(flat) == 7 * POSITIONS
    for row in range(7):
        for position in range(POSITIONS):
            expected = by_hand(config, rows.inputs, row, position)
            np.testing.assert_allclose(logits[row, position], expected, atol=1e-5)
            at = row * POSITIONS + position
            np.testing.assert_allclose(flat.logits(slice(at, at + 1))[0], expected, atol=1e-5)


def test_no_member_makes_logits_of_padding_outputs(rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("TinyLM"))
    ensemble.expect(INFO)
    seen = []
    ensemble.models[0].out.register_forward_hook(lambda *_: seen.append(1))
    assert ensemble.outputs(rows.inputs[:4]).logits().shape == (32, 1, TOKENS)
    assert not seen


def test_tokens_beyond_the_outputs_may_exist_but_not_occur(rows: TransferRows, teacher: Teachers) -> None:
    for kind in ("TinyLM", "OnlyForward"):
        ensemble = load_ensemble(teacher("TinyLM", kind))
        ensemble.expect(INFO)
        expected = ensemble.outputs(rows.inputs[:2]).logits()
        ensemble.expect(replace(INFO, classes=41))
        found = ensemble.outputs(rows.inputs[:2])
        assert {"": found.classes} == check_sentinels(ensemble, rows.inputs) == {"": 40}
        torch.testing.assert_close(found.logits()[..., :TOKENS], expected)
    more = replace(INFO, classes=41)
    require_known_tokens("texts", rows.inputs, more, 40)
    inputs = rows.inputs.copy()
    inputs[17, 0, 0] = 40
    inputs[3, 0, -1] = 40  # in padding, where it says nothing
    with pytest.raises(
        LabelError, match=r"row 17 of texts holds token 40 at place 0, .* the first 40 of the tokenizer's 41"
    ):
        require_known_tokens("texts", inputs, more, 40)


def test_another_vocabulary_is_refused(teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("TinyLM", "TinyLM"))
    ensemble.models[1].vocabulary = INFO.vocabulary  # type: ignore[assignment]
    ensemble.expect(INFO)
    ensemble.models[1].vocabulary = "b" * 64  # type: ignore[assignment]
    with pytest.raises(
        ClassMismatch, match=r"member 1 .*another vocabulary \(bbbbbbbbbbbb\.\.\.\) than the rows \(aaaa"
    ):
        ensemble.expect(INFO)
    ensemble.expect(None)


def test_logits_of_other_shapes_are_refused(rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("WholeRow"))
    ensemble.expect(INFO)
    with pytest.raises(LogitsError, match=r"gives torch.float32 \(2, 9, 40\) for a batch of 2 rows of 8 positions"):
        ensemble.outputs(rows.inputs[:2])


def test_sentinels_look_at_positions_that_count(rows: TransferRows, teacher: Teachers) -> None:
    for kind in ("TinyLM", "OnlyForward", "LoosePadding"):
        ensemble = load_ensemble(teacher("TinyLM", kind))
        ensemble.expect(INFO)
        assert check_sentinels(ensemble, rows.inputs) == {"": TOKENS}
    ensemble = load_ensemble(teacher("TinyLM", "DroppingLM"))
    ensemble.expect(INFO)
    with pytest.raises(TeacherError, match=r"member 1 .*DroppingLM.* differ by"):
        check_sentinels(ensemble, rows.inputs)


ENCODINGS = [DENSE, DenseEncoding(reduce="geometric"), topk(), topk(tail="uniform", rank=0), topk(reduce="geometric")]


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'tail', '')}-{e.reduce}")
def test_every_position_gets_its_distribution(
    encoding: Encoding, layout: str, tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble = load_ensemble(teacher("TinyLM", "OnlyForward", weights=(1.0, 3.0)))
    with sequence_writer(tmp_path / "store", rows, ensemble, encoding, layout=layout, embed=rows.inputs) as writer:
        label_rows(rows, ensemble, writer)
    store, found = open_store(tmp_path / "store"), alignment(rows.inputs)
    assert verify(tmp_path / "store") == []
    assert store.positions == POSITIONS
    assert (store.column("content_key") == rows.keys).all()
    assert (store.column("input") == rows.inputs).all()
    assert (store.column("label") == -1).all()
    assert (store.column("position_mask") == found.mask).all()
    assert (store.column("document") == found.document).all()
    live, counts = ensemble.logits(rows.inputs).numpy(), found.mask.astype(bool)
    mean = (live * np.array([0.25, 0.75])[:, None]).sum(axis=2)
    tail = getattr(encoding, "tail", None)  # of topk labels
    for temperature in (1.0, 3.0):
        given = store.log_probs(range(len(rows.inputs)), temperature=temperature, mean="geometric")
        apart = np.abs(np.exp(given) - np.exp(exact(mean, temperature)))[counts]
        assert apart.max() < {None: 4e-3, "lowrank": 4e-2, "uniform": 0.3}[tail]
        if tail != "lowrank":  # what does not count is as if all logits were 0
            assert np.abs(given[~counts] + np.log(TOKENS)).max() < 3e-2


def test_top_k_columns_are_those_of_the_live_logits(tmp_path: Path, rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("TinyLM"))
    with sequence_writer(tmp_path / "store", rows, ensemble, topk()) as writer:
        manifest = label_rows(rows, ensemble, writer)
    store, found = open_store(tmp_path / "store"), alignment(rows.inputs)
    live = ensemble.logits(rows.inputs).numpy().astype(np.float64)
    live -= live.max(axis=-1, keepdims=True)
    counts = found.mask.astype(bool)
    ids = np.sort(np.argsort(-live, axis=-1)[..., :5], axis=-1)
    assert (store.column("top_class")[counts] == ids[counts]).all()
    kept = np.take_along_axis(live, ids, axis=-1)
    assert np.abs(store.column("top_logit")[counts] - kept[counts]).max() < 4e-3
    own = np.take_along_axis(live, found.next_token[..., None, None].clip(0), axis=-1)[..., 0]
    assert np.abs(store.column("label_logit")[counts] - own[counts]).max() < 8e-3
    assert np.isnan(store.column("label_logit")[~counts].astype(float)).all()
    assert manifest.fidelity["1"].kl_mean < 1e-4  # six hidden units: rank 14 says nearly all
    assert manifest.fidelity["1"].top1_agreement == 1.0


@pytest.mark.parametrize("encoding", [DENSE, topk()], ids=["dense", "topk"])
def test_blocks_do_not_show(
    encoding: Encoding, tmp_path: Path, rows: TransferRows, teacher: Teachers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = load_ensemble(teacher("TinyLM"))
    ensemble.expect(INFO)
    sizes = []
    for name, size in (("whole", 1 << 28), ("blocks", 4 * TOKENS * 5)):
        with sequence_writer(tmp_path / name, rows, ensemble, encoding) as writer, monkeypatch.context() as patch:
            patch.setattr(outputs, "BLOCK_BYTES", size)
            sizes.append(max(len(block) for _, block in ensemble.outputs(rows.inputs[:6]).blocks()))
            label_rows(rows, ensemble, writer)
    assert sizes == [6 * POSITIONS, 5]
    whole, blocks = (open_store(tmp_path / name) for name in ("whole", "blocks"))
    for temperature in (1.0, 4.0):
        one, other = (np.exp(s.log_probs(range(60), temperature=temperature)) for s in (whole, blocks))
        np.testing.assert_allclose(one, other, atol=2e-3)
    for name, fidelity in whole.manifest.fidelity.items():
        assert blocks.manifest.fidelity[name].kl_mean == pytest.approx(fidelity.kl_mean, rel=0.05, abs=1e-7)


@pytest.mark.parametrize("encoding", [DENSE, topk(), topk(tail="prior", rank=0)], ids=["dense", "lowrank", "prior"])
def test_a_stopped_run_ends_with_the_same_digest(
    encoding: Encoding, tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble = load_ensemble(teacher("TinyLM", "OnlyForward"))
    with sequence_writer(tmp_path / "unbroken", rows, ensemble, encoding) as writer:
        whole = label_rows(rows, ensemble, writer)
    for allowed in (4, 5, 100):  # batches until the stop; a shard takes 3
        done: list[int] = []
        with sequence_writer(tmp_path / "store", rows, ensemble, encoding) as writer:
            stop = lambda seen=done, allowed=allowed: len(seen) >= allowed  # noqa: E731
            if allowed < 100:
                with pytest.raises(Interrupted):
                    label_rows(rows, ensemble, writer, should_stop=stop, progress=done.append)
            else:
                assert len(writer.pending) == 2
                again = label_rows(rows, ensemble, writer, should_stop=stop, progress=done.append)
    assert (again.digest, again.content_digest) == (whole.digest, whole.content_digest)
    basis = resumable_basis(tmp_path / "store")
    assert (basis is None) == (encoding is DENSE)


@pytest.mark.parametrize("encoding", [DENSE, topk(tail="uniform", rank=0)], ids=["dense", "topk"])
def test_nan_names_row_position_and_member(
    encoding: Encoding, tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    inputs = np.array(rows.inputs)
    inputs[:, 0][inputs[:, 0] == 13] = 14
    inputs[40], inputs[41] = 13, 0  # row 41: in padding
    inputs[40, 0], inputs[40, 1] = [1, 2, 3, 13, 4, 5, 6, 7, 8], 1
    inputs[41, 0, :3], inputs[41, 1, :3], inputs[41, 0, 5] = 1, 1, 13
    poisoned = replace(rows, inputs=inputs)
    ensemble = load_ensemble(teacher("TinyLM", "NanAtToken"))
    with sequence_writer(tmp_path / "store", poisoned, ensemble, encoding) as writer:
        with pytest.raises(LogitsError, match=r"NaN \(row 40, position 3, member 1\)"):
            label_rows(poisoned, ensemble, writer)
        assert writer.pending == [2, 3]
    inputs[40, 0, 3] = 12
    with sequence_writer(tmp_path / "store", poisoned, ensemble, encoding) as writer:
        label_rows(poisoned, ensemble, writer)  # NaN in padding is nobody's


def test_ragged_rows_keep_what_they_have(tmp_path: Path, rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("TinyLM"))
    for name, options in (("regular", {}), ("ragged", {"ragged": True})):
        with sequence_writer(tmp_path / name, rows, ensemble, topk(), layout="arrow", **options) as writer:
            label_rows(rows, ensemble, writer)
    regular, ragged = (open_store(tmp_path / name) for name in ("regular", "ragged"))
    assert (ragged.column("position_mask") == regular.column("position_mask")).all()
    counts = alignment(rows.inputs).mask.astype(bool)
    for name in regular.soft_columns:
        np.testing.assert_array_equal(ragged.column(name)[counts], regular.column(name)[counts])


def test_the_pilot_is_a_spread_of_rows_that_counts_positions(rng: np.random.Generator) -> None:
    many = token_rows(rng, 3000)
    chosen = pilot_rows(many)
    found = int(alignment(many.inputs[chosen]).mask.sum())
    assert 4096 <= found < 6000
    assert (np.diff(chosen) > 0).all()
    assert np.histogram(chosen, 10, (0, 3000))[0].std() < 2
    np.testing.assert_array_equal(chosen, pilot_rows(many))
    few = token_rows(rng, 20)
    np.testing.assert_array_equal(pilot_rows(few), np.arange(20))
    np.testing.assert_array_equal(pilot_rows(replace(many, sequence=None)), np.arange(3000))
    wide = replace(many, inputs=np.zeros((10_000, 4)), sequence=None)
    assert len(pilot_rows(wide)) == 4096


def test_rows_of_another_length_are_another_alignment(rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("TinyLM"))
    longer = other_length(rows)
    assert isinstance(longer.sequence, SequenceInfo)
    ensemble.expect(longer.sequence)
    assert ensemble.logits(longer.inputs[:3]).shape == (3, LENGTH, 1, TOKENS)


class WithState(OnlyForward):
    """Its hidden states, too."""

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"next": super().forward(inputs), "state": self.hidden(inputs)}


def test_tokens_with_another_target_beside_them(tmp_path: Path, rows: TransferRows) -> None:
    torch.manual_seed(5)
    models = [WithState(), WithState()]
    labels = LabelsConfig(targets={"next": {}, "state": {"kind": "values"}}, rows_per_shard=16, rows_per_chunk=16)
    label([rows], Ensemble.of(models, device="cpu", batch_size=8), labels, tmp_path)
    store, counts = open_store(tmp_path / "train"), alignment(rows.inputs).mask == 1
    assert (store.only("next").classes, store.only("state").classes) == (TOKENS, 6)
    with torch.inference_mode():
        found = [model.eval()(torch.tensor(rows.inputs)) for model in models]
    states = np.mean([each["state"].double().numpy() for each in found], axis=0)
    np.testing.assert_allclose(store.only("state").values(range(60))[counts], states[counts], atol=1e-6)
    p = np.mean([np.exp(exact(each["next"][..., :TOKENS].double().numpy(), 2.0)) for each in found], axis=0)
    np.testing.assert_allclose(
        store.only("next").probabilities(range(60), temperature=2.0)[counts], p[counts], atol=2e-3
    )
    deviations = compare_with_teacher(store, rows, Ensemble.of(models, device="cpu"))
    assert all(found.sound for found in deviations.values())
    for wrong, message in (
        (
            {"next": {}, "state": {}},
            f"the targets next, state have 6 and {TOKENS} classes, and a softmax of rows of tokens is",
        ),
        (
            {"state": {"kind": "values"}},
            "have a softmax over the tokens, and no target is one; store it beside the others",
        ),
    ):
        with pytest.raises((ClassMismatch, ConfigError), match=message):
            label([rows], Ensemble.of(models, device="cpu"), LabelsConfig(targets=wrong), tmp_path / "wrong")
