"""Stores of top-k labels and of token rows against the live teacher: rounding passes, everything else is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels.errors import SpecMismatch
from softlabels.labels.encoding import DenseEncoding, Encoding
from softlabels.store import Store, open_store
from softlabels.teacher import recheck
from softlabels.teacher.deviation import Deviation
from softlabels.teacher.ensemble import Ensemble, load_ensemble
from softlabels.teacher.label import label_rows
from softlabels.teacher.reencode import DenseTeacher
from softlabels.transfer import TransferRows
from tests.teacher.conftest import Teachers
from tests.teacher.sequences import DENSE, TOKENS, other_length, sequence_writer, token_rows, topk

Labelled = Callable[[Encoding], tuple[Store, Ensemble]]
ENCODINGS = [DENSE, DenseEncoding(reduce="geometric"), topk(), topk(reduce="geometric"), topk(tail="bucket", rank=0)]
NAMES = ["dense", "dense-geometric", "lowrank", "lowrank-geometric", "bucket"]


def compared(store: Store, rows: TransferRows, ensemble: Ensemble, **options: int) -> Deviation:
    """Of a store of one target."""
    return recheck.compare_with_teacher(store, rows, ensemble, **options)[""]


@pytest.fixture
def rows(rng: np.random.Generator) -> TransferRows:
    return token_rows(rng)


@pytest.fixture
def labelled(tmp_path: Path, rows: TransferRows, teacher: Teachers) -> Labelled:
    def make(encoding: Encoding) -> tuple[Store, Ensemble]:
        kinds = ("TinyLM",) if getattr(encoding, "tail", "") == "bucket" else ("TinyLM", "OnlyForward")
        ensemble = load_ensemble(teacher(*kinds, weights=(1.0, 2.0)))
        with sequence_writer(tmp_path / "store", rows, ensemble, encoding) as writer:
            label_rows(rows, ensemble, writer)
        return open_store(tmp_path / "store"), ensemble

    return make


@pytest.mark.parametrize("encoding", ENCODINGS, ids=NAMES)
def test_a_sound_store_passes_wherever_its_rows_stand(
    encoding: Encoding, labelled: Labelled, rows: TransferRows, rng: np.random.Generator
) -> None:
    store, ensemble = labelled(encoding)
    order = rng.permutation(len(rows.keys))
    shuffled = replace(rows, inputs=rows.inputs[order], keys=rows.keys[order])
    found = compared(store, shuffled, ensemble, sample=len(order))
    assert found.sound
    assert (found.rows, found.top1_agreement) == (len(order), 1.0)
    assert 0 < found.largest_logit < 0.01
    if isinstance(encoding, DenseEncoding):
        assert found.largest_mass is None
    else:
        assert found.largest_mass is not None
        assert 0 < found.largest_mass < 1e-3


def adding(ensemble: Ensemble, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change what the members say, without a word to the digest of their weights."""
    for model in ensemble.models:
        model.output_matrix = lambda: None  # type: ignore[assignment]
        model.register_forward_hook(lambda module, inputs, output: change(output))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=NAMES)
def test_other_logits_show(encoding: Encoding, labelled: Labelled, rows: TransferRows) -> None:
    store, ensemble = labelled(encoding)
    adding(ensemble, lambda logits: logits * 1.05)
    found = compared(store, rows, ensemble, sample=40)
    assert not found.sound
    assert found.largest_logit > found.allowed_logit


@pytest.mark.parametrize("marked", [lambda z: z + 1000, lambda z: z.index_fill(-1, torch.arange(9), -1e4)])
def test_a_constant_or_a_mask_by_a_number_hides_no_change_of_the_others(
    marked: Callable[[torch.Tensor], torch.Tensor], labelled: Labelled, tmp_path: Path, rows: TransferRows
) -> None:
    ensemble, factor = labelled(topk())[1], [1.0]
    adding(ensemble, lambda logits: marked(logits * factor[0]))
    with sequence_writer(tmp_path / "marked", rows, ensemble, topk(tail="uniform", rank=0)) as writer:
        label_rows(rows, ensemble, writer)
    store = open_store(tmp_path / "marked")
    assert compared(store, rows, ensemble, sample=60).sound
    factor[0] = 1.01
    found = compared(store, rows, ensemble, sample=60)
    assert found.largest_logit <= found.allowed_logit
    assert found.together > found.allowed_together
    assert not found.sound


