"""Likely label errors: as cleanlab finds them on the same probabilities, however examples are cut into blocks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from softlabels.checks.label_errors import Block, Blocks, LabelErrors, SparseBlock, find_label_errors

DIGITS = Path(__file__).parents[2] / "data" / "digits" / "train-00000-of-00001.parquet"
MNIST = Path(os.environ.get("SOFTLABELS_MNIST", Path(__file__).parents[3] / "shared" / "data" / "mnist"))


def in_blocks(labels: NDArray[np.int64], p: NDArray[np.floating], size: int = 1 << 20) -> Blocks:
    def blocks() -> Iterable[Block]:
        for start in range(0, len(labels), size):
            cut = slice(start, start + size)
            yield Block(np.arange(len(labels))[cut], labels[cut], p[cut])

    return blocks


def by_cleanlab(labels: NDArray[np.int64], p: NDArray[np.floating]) -> NDArray[np.int64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cleanlab and what it imports
        from cleanlab.filter import find_label_issues

        found: NDArray[np.int64] = find_label_issues(
            labels, p, filter_by="prune_by_noise_rate", return_indices_ranked_by="normalized_margin", n_jobs=1
        )
    return found


def precision_recall(found: NDArray[np.int64], wrong: NDArray[np.bool_]) -> tuple[float, float]:
    return float(wrong[found].mean()), float(wrong[found].sum() / wrong.sum())


def flipped(truth: NDArray[np.int64], rng: np.random.Generator, share: float = 0.05) -> NDArray[np.int64]:
    """The labels with a share of them replaced by another class."""
    classes = int(truth.max()) + 1
    rows = rng.permutation(len(truth))[: round(share * len(truth))]
    found = truth.copy()
    found[rows] = (truth[rows] + rng.integers(1, classes, len(rows))) % classes
    return found


def out_of_fold(inputs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities of a linear model that did not see a row's label."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_predict

    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
    found: NDArray[np.float64] = cross_val_predict(model, inputs, labels, cv=4, method="predict_proba")
    return found


def close_to_cleanlab(
    given: NDArray[np.int64], truth: NDArray[np.int64], p: NDArray[np.floating]
) -> tuple[LabelErrors, tuple[float, float]]:
    found = find_label_errors(in_blocks(given, p, 1000), p.shape[1])
    ours = precision_recall(found.places, given != truth)
    theirs = precision_recall(by_cleanlab(given, p), given != truth)
    assert ours == pytest.approx(theirs, abs=0.01)
    return found, ours


def made_up(
    rng: np.random.Generator, classes: int, rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], np.ndarray]:
    """Truth, labels some of which are wrong, and probabilities."""
    truth = rng.choice(classes, rows, p=rng.dirichlet(np.full(classes, 3.0)))
    z = rng.normal(size=(rows, classes)) * rng.uniform(0.3, 2)
    z[np.arange(rows), truth] += rng.uniform(2, 6)
    p = np.exp(z)
    return truth, flipped(truth, rng, 0.08), p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("classes", "rows"), [(2, 500), (3, 2000), (7, 2000), (25, 8000)])
def test_as_cleanlab(rng: np.random.Generator, classes: int, rows: int) -> None:
    truth, given, p = made_up(rng, classes, rows)
    found, _ = close_to_cleanlab(given, truth, p)
    theirs = by_cleanlab(given, p)
    assert len(np.intersect1d(theirs, found.places)) >= 0.97 * max(len(theirs), len(found.places))
    assert found.looked_at == rows
    own = p[found.places, given[found.places]]
    others = p[found.places]
    others[np.arange(len(others)), given[found.places]] = 0
    assert np.array_equal(found.given, given[found.places])
    assert np.array_equal(found.suggested, others.argmax(axis=1))
    assert np.allclose(found.scores, (own - others.max(axis=1) + 1) / 2)
    assert (np.diff(found.scores) >= 0).all()


def test_as_cleanlab_where_classes_are_missing_rows_unlabelled_and_probabilities_equal(
    rng: np.random.Generator,
) -> None:
    """Problems small and large together; of equals each chooses its own."""
    ours, theirs, both = 0, 0, 0
    for classes in (2, 5, 11, 23, 40):
        _, given, p = made_up(rng, classes, int(rng.integers(100, 600)))
        p = np.round(p, 2) if classes % 2 else p.astype(np.float32)
        given[rng.random(len(given)) < 0.2] = -1
        given[given == classes - 1] = -1 if classes > 2 else 1
        has = np.flatnonzero(given >= 0)
        found = find_label_errors(in_blocks(given, p, 97), classes).places
        wanted = has[by_cleanlab(given[has], p[has].astype(np.float64))]
        ours, theirs, both = ours + len(found), theirs + len(wanted), both + len(np.intersect1d(found, wanted))
    assert both >= 0.85 * max(ours, theirs)  # both round the numbers wanted of each pair, each in its own way


def test_blocks_do_not_matter(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    _, given, p = made_up(rng, 6, 3000)
    p = np.round(p, 2)  # with ties
    whole = find_label_errors(in_blocks(given, p), 6)
    monkeypatch.setattr("softlabels.checks.label_errors._SPARE", 10)  # candidates are pruned again and again
    for size in (13, 1000):
        cut = find_label_errors(in_blocks(given, p, size), 6)
        assert np.array_equal(cut.places, whole.places)
        assert np.array_equal(cut.scores, whole.scores)


def test_of_a_few_classes_kept_by_themselves(rng: np.random.Generator) -> None:
    """It is as if the other classes shared evenly what is left; none of them reaches a threshold here."""
    classes, k = 30, 6
    _, given, p = made_up(rng, classes, 3000)
    given[::11] = -1
    ids = np.argsort(-p, axis=1)[:, :k]
    others = np.ones(p.shape, np.bool_)
    label = given.clip(min=0)[:, None]
    ids = np.concatenate([label, np.where(ids == label, -1, ids)], axis=1)
    np.put_along_axis(others, np.where(ids < 0, label, ids), np.False_, axis=1)
    rest = np.where(others, p, 0).sum(axis=1) / others.sum(axis=1)
    even = np.where(others, rest[:, None], p)
    kept = np.where(ids < 0, 0, np.take_along_axis(p, ids, axis=1))

    def sparse() -> Iterable[SparseBlock]:
        for cut in (slice(0, 1700), slice(1700, 3000)):
            yield SparseBlock(np.arange(3000)[cut], given[cut], ids[cut], kept[cut], rest[cut])

    found, wanted = find_label_errors(sparse, classes), find_label_errors(in_blocks(given, even), classes)
    assert len(wanted.places) > 50
    for name in ("places", "given", "suggested", "scores"):
        assert np.allclose(getattr(found, name), getattr(wanted, name))


def test_rows_without_labels_and_classes_without_rows(rng: np.random.Generator) -> None:
    """They change nothing of the others."""
    _, given, p = made_up(rng, 5, 800)
    p = np.pad(p, ((0, 0), (0, 1)))
    known = find_label_errors(in_blocks(given, p), 6)
    gaps = np.sort(rng.choice(1200, 800, replace=False))
    labels, wide = np.full(1200, -1), rng.dirichlet(np.ones(6), 1200)
    labels[gaps], wide[gaps] = given, p
    among = find_label_errors(in_blocks(labels, wide, 100), 6)
    assert np.array_equal(among.places, gaps[known.places])
    assert among.looked_at == 800


def test_nothing_to_find(rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(4), 50)
    right = find_label_errors(in_blocks(p.argmax(axis=1), p), 4)
    assert (len(right.places), right.looked_at) == (0, 50)
    none = find_label_errors(in_blocks(np.full(50, -1), p), 4)
    assert (len(none.places), none.looked_at) == (0, 0)
    assert find_label_errors(in_blocks(np.zeros(0, np.int64), p[:0]), 4).looked_at == 0


def test_digits_with_wrong_labels(rng: np.random.Generator) -> None:
    """Over several draws together: of one draw a single row is 1.5% of the wrong labels, and cleanlab chooses among equals as
    the machine sorts them.
    """
    rows = pq.read_table(DIGITS)
    truth = rows["label"].to_numpy()
    images = np.array(rows["image"].to_pylist(), np.float64).reshape(len(truth), -1) / 16
    ours, theirs = [], []
    for _ in range(8):
        given = flipped(truth, rng)
        p = out_of_fold(images, given)
        found = find_label_errors(in_blocks(given, p, 500), 10).places
        ours.append(precision_recall(found, given != truth))
        theirs.append(precision_recall(by_cleanlab(given, p), given != truth))
    precision, recall = np.mean(ours, axis=0)
    assert np.mean(ours, axis=0) == pytest.approx(np.mean(theirs, axis=0), abs=0.01)
    assert precision > 0.45
    assert recall > 0.85


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"needs MNIST's Parquet files in {MNIST} (or SOFTLABELS_MNIST)")
def test_mnist_with_wrong_labels(rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    """5% of the training labels flipped; the numbers of docs/results.md."""
    import io

    from PIL import Image

    rows = pq.read_table(MNIST / "train-00000-of-00001.parquet")
    truth = rows["label"].to_numpy()
    files = (image["bytes"] for image in rows["image"].to_pylist())
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)), np.float32).reshape(-1) / 255 for file in files])
    given = flipped(truth, rng)
    p = out_of_fold(images, given)
    _, (precision, recall) = close_to_cleanlab(given, truth, p)
    theirs = precision_recall(by_cleanlab(given, p), given != truth)
    with capsys.disabled():
        print(f"\nprecision {precision:.4f}, cleanlab {theirs[0]:.4f}; recall {recall:.4f}, cleanlab {theirs[1]:.4f}")
