"""Rows of tokens through the loader: every position meets its own next token and its own distribution, or is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from softlabels.errors import AlignmentError, ClassMismatch, DamagedShard, LabelError
from softlabels.labels.topk_soft import TopkMembers
from softlabels.store import Store
from softlabels.stream import EmbeddedRows, Loader, SoftLabelDataset
from softlabels.stream.stored_rows import StoredRows
from softlabels.transfer.sequences import SequenceInfo
from tests.store.samples import POSITIONS, sample
from tests.stream.samples import rows_of
from tests.stream.sequence_samples import (
    CLASSES,
    KINDS,
    ROWS,
    VOCABULARY,
    next_tokens,
    token_rows,
    token_sample,
    token_store,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("embed", [False, True])
def test_every_position_meets_its_next_token_and_its_distribution(
    tmp_path: Path, rng: np.random.Generator, kind: str, embed: bool
) -> None:
    data = token_sample(rng, kind)
    store = token_store(tmp_path / "store", data, kind, embed=embed)
    order = rng.permutation(ROWS)  # the student's rows stand in another order
    own = token_rows(data[order])
    labels, mask = next_tokens(data.inputs)
    loader = Loader(EmbeddedRows(store) if embed else own, store, batch_size=9, seed=1, window=2)
    seen = []
    for batch in loader.epoch(3):
        rows = batch.rows if embed else order[batch.rows]  # the store's
        np.testing.assert_array_equal(batch.inputs.numpy(), data.inputs[rows])
        np.testing.assert_array_equal(batch.labels.numpy(), labels[rows])
        assert batch.mask is not None
        np.testing.assert_array_equal(batch.mask.numpy(), mask[rows])
        assert batch.positions == mask[rows].sum()
        assert batch.classes == CLASSES
        assert batch.soft is not None
        want = store.log_probs(rows, temperature=2.0).reshape(-1, CLASSES)
        np.testing.assert_allclose(batch.soft.log_probs(2.0).exp().numpy(), np.exp(want), atol=2e-6)
        part = batch[2:5]
        assert part.positions == mask[rows[2:5]].sum()
        assert part.soft is not None
        one = store.log_probs(rows[2:5], temperature=1.0).reshape(-1, CLASSES)
        np.testing.assert_allclose(part.soft.log_probs(1.0).exp().numpy(), np.exp(one), atol=2e-6)
        seen += rows.tolist()
    assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize("kind", ["tokens-zarr", "sequence-zarr", "sequence-arrow", "ragged-arrow"])
def test_the_dataset_gives_the_same_through_worker_processes(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    data = token_sample(rng, kind)
    store = token_store(tmp_path / "store", data, kind)
    dataset = SoftLabelDataset(token_rows(data), store)
    labels, mask = next_tokens(data.inputs)
    context = "spawn" if kind == "tokens-zarr" else "fork"
    for batch in DataLoader(dataset, batch_size=16, num_workers=1, multiprocessing_context=context):
        rows = batch["row"].numpy()
        np.testing.assert_array_equal(batch["label"].numpy(), labels[rows])
        np.testing.assert_array_equal(batch["mask"].numpy(), mask[rows])
        want = store.log_probs(rows, temperature=2.0).reshape(-1, CLASSES)
        np.testing.assert_allclose(dataset.soft_labels(batch).log_probs(2.0).exp().numpy(), np.exp(want), atol=2e-6)
    assert len(pickle.loads(pickle.dumps(dataset))) == ROWS


def test_sparse_labels_of_single_distributions(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, ROWS, "topk-zarr", classes=CLASSES)
    store = token_store(tmp_path / "store", data, "topk-zarr", embed=True)
    for batch in Loader(EmbeddedRows(store), store, batch_size=20, seed=0, shuffle=False).epoch(0):
        assert batch.mask is None
        assert batch.soft is not None
        np.testing.assert_array_equal(batch.labels.numpy(), data.labels[batch.rows])
        want = np.exp(store.log_probs(batch.rows, temperature=3.0))
        np.testing.assert_allclose(batch.soft.log_probs(3.0).exp().numpy(), want, atol=2e-6)


def test_a_label_that_is_not_the_stores_has_no_stored_logit(tmp_path: Path, rng: np.random.Generator) -> None:
    """The logit that the store keeps is that of its own label; of another class only the tail's shape speaks."""
    data = sample(rng, ROWS, "topk-zarr", classes=CLASSES)
    store = token_store(tmp_path / "store", data, "topk-zarr", embed=True)
    rows = EmbeddedRows(store)
    changed = rng.random(ROWS) < 0.5
    rows.labels = np.where(changed, rng.integers(0, CLASSES, ROWS), rows.labels)
    kept = rows.labels == np.asarray(store.column("label"))
    dataset = SoftLabelDataset(rows, store)
    for batch in Loader(rows, store, batch_size=20, seed=0).epoch(0):
        assert isinstance(batch.soft.members, TopkMembers)  # type: ignore[union-attr]
        found = batch.soft.members.columns["label_logit"].numpy()  # type: ignore[union-attr]
        stored = store.gather("label_logit", batch.rows)
        use = (kept | (rows.labels < 0))[batch.rows]
        assert np.array_equal(found[use], stored[use], equal_nan=True)
        assert np.isnan(found[~use]).all()
        again = dataset.__getitems__(batch.rows.tolist())
        assert np.array_equal(np.stack([row["label_logit"] for row in again]), found, equal_nan=True)
    assert (~kept & (rows.labels >= 0)).any()