def test_another_tail_shows_in_its_mass(labelled: Labelled, rows: TransferRows) -> None:
    store, ensemble = labelled(topk())

    def weaker(logits: torch.Tensor) -> torch.Tensor:
        kept = logits >= logits[..., :TOKENS].topk(5, dim=-1).values[..., -1:]
        return torch.where(kept, logits, logits - 0.5)

    adding(ensemble, weaker)
    found = compared(store, rows, ensemble, sample=40)
    assert found.largest_mass is not None
    assert found.largest_mass > found.allowed_mass
    assert not found.sound


def test_what_a_mass_may_be_off_by_follows_from_the_arithmetic_and_the_encoding() -> None:
    assert Deviation("float32", encoded_mass=0.02).allowed_mass == pytest.approx(0.05)
    assert Deviation("bfloat16").allowed_mass == pytest.approx(0.1)
    assert not Deviation("bfloat16", largest_mass=0.2).sound


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("encoding", [DENSE, topk()], ids=["dense", "lowrank"])
def test_tokens_that_stand_one_position_on_show_in_half_precision(
    precision: str, encoding: Encoding, tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble = load_ensemble(teacher("TinyLM", precision=precision))
    with sequence_writer(tmp_path / "store", rows, ensemble, encoding) as writer:
        label_rows(rows, ensemble, writer)
    store = open_store(tmp_path / "store")
    assert compared(store, rows, ensemble, sample=40).sound
    tokens = np.array(rows.inputs)
    tokens[:, 0, 1:] = tokens[:, 0, :-1].copy()
    found = compared(store, replace(rows, inputs=tokens), ensemble, sample=40)
    assert found.together > found.allowed_together
    assert not found.sound


def test_a_class_above_the_stored_ones_shows(labelled: Labelled, rows: TransferRows) -> None:
    """It would be in the tail, whose mass it does not change, by as much as it rose."""
    store, ensemble = labelled(topk())

    def risen(logits: torch.Tensor) -> torch.Tensor:
        last = logits[..., :TOKENS].topk(6, dim=-1)
        raised = last.values[..., 4:5] * 0.5 + last.values[..., 0:1] * 0.5
        return logits.scatter(-1, last.indices[..., 5:6], raised)

    adding(ensemble, risen)
    found = compared(store, rows, ensemble, sample=40)
    assert not found.sound
    assert found.largest_logit > found.allowed_logit


def test_a_class_that_became_impossible_shows(labelled: Labelled, rows: TransferRows) -> None:
    store, ensemble = labelled(topk())
    adding(ensemble, lambda logits: logits.index_fill(-1, torch.tensor([1]), -torch.inf))
    assert compared(store, rows, ensemble, sample=60).largest_logit == np.inf


@pytest.mark.parametrize("encoding", [DENSE, topk()], ids=["dense", "topk"])
def test_rows_cut_otherwise_are_refused(encoding: Encoding, labelled: Labelled, rows: TransferRows) -> None:
    store, ensemble = labelled(encoding)
    with pytest.raises(SpecMismatch, match="position_mask of the store is not that of the transfer set"):
        compared(store, other_length(rows), ensemble, sample=40)
    inputs = np.array(rows.inputs)
    inputs[:, 1] = np.minimum(inputs[:, 1], 1)  # one document instead of several
    with pytest.raises(SpecMismatch, match=r"position_mask of the store|document of the store"):
        compared(store, replace(rows, inputs=inputs), ensemble, sample=60)


def test_labels_of_a_dense_store_that_has_no_tokens_are_compared_but_for_the_logit_of_the_next_one(
    tmp_path: Path, rows: TransferRows, labelled: Labelled
) -> None:
    """`encode` does not know which token is next then, and keeps no logit of it."""
    dense, ensemble = labelled(DENSE)
    encoding = topk(tail="uniform", rank=0)
    with sequence_writer(tmp_path / "sparse", rows, ensemble, encoding) as writer:
        label_rows(dense, DenseTeacher(dense.spec.teacher, torch.device("cpu")), writer)
    sparse = open_store(tmp_path / "sparse")
    assert np.isnan(sparse.column("label_logit")).all()
    assert compared(sparse, rows, ensemble, sample=60).sound
    adding(ensemble, lambda logits: logits * 1.05)
    assert not compared(sparse, rows, ensemble, sample=60).sound
