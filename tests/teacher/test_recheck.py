"""A store against the live teacher: sound stores pass, changed ones do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels.errors import Interrupted, SpecMismatch, UnlabelledRows
from softlabels.labels.encoding import DenseEncoding
from softlabels.store import Store, open_store
from softlabels.teacher import recheck
from softlabels.teacher.deviation import Deviation
from softlabels.teacher.ensemble import Ensemble, load_ensemble
from softlabels.teacher.label import label_rows
from softlabels.teacher.resume import check_committed
from softlabels.transfer import TransferRows, array_keys
from tests.teacher.conftest import ROWS, Teachers, writer_for


def compared(store: Store, rows: TransferRows, ensemble: Ensemble, **options: int) -> Deviation:
    """Of a store of one target."""
    return recheck.compare_with_teacher(store, rows, ensemble, **options)[""]


@pytest.fixture(params=["none", "geometric"])
def labelled(
    request: pytest.FixtureRequest, tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> tuple[Store, Ensemble]:
    ensemble = load_ensemble(teacher("Linear", "Linear", weights=(3.0, 1.0)))
    with writer_for(tmp_path / "store", rows, ensemble, encoding=DenseEncoding(reduce=request.param)) as writer:
        label_rows(rows, ensemble, writer)
    return open_store(tmp_path / "store"), ensemble


def test_a_sound_store_passes_wherever_its_rows_stand(
    labelled: tuple[Store, Ensemble], rows: TransferRows, rng: np.random.Generator
) -> None:
    store, ensemble = labelled
    order = rng.permutation(ROWS)
    shuffled = replace(rows, inputs=rows.inputs[order], keys=rows.keys[order], labels=rows.labels[order])
    found = compared(store, shuffled, ensemble, sample=ROWS)
    assert found.sound
    assert (found.rows, found.top1_agreement) == (ROWS, 1.0)
    assert 0 < found.largest_logit < 0.01
    assert found.together < 1e-3


def test_other_preprocessing_shows_as_a_deviation(labelled: tuple[Store, Ensemble], rows: TransferRows) -> None:
    store, ensemble = labelled
    found = compared(store, replace(rows, inputs=rows.inputs * 1.1), ensemble, sample=40)
    assert not found.sound
    assert found.largest_logit > found.allowed_logit


def test_a_class_that_became_impossible_is_a_deviation(labelled: tuple[Store, Ensemble], rows: TransferRows) -> None:
    store, ensemble = labelled
    mask = torch.tensor([0.0, -torch.inf, 0.0, 0.0, 0.0])
    ensemble.models[1].register_forward_hook(lambda module, inputs, output: output + mask)
    found = compared(store, rows, ensemble, sample=40)
    assert not found.sound
    assert found.largest_logit == np.inf


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_no_store_can_hold_is_a_deviation_also_in_place_of_an_impossible_class(
    value: float, tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble = load_ensemble(teacher("Linear"))
    given = [-torch.inf]
    at = torch.tensor([1])
    ensemble.models[0].register_forward_hook(lambda module, inputs, output: output.index_fill(1, at, given[0]))
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        label_rows(rows, ensemble, writer)
    store = open_store(tmp_path / "store")
    assert compared(store, rows, ensemble).sound
    given[0] = value
    found = compared(store, rows, ensemble)
    assert found.largest_logit == np.inf
    assert not found.sound


def test_other_weights_are_refused_by_their_digest(
    labelled: tuple[Store, Ensemble], rows: TransferRows, teacher: Teachers
) -> None:
    with pytest.raises(SpecMismatch, match="are not those that made the store"):
        compared(labelled[0], rows, load_ensemble(teacher("Linear", "Linear")))


def test_another_transfer_set_is_refused(labelled: tuple[Store, Ensemble], rows: TransferRows) -> None:
    other = np.array(rows.inputs) + 1
    with pytest.raises(UnlabelledRows, match="sampled rows of the store are not in the transfer set"):
        compared(labelled[0], replace(rows, inputs=other, keys=array_keys(other)), labelled[1])


def test_the_teacher_sees_no_more_rows_at_once_than_the_recipe_says(
    labelled: tuple[Store, Ensemble], tmp_path: Path, rows: TransferRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one whose batch just fits its device could be neither checked nor resumed."""
    store, ensemble = labelled
    shards: list[int] = []
    with writer_for(tmp_path / "begun", rows, ensemble) as writer:
        with pytest.raises(Interrupted):
            label_rows(rows, ensemble, writer, should_stop=lambda: len(shards) > 5, progress=shards.append)
        plain, sizes = Ensemble.answers, []
        monkeypatch.setattr(
            Ensemble, "answers", lambda self, given, fold=None: sizes.append(len(given)) or plain(self, given, fold)
        )
        ensemble.batch_size = 5
        check_committed(writer, rows, ensemble)
        assert sum(sizes) == 64
    assert compared(store, rows, ensemble).sound
    assert max(sizes) == 5