def test_rows_whose_tokens_may_not_be_used_and_no_store(tmp_path: Path, rng: np.random.Generator) -> None:
    data = token_sample(rng, "sequence-zarr")
    store = token_store(tmp_path / "store", data, "sequence-zarr")
    labels, mask = next_tokens(data.inputs)
    labelled = rng.random(ROWS) < 0.4
    for source in (store, None):
        for batch in Loader(token_rows(data), source, batch_size=11, seed=0, labelled=labelled).epoch(0):
            want = np.where(labelled[batch.rows][:, None], labels[batch.rows], -1)
            np.testing.assert_array_equal(batch.labels.numpy(), want)
            assert batch.positions == mask[batch.rows].sum()
            assert (batch.soft is None) == (source is None)


def test_the_stored_teacher_needs_no_tokens(tmp_path: Path, rng: np.random.Generator) -> None:
    data = token_sample(rng, "sequence-zarr")
    store = token_store(tmp_path / "store", data, "sequence-zarr")
    for batch in Loader(StoredRows(store), store, batch_size=11, seed=0, shuffle=False).epoch(0):
        assert batch.mask is not None
        np.testing.assert_array_equal(batch.mask.numpy(), data.mask[batch.rows] > 0)  # type: ignore[index]
        assert (batch.labels == -1).all()


def test_the_basis_is_made_once(tmp_path: Path, rng: np.random.Generator) -> None:
    data = token_sample(rng, "sequence-zarr")
    store = token_store(tmp_path / "store", data, "sequence-zarr")
    batches = list(Loader(token_rows(data), store, batch_size=11, seed=0).epoch(0))
    assert len({batch.soft.members.basis.data_ptr() for batch in batches}) == 1  # type: ignore[union-attr]


def refuse(error: type[Exception], message: str, data: object, store: Store, **changes: object) -> None:
    with pytest.raises(error, match=message):
        for _ in Loader(token_rows(data, **changes), store, batch_size=11, seed=0, shuffle=False).epoch(0):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("kind", ["sequence-zarr", "ragged-arrow"])
def test_positions_that_are_not_the_stores_are_refused(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data = token_sample(rng, kind)
    store = token_store(tmp_path / "store", data, kind)
    inputs = data.inputs.copy()
    row = int(np.flatnonzero(data.inputs[:, 1, 2] == 1)[0])
    inputs[row, 1] = np.concatenate([[1, 1], np.maximum(inputs[row, 1, 2:], 0) + (inputs[row, 1, 2:] > 0)])
    message = rf"row {row} of texts: the store's (position_mask says 1 at position 1, the row's tokens say 0|document)"
    refuse(AlignmentError, message, data, store, inputs=inputs)
    shorter = data.inputs.copy()
    row = int(np.flatnonzero(data.mask.any(axis=1))[-1])  # type: ignore[union-attr]
    last = int(np.flatnonzero(data.mask[row])[-1])  # type: ignore[index]
    shorter[row, :, last + 1 :] = 0
    message = f"row {row} of texts: the store's position_mask says 1 at position {last}"
    refuse(AlignmentError, message, data, store, inputs=shorter)
    longer = np.concatenate([data.inputs, np.zeros((ROWS, 2, 1), np.int32)], axis=2)
    sequence = SequenceInfo(POSITIONS + 2, CLASSES, VOCABULARY)
    refuse(
        AlignmentError, "have 6 positions, those of .* 5; set transfer_set.sequences.length to 6", data, store,
        inputs=longer, sequence=sequence,
    )  # fmt: skip
    beyond = data.inputs.copy()
    beyond[:, 0][beyond[:, 1] > 0] = CLASSES
    refuse(LabelError, "holds token 7, and the vocabulary has 7", data, store, inputs=beyond)


def test_another_tokenizer_or_another_kind_of_rows_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    data = token_sample(rng, "sequence-zarr")
    store = token_store(tmp_path / "store", data, "sequence-zarr")
    other = SequenceInfo(POSITIONS + 1, CLASSES, "cd" * 32)
    refuse(ClassMismatch, f"{'cd' * 32}.*{VOCABULARY}.*tokenizer the teacher's", data, store, sequence=other)
    more = SequenceInfo(POSITIONS + 1, CLASSES + 1, VOCABULARY)
    refuse(ClassMismatch, "has 8 tokens", data, store, sequence=more)
    refuse(ClassMismatch, "holds rows of tokens, and texts is one distribution a row", data, store, sequence=None)
    flat = sample(rng, ROWS, "topk-zarr", classes=CLASSES)
    single = token_store(tmp_path / "single", flat, "topk-zarr")
    refuse(ClassMismatch, "holds one distribution a row, and texts is rows of tokens", flat, single, inputs=data.inputs)
    assert rows_of(np.arange(4)).sequence is None


def test_what_no_encoder_writes_is_not_decoded(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store by a stranger: digests agree, and a class id lies beyond the classes."""
    data = token_sample(rng, "sequence-zarr")
    assert data.soft is not None
    columns = data.soft | {"top_class": data.soft["top_class"].copy()}
    columns["top_class"][40, 0, 0, -1] = CLASSES
    with monkeypatch.context() as patch:
        patch.setattr("softlabels.store.arrays.check_values", lambda *_, **__: None)
        store = token_store(tmp_path / "store", replace(data, soft=columns), "sequence-zarr")
    refuse(DamagedShard, "class id", data, store)
