"""What a page holds of a position gives its probabilities, entropies and divergences at any temperature of the slider."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from softlabels.labels.bernoulli import sigmoid
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, TopkEncoding
from softlabels.labels.ensemble import log_softmax
from softlabels.pages.distributions import Floats, Shown, Teacher, reference_node, shown, temperatures, weights_at

TEMPERATURES = (0.5, 0.61, 1.0, 1.37, 2.0, 4.4, 9.0, 20.0)


def encoded(
    rng: np.random.Generator, encoding: Encoding, *, members: int, classes: int, rows: int = 40
) -> tuple[Teacher, dict[str, np.ndarray]]:
    """Columns of logits, of small and of large ones, some of them impossible."""
    z = rng.normal(size=(rows, members, classes)) * rng.choice([0.3, 3.0, 12.0], (rows, 1, 1))
    if encoding.target == "softmax":
        z[: rows // 4, :, 1::3] = -np.inf
    columns, _ = encoding.encode(torch.tensor(z))
    weights = rng.dirichlet(np.ones(members))
    return Teacher(encoding, classes, None, weights), columns


def expected(teacher: Teacher, columns: dict[str, np.ndarray], temperature: float) -> np.ndarray:
    return teacher.encoding.probabilities(
        columns, teacher.classes, None, temperature=temperature, mean="arithmetic", weights=teacher.weights
    )


def entropy(p: np.ndarray) -> np.ndarray:
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)


def member_probabilities(found: Shown, temperature: float, nodes: Floats, target: str = "softmax") -> Iterator[Floats]:
    """(N, K) of each member at a temperature, from what a page holds; as `static/rows-numbers.js` computes it."""
    for member in range(found.log_p.shape[1]):
        own = found.log_p[:, member].astype(np.float64)
        if target == "sigmoid":
            yield sigmoid(own / temperature)
            continue
        moved = own * nodes[reference_node(nodes)] / temperature
        if found.carried is None:
            yield np.exp(log_softmax(moved))
            continue
        assert found.carried.curves is not None
        s = found.carried.curves[:, member] @ weights_at(temperature, nodes)  # (N, 2)
        yield np.exp(moved + np.where(found.carried.in_tail[:, member] != 0, s[:, 1:], s[:, :1]))


@pytest.mark.parametrize(
    ("encoding", "members", "classes"),
    [
        (DenseEncoding(), 3, 10),
        (DenseEncoding(), 2, 300),
        (TopkEncoding(k=16, tail="uniform", nodes=6), 2, 300),
        (TopkEncoding(k=12, tail="bucket", nodes=6), 1, 90),
    ],
    ids=["dense", "many", "topk", "one"],
)
def test_softmax(rng: np.random.Generator, encoding: Encoding, members: int, classes: int) -> None:
    teacher, columns = encoded(rng, encoding, members=members, classes=classes)
    labels = rng.integers(-1, classes, 40)
    student = rng.normal(size=(40, classes)) * 4
    nodes = temperatures(encoding, classes)
    found = shown(teacher, columns, labels, [student])
    for temperature in TEMPERATURES:
        if temperature < nodes[0]:
            continue
        p = expected(teacher, columns, temperature)
        ours = sum(
            w * each for w, each in zip(teacher.weights, member_probabilities(found, temperature, nodes), strict=True)
        )
        kept = np.take_along_axis(p, found.ids.clip(min=0), axis=1)
        assert np.abs(ours - kept)[found.ids >= 0].max() < 1e-3
        top = np.argsort(-p, axis=1)[:, :8]
        assert all(np.isin(top[n], found.ids[n]).all() for n in range(40) if np.sort(p[n])[-8] > 1e-9)
        along = weights_at(temperature, nodes)
        carried = found.carried
        if carried is None:
            assert encoding.keeps_all
            assert classes <= 64
            q = np.exp(student / temperature)
            moved = np.exp(found.students[0] * nodes[np.abs(np.log(nodes)).argmin()] / temperature)
            assert np.allclose(moved / moved.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True), atol=1e-5)
            continue
        assert carried.entropy @ along == pytest.approx(entropy(p), abs=3e-3, rel=2e-3)
        q = np.exp(student / temperature)
        q /= q.sum(axis=1, keepdims=True)
        kl = np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0).sum(axis=1)
        assert carried.kl[0] @ along == pytest.approx(kl, abs=4e-3, rel=2e-3)
        of_members = teacher.member_log_probs(columns, temperature)
        apart = entropy(p) - entropy(np.exp(of_members)) @ teacher.weights
        assert carried.disagreement @ along == pytest.approx(apart, abs=4e-3, rel=2e-3)
        moved = np.exp(found.students[0] * nodes[np.abs(np.log(nodes)).argmin()] / temperature)
        moved *= np.exp(carried.student_curves[0] @ along)[:, None]
        assert np.abs(moved - np.take_along_axis(q, found.ids.clip(min=0), axis=1))[found.ids >= 0].max() < 1e-3
    assert np.array_equal(found.students_top[0], student.argmax(axis=1))
    assert all(label < 0 or label in found.ids[n] for n, label in enumerate(labels))


@pytest.mark.parametrize(("classes", "lowest"), [(40, 0.5), (1000, 0.5), (32_000, 1.0)])
def test_one_class_beside_many_that_are_equal(classes: int, lowest: float) -> None:
    """Where it gives way to the others the curves are steepest in T."""
    gaps = np.array([0.5, 3, 5, 8, 12, 16, 20, 30, 50, 120])
    encoding = DenseEncoding() if lowest < 1 else TopkEncoding(k=1, tail="uniform", nodes=0)
    nodes = temperatures(encoding, classes)
    assert nodes[0] == lowest
    gap = gaps[:, None] / nodes
    largest = 1 / (1 + (classes - 1) * np.exp(-gap))
    curves = np.log(largest) - nodes[0] / nodes * np.log(largest[:, :1])
    entropy_at = (1 - largest) * gap - np.log(largest)
    for temperature in np.geomspace(lowest, 20, 200):
        along, gap_at = weights_at(float(temperature), nodes), gaps / temperature
        p = 1 / (1 + (classes - 1) * np.exp(-gap_at))
        assert np.abs(largest @ along - p).max() < 2e-3
        moved = np.exp(curves @ along + nodes[0] / temperature * np.log(largest[:, 0]))
        assert np.abs(moved - p).max() < 1e-3
        wanted = (1 - p) * gap_at - np.log(p)
        assert np.abs(entropy_at @ along - wanted).max() < 2e-3 * np.log(classes)


@pytest.mark.parametrize("classes", [5, 90])
def test_flags(rng: np.random.Generator, classes: int) -> None:
    teacher, columns = encoded(rng, SigmoidEncoding(), members=2, classes=classes)
    student = rng.normal(size=(40, classes)) * 20  # flags that round to 1
    found = shown(teacher, columns, np.full(40, -1), [student])
    nodes = teacher.nodes
    for temperature in TEMPERATURES:
        p = expected(teacher, columns, temperature)
        ours = sum(
            w * each
            for w, each in zip(teacher.weights, member_probabilities(found, temperature, nodes, "sigmoid"), strict=True)
        )
        assert np.abs(ours - np.take_along_axis(p, found.ids, axis=1)).max() < 1e-3
        if found.carried is None:
            assert classes == 5
            continue
        both = entropy(p) + entropy(1 - p)
        assert found.carried.entropy @ weights_at(temperature, nodes) == pytest.approx(both, rel=2e-3)
        cross = p * np.logaddexp(0, -student / temperature) + (1 - p) * np.logaddexp(0, student / temperature)
        assert found.carried.kl[0] @ weights_at(temperature, nodes) == pytest.approx(cross.sum(axis=1) - both, rel=2e-3)


def test_labels_known_at_one_temperature(rng: np.random.Generator) -> None:
    teacher, columns = encoded(rng, DenseEncoding(known_at=2.0), members=2, classes=6)
    found = shown(teacher, columns, np.full(40, -1))
    nodes = teacher.nodes
    assert nodes.tolist() == [2.0]
    p = expected(teacher, columns, 2.0)
    ours = sum(w * each for w, each in zip(teacher.weights, member_probabilities(found, 2.0, nodes), strict=True))
    assert np.abs(ours - p).max() < 1e-5


def test_blocks_do_not_matter(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, columns = encoded(rng, TopkEncoding(k=16, tail="uniform", nodes=6), members=2, classes=300)
    labels, student = rng.integers(-1, 300, 40), rng.normal(size=(40, 300))
    whole = shown(teacher, columns, labels, [student])
    monkeypatch.setattr("softlabels.pages.distributions._BYTES", 7 * teacher.row_bytes)
    cut = shown(teacher, columns, labels, [student])
    for n in range(40):
        own = whole.ids[n] >= 0
        assert np.array_equal(cut.ids[n][cut.ids[n] >= 0], whole.ids[n][own])
        assert np.array_equal(cut.log_p[n][:, cut.ids[n] >= 0], whole.log_p[n][:, own])
    assert cut.carried is not None
    assert whole.carried is not None
    assert np.array_equal(cut.carried.kl, whole.carried.kl)
