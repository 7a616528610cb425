"""The trainer on a real store through the real loader: stopped in the middle of an epoch and gone on, it ends alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from softlabels.errors import Interrupted, SpecMismatch
from softlabels.models.mlp import MLP
from softlabels.store import Store
from softlabels.stream import Loader
from softlabels.student.config import TrainingConfig
from softlabels.student.evaluate import Asked, evaluate_student, evaluate_teacher
from softlabels.student.learner import Student
from softlabels.student.split import labelled_rows, validation_rows
from softlabels.student.trainer import Trainer
from tests.stream.samples import CLASSES, MEMBERS, rows_of, write_store

CONFIG = TrainingConfig(epochs=3, batch_size=24, threads=1, device="cpu", hard_label_fraction=0.3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("store") / "train", np.arange(200))


def make(
    store: Store, folder: Path, order: np.ndarray, *, of_before: bool = False, is_known: bool = False
) -> tuple[nn.Module, Loader, Trainer]:
    """A trainer over the rows of the store, which stand in another order in the transfer set: of an earlier version, whose
    order goes by chunks, or one that knows of such.
    """
    rows = rows_of(order)
    held_out = validation_rows(rows.keys, CONFIG.validation, CONFIG.seed)
    labelled = labelled_rows(rows.keys, CONFIG.hard_label_fraction, CONFIG.seed)
    train = Loader(rows, store, batch_size=24, seed=0, selection=np.flatnonzero(~held_out), block=16, window=2)
    validation = Loader(rows, store, batch_size=24, seed=0, selection=np.flatnonzero(held_out), shuffle=False)
    student = Student.begin(
        "", CONFIG, lambda: MLP(inputs=6, hidden=[8], classes=CLASSES, dropout=0.2), labelled=labelled
    )
    before = (train.by_chunks(), validation.by_chunks()) if is_known else None
    if of_before:
        train, validation = train.by_chunks(), validation.by_chunks()
    trainer = Trainer([student], train, validation, folder, {"store": store.digest}, before=before)
    return student.model, validation, trainer


def test_a_student_from_a_store_goes_on_exactly(tmp_path: Path, store: Store, rng: np.random.Generator) -> None:
    order = rng.permutation(200)
    model, validation, trainer = make(store, tmp_path / "whole", order)
    [whole] = trainer.run()
    assert whole.steps == 3 * 8
    for stop in (3, 8, 13):
        asked = iter(range(stop + 1))
        with pytest.raises(Interrupted):
            make(store, tmp_path / f"stopped{stop}", order)[2].run(lambda asked=asked, at=stop: next(asked) == at)  # type: ignore[misc]
        [again] = make(store, tmp_path / f"stopped{stop}", order)[2].run()
        assert again.weights.read_bytes() == whole.weights.read_bytes()

    asked, device = {"": Asked((4.0,))}, torch.device("cpu")
    scores = evaluate_student(model, validation, asked, device=device)  # by class, too
    assert {**scores, **whole.scores} == scores
    teacher, members = evaluate_teacher(validation, asked, device=device)
    assert teacher["kl"] == {"1": 0.0, "4": 0.0}
    assert len(members) == MEMBERS


def test_a_run_of_an_earlier_version_goes_on_in_its_order(
    tmp_path: Path, store: Store, rng: np.random.Generator
) -> None:
    order = rng.permutation(200)
    [whole] = make(store, tmp_path / "whole", order, of_before=True)[2].run()
    asked = iter(range(14))
    with pytest.raises(Interrupted):
        make(store, tmp_path / "stopped", order, of_before=True)[2].run(lambda: next(asked) == 13)
    with pytest.raises(SpecMismatch, match=r"order\.train: "):
        make(store, tmp_path / "stopped", order)[2].run()
    asked = iter(range(5))
    with pytest.raises(Interrupted):  # and is stopped once more
        make(store, tmp_path / "stopped", order, is_known=True)[2].run(lambda: next(asked) == 4)
    trainer = make(store, tmp_path / "stopped", order, is_known=True)[2]
    [again] = trainer.run()
    assert trainer.is_of_before
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    new = make(store, tmp_path / "new", order, is_known=True)[2]
    assert new.run()[0].weights.read_bytes() != whole.weights.read_bytes()
    assert not new.is_of_before


def test_other_rows_are_another_run(tmp_path: Path, store: Store) -> None:
    stop = iter([False, True])
    with pytest.raises(Interrupted):
        make(store, tmp_path, np.arange(200))[2].run(lambda: next(stop))
    with pytest.raises(SpecMismatch, match=r"order\.train: "):
        make(store, tmp_path, np.arange(150))[2].run()
