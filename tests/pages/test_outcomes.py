"""What a page says of a teacher's distributions, against numpy in float64 that uses nothing of ours."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from softlabels import open_store, write_store
from softlabels.pages.histograms import BINS, histograms, interpolation
from softlabels.pages.outcomes import PAIRS, Outcomes, outcomes
from softlabels.pages.sample import positions, sample
from softlabels.pages.slider import Slider
from softlabels.store import Store
from softlabels.store.spec import MemberSpec, TeacherSpec

GOLDEN = Path(__file__).parent.parent / "store" / "golden"
Floats = NDArray[np.float64]
WEIGHTS = np.array([1.0, 2.0, 0.0])


def found_in(store: Store, most: int = 10_000) -> Outcomes:
    taken = sample(store, most)
    return outcomes(store, lambda: (columns for _, _, columns in positions(store, taken, most)))


def store_of(path: Path, logits: NDArray[np.floating], kind: str = "softmax", **more: object) -> Store:
    members = tuple(MemberSpec(model=f"m{at}", weight=weight) for at, weight in enumerate(WEIGHTS.tolist()))
    teacher = TeacherSpec(name="t", precision="float32", members=members[: logits.shape[-2]])
    keys = np.random.default_rng(0).integers(0, 256, (len(logits), 16), np.uint8)
    return write_store(path / "train", logits, keys=keys, kind=kind, teacher=teacher, **more)  # type: ignore[arg-type]


def softmax(z: Floats) -> Floats:
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def entropy(p: Floats) -> Floats:
    return np.asarray(-np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1))


def stored(store: Store) -> Floats:
    return np.asarray(store.column("logits"), np.float64)


def ensemble(p: Floats) -> Floats:
    return np.asarray(np.einsum("m,rmc->rc", WEIGHTS / WEIGHTS.sum(), p))


@pytest.mark.parametrize("temperature", [0.5, 0.63, 1.0, 2.0, 3.37, 20.0])
def test_softmax(tmp_path: Path, rng: np.random.Generator, temperature: float) -> None:
    logits = rng.normal(size=(300, 3, 6)) * 4
    logits[::7, :, 2] = -np.inf
    store = store_of(tmp_path, logits)
    found = found_in(store)
    by = interpolation(np.array([temperature]), found.temperatures)[0]
    p = softmax(stored(store) / temperature)
    mean = ensemble(p)
    assert np.abs(found.entropy[0] @ by - entropy(mean)).max() < 2e-3
    assert np.abs(found.entropy[1:] @ by - entropy(p).T).max() < 2e-3
    assert np.abs(found.top[0] @ by - mean.max(axis=-1)).max() < 1e-2  # the largest class of an ensemble may change
    assert np.abs(found.top[1:] @ by - p.max(axis=-1).T).max() < 1e-3
    assert np.abs(by @ found.mass - mean.mean(axis=0)).max() < 1e-4
    apart = (entropy(mean) - entropy(p) @ WEIGHTS / WEIGHTS.sum()).mean()
    assert abs(by @ found.apart - apart) < 1e-4
    group = ensemble(softmax(stored(store))).argmax(axis=-1)
    assert found.tops.tolist() == np.bincount(group, minlength=6).tolist()
    expected = np.stack([mean[group == i].mean(axis=0) for i in range(6)])
    joint = by @ found.joint
    assert np.abs(joint - [expected[i, j] for i, j in found.pairs]).max() < 1e-3
    tops = stored(store).argmax(axis=-1)
    assert np.allclose(found.alike, [[(tops[:, a] == tops[:, b]).mean() for b in range(3)] for a in range(3)])


def test_sigmoid(tmp_path: Path, rng: np.random.Generator) -> None:
    store = store_of(tmp_path, rng.normal(size=(200, 3, 4)) * 3, "sigmoid")
    found, temperature = found_in(store), 2.7
    by = interpolation(np.array([temperature]), found.temperatures)[0]
    p = 1 / (1 + np.exp(-stored(store) / temperature))
    mean = ensemble(p)
    flags = entropy(np.stack([mean, 1 - mean], axis=-1)).mean(axis=-1)
    assert np.abs(found.entropy[0] @ by - flags).max() < 2e-3
    assert np.abs(by @ found.mass - mean.mean(axis=0)).max() < 1e-4
    assert found.pairs.tolist() == [[i, j] for i in range(4) for j in range(i + 1, 4)]
    assert np.abs(by @ found.joint - [(mean[:, i] * mean[:, j]).mean() for i, j in found.pairs]).max() < 1e-3
    yes = stored(store) > 0
    assert np.allclose(found.alike, [[(yes[:, a] == yes[:, b]).mean() for b in range(3)] for a in range(3)])


@pytest.mark.parametrize("name", ["v2-topk-zarr", pytest.param("v2-pages-arrow", marks=pytest.mark.slow)])
def test_of_topk_labels_as_the_store_gives_them(name: str) -> None:
    store = open_store(GOLDEN / name)
    store = store.only(store.targets[0])
    found = found_in(store)
    for temperature in (float(found.temperatures[0]), 1.7, 9.0):
        by = interpolation(np.array([temperature]), found.temperatures)[0]
        p = np.exp(store.log_probs(range(store.rows), temperature=temperature)).reshape(-1, store.classes)
        if store.positions is not None:
            p = p[store.column("position_mask").reshape(-1) != 0]
        assert np.abs(found.entropy[0] @ by - entropy(p)).max() < 5e-3
        assert np.abs(by @ found.mass - p.mean(axis=0)).max() < 1e-3


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_of_many_classes_the_largest_pairs(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    logits = rng.normal(size=(400, 2, 90))
    logits[:200, :, 3] += 9
    logits[:200, :, 71] += 8
    store = store_of(tmp_path, logits, kind)
    found = found_in(store)
    assert len(found.pairs) <= PAIRS
    at = int(np.abs(np.log(found.temperatures)).argmin())
    mean = np.einsum("m,rmc->rc", WEIGHTS[:2] / 3, softmax(stored(store) / found.temperatures[at]))
    if kind == "sigmoid":
        mean = np.einsum("m,rmc->rc", WEIGHTS[:2] / 3, 1 / (1 + np.exp(-stored(store) / found.temperatures[at])))
        expected = {(i, j): (mean[:, i] * mean[:, j]).mean() for i, j in found.pairs.tolist()}
    else:
        group = np.einsum("m,rmc->rc", WEIGHTS[:2] / 3, softmax(stored(store))).argmax(axis=-1)
        expected = {(i, j): mean[group == i, j].mean() for i, j in found.pairs.tolist()}
    assert (3, 71) in expected
    assert np.allclose(found.joint[at], [*expected.values()], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 1.9, 3.37, 8.0])
def test_of_many_classes_one_far_above_the_others(tmp_path: Path, rng: np.random.Generator, temperature: float) -> None:
    """Where it gives way to all others together the curves are steepest."""
    logits = rng.normal(size=(60, 2, 500)) * 0.3
    logits[np.arange(60), :, rng.integers(0, 3, 60)] += rng.uniform(5, 40, 60)[:, None]
    store = store_of(tmp_path, logits)
    found = found_in(store)
    by = interpolation(np.array([temperature]), found.temperatures)[0]
    p = softmax(stored(store) / temperature)
    mean = np.einsum("m,rmc->rc", WEIGHTS[:2] / 3, p)
    assert np.abs(found.entropy[0] @ by - entropy(mean)).max() < 2e-3 * math.log(500)
    assert np.abs(found.top[0] @ by - mean.max(axis=-1)).max() < 2e-3
    assert np.abs(by @ found.mass - mean.mean(axis=0)).max() < 5e-4


def test_histograms_are_those_of_numpy(tmp_path: Path, rng: np.random.Generator) -> None:
    store = store_of(tmp_path, rng.normal(size=(500, 3, 5)) * 3)
    slider = Slider.of([store])
    assert slider is not None
    found, at = found_in(store), 40
    packed = histograms(found.entropy, math.log(5), interpolation(slider.stops, found.temperatures))
    counts = np.frombuffer(base64.b64decode(packed["counts"]["base64"]), "<u2").reshape(packed["counts"]["shape"])
    assert counts.shape == (4, len(slider.stops), BINS)
    p = softmax(stored(store) / slider.stops[at])
    for voice, each in enumerate([ensemble(p), *p.transpose(1, 0, 2)]):
        wanted = np.histogram(entropy(each), BINS, (0, math.log(5)))[0]
        assert counts[voice, at].sum() == 500
        assert np.abs(counts[voice, at] - wanted.astype(int)).sum() <= 6  # on the edge of two bins