@pytest.mark.parametrize("marked", [lambda z: z + 1000, lambda z: z.index_fill(1, torch.tensor([1]), -1e4)])
def test_a_constant_or_a_mask_by_a_number_hides_no_change_of_the_others(
    marked: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble, factor = load_ensemble(teacher("Linear")), [1.0]
    ensemble.models[0].register_forward_hook(lambda module, inputs, output: marked(output * factor[0]))
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        label_rows(rows, ensemble, writer)
    store = open_store(tmp_path / "store")
    assert compared(store, rows, ensemble, sample=ROWS).sound
    factor[0] = 1.02
    found = compared(store, rows, ensemble, sample=ROWS)
    assert found.largest_logit <= found.allowed_logit
    assert found.together > found.allowed_together
    assert not found.sound


HALF = pytest.mark.parametrize("precision", ["bfloat16", "float16"])


@pytest.fixture
def deep(tmp_path: Path, rows: TransferRows, teacher: Teachers, precision: str) -> tuple[Store, Ensemble]:
    ensemble = load_ensemble(teacher("Deep", precision=precision))
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        label_rows(rows, ensemble, writer)
    return open_store(tmp_path / "store"), ensemble


@HALF
def test_rounding_of_half_precision_passes(
    deep: tuple[Store, Ensemble], rows: TransferRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in float32 differs from it by all the rounding that there was."""
    store, ensemble = deep
    ensemble.batch_size = 5
    assert compared(store, rows, ensemble, sample=ROWS).sound
    monkeypatch.setattr(ensemble, "_arithmetic", nullcontext)
    found = compared(store, rows, ensemble, sample=ROWS)
    assert found.sound
    assert found.together > 0


@HALF
def test_rounding_of_large_terms_that_cancel_passes(
    tmp_path: Path, rows: TransferRows, teacher: Teachers, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is large beside the logits, and too small to change a label."""
    ensemble = load_ensemble(teacher("Cancelling", precision=precision))
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        label_rows(rows, ensemble, writer)
    store = open_store(tmp_path / "store")
    monkeypatch.setattr(ensemble, "_arithmetic", nullcontext)
    found = compared(store, rows, ensemble, sample=ROWS)
    assert found.together > 0.02 * math.sqrt(found.spread / found.distributions)
    assert found.sound


@HALF
def test_rounding_of_logits_far_from_zero_passes(
    tmp_path: Path, rows: TransferRows, teacher: Teachers, precision: str
) -> None:
    """The same sums, rounded to one or the other neighbour: those of half precision lie apart there."""
    ensemble, noise = load_ensemble(teacher("Linear", precision=precision)), [0.0]
    generator = torch.Generator().manual_seed(0)

    def far(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        z = output.float() + 300
        return (z + noise[0] * torch.rand(z.shape, generator=generator)).to(output.dtype)

    ensemble.models[0].register_forward_hook(far)
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        label_rows(rows, ensemble, writer)
    noise[0] = 256 * torch.finfo(getattr(torch, precision)).eps / 2  # half the spacing from 256 to 512
    found = compared(open_store(tmp_path / "store"), rows, ensemble, sample=ROWS)
    assert found.together > 0.05 * (0.1 + math.sqrt(found.spread / found.distributions))
    assert found.sound


def with_dropout(ensemble: Ensemble, inputs: np.ndarray) -> np.ndarray:
    ensemble.models[0].train()
    return inputs


def with_epsilon(ensemble: Ensemble, inputs: np.ndarray) -> np.ndarray:
    for layer in ensemble.models[0].modules():
        if isinstance(layer, torch.nn.LayerNorm):
            layer.eps = 0.1
    return inputs


def normalised_otherwise(ensemble: Ensemble, inputs: np.ndarray) -> np.ndarray:
    return (inputs - 0.2) / 1.2


@HALF
@pytest.mark.parametrize("harm", [with_dropout, with_epsilon, normalised_otherwise])
def test_what_moves_many_logits_a_little_shows_in_half_precision(
    harm: Callable[[Ensemble, np.ndarray], np.ndarray], deep: tuple[Store, Ensemble], rows: TransferRows
) -> None:
    store, ensemble = deep
    other = replace(rows, inputs=harm(ensemble, np.array(rows.inputs)))
    found = compared(store, other, ensemble, sample=ROWS)
    assert found.together > found.allowed_together
    assert not found.sound


@pytest.mark.parametrize(("precision", "factor"), [("bfloat16", 1.08), ("float16", 1.009)])
def test_what_no_single_logit_shows_all_together_do(
    deep: tuple[Store, Ensemble], rows: TransferRows, factor: float
) -> None:
    """All logits by less than one may be off, relative to the largest, and by more than all may, relative to themselves."""
    store, ensemble = deep
    ensemble.models[0].register_forward_hook(lambda module, inputs, output: output.float() * factor)
    found = compared(store, rows, ensemble, sample=ROWS)
    assert found.largest_logit <= found.allowed_logit
    assert found.together > found.allowed_together
    assert not found.sound
