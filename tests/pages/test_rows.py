"""The rows of a store on a page: which are shown, and what the page holds of them."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels import write_store
from softlabels.errors import ConfigError
from softlabels.jobs.label_error_list import write_label_errors
from softlabels.pages.answers import Answers
from softlabels.pages.distributions import weights_at
from softlabels.pages.looked import looked_at
from softlabels.pages.numbers import in_script
from softlabels.pages.row_choice import EVEN, LABEL_ERRORS, interleaved, ranked
from softlabels.pages.row_scan import scan
from softlabels.store import Store
from tests.pages.looked_rows import looked_rows
from tests.store import samples


def read(packed: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(packed["base64"])
    return np.frombuffer(data, np.dtype(packed["dtype"]).newbyteorder("<")).reshape(packed["shape"])


def noise(root: Path, rng: np.random.Generator, rows: int = 300, **more: Any) -> Store:
    """A store of three members over five classes, whose members disagree more and more, and some of whose labels are wrong."""
    truth = rng.integers(0, 5, rows)
    z = rng.normal(size=(rows, 3, 5)) * np.linspace(0.1, 2, rows)[:, None, None]
    z[np.arange(rows), :, truth] += 5
    labels = np.where(np.arange(rows) < 20, (truth + 1) % 5, truth)
    if "inputs" not in more:
        more["keys"] = some_keys(rng, rows)
    return write_store(root / "test", z, labels=labels, classes=list("abcde"), **more)


def some_keys(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 256, (rows, 16), np.uint8)


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(axis=-1)


def test_scores_of_rows(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    store = noise(tmp_path, rng)
    monkeypatch.setattr("softlabels.pages.row_scan._BLOCK", 500)  # less than a chunk
    found = scan(store)
    z = store.gather("logits", np.arange(300)).astype(np.float64)
    p = softmax(z)
    assert np.allclose(found.scores["entropy"], entropy(p.mean(axis=1)))
    assert np.allclose(found.scores["disagreement"], entropy(p.mean(axis=1)) - entropy(p).mean(axis=1), atol=1e-6)
    assert found.errors is not None
    assert set(range(20)) <= {*found.errors.places.tolist()}
    assert found.errors.looked_at == 300


def test_what_is_shown_first(tmp_path: Path, rng: np.random.Generator) -> None:
    store = noise(tmp_path, rng)
    asked = np.arange(100, 250)
    z = store.log_probs(asked, temperature=1.0)
    z[7] = z[7][::-1]  # this student is wrong about one row
    student = Answers("student, x", "distilled", asked, z.astype(np.float32))
    found = scan(store)
    lists = ranked(store, found, [student])
    assert [*lists] == [
        LABEL_ERRORS, "highest entropy", "largest disagreement of members", "farthest from the teacher: student, x", EVEN,
    ]  # fmt: skip
    assert lists["farthest from the teacher: student, x"][0] == 107
    assert found.errors is not None
    assert lists[LABEL_ERRORS].tolist() == found.errors.places.tolist()
    highest = asked[np.argsort(-found.scores["entropy"][asked], kind="stable")]
    assert lists["highest entropy"][:10].tolist() == highest[:10].tolist()
    rows = interleaved(lists)
    assert rows[:2] == [lists[LABEL_ERRORS][0], highest[0]]
    assert len(rows) == len({*rows})
    assert 107 in rows[:5]


def test_a_page_keeps_to_its_budget(tmp_path: Path, rng: np.random.Generator) -> None:
    store = noise(tmp_path, rng, inputs=rng.integers(0, 256, (300, 24, 24), np.uint8))
    for budget in (1_000, 20_000, 100_000):
        (section,) = looked_rows({"test": store}, budget=budget)
        size = len(in_script(section.data))
        assert size < budget * 1.2 + 3_000
        assert len(section.data["rows"]) >= 1
        assert f"{len(section.data['rows'])} of 300 rows" in section.html
    pictures = [each["inputs"][0] for each in section.data["rows"]]
    assert all(each["kind"] == "picture" and each["source"].startswith("data:image/png;base64,") for each in pictures)


def test_likely_label_errors_are_said_and_marked(tmp_path: Path, rng: np.random.Generator) -> None:
    store = noise(tmp_path, rng)
    (section,) = looked_rows({"test": store})
    found = scan(store).errors
    assert found is not None
    assert f"Likely label errors: {len(found.places)} of 300 hard labels" in section.html
    assert "remembers" in section.html  # no folds
    marked = {each["row"]: each["error"] for each in section.data["rows"] if each["error"]}
    assert {*marked} == {*found.places.tolist()}
    row = int(found.places[0])
    (one,) = marked[row]
    assert (one["suggested"], one["score"]) == ("abcde"[found.suggested[0]], round(float(found.scores[0]), 4))


def test_without_inputs_it_says_so(tmp_path: Path, rng: np.random.Generator) -> None:
    (section,) = looked_rows({"test": noise(tmp_path, rng)})
    assert "holds no inputs" in section.html
    assert all(each["inputs"] is None for each in section.data["rows"])


def test_many_classes(tmp_path: Path, rng: np.random.Generator) -> None:
    """The page holds few of them, and carries entropy and student to any temperature."""
    z = rng.normal(size=(40, 2, 500)) * 4
    store = write_store(tmp_path / "test", z, keys=some_keys(rng, 40))
    student = rng.normal(size=(40, 500)).astype(np.float32)
    (section,) = looked_rows({"test": store}, answers={"test": [Answers("s", "hard", np.arange(40), student)]})
    data = section.data
    assert read(data["ids"]).shape[1] < 120
    along = weights_at(3.0, np.array(data["nodes"]))
    rows = [each["row"] for each in data["rows"]]
    p = np.exp(store.log_probs(rows, temperature=3.0))
    assert read(data["entropy"]) @ along == pytest.approx(entropy(p), rel=2e-3)
    kl = (p * (np.log(p) - np.log(softmax(student[rows] / 3.0)))).sum(axis=1)
    assert read(data["kl"])[0] @ along == pytest.approx(kl, abs=1e-2)


@pytest.mark.parametrize("kind", ["ragtokens-arrow", "frames-arrow", "ragseveral-arrow", "values-arrow"])
def test_positions_that_count(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data = samples.sample(rng, 30, kind)
    store = samples.write_store(tmp_path / "test", data, samples.make_spec(data, kind))
    for section in looked_rows({"test": store}):
        places, starts = read(section.data["places"]), section.data["starts"]
        for number, each in enumerate(section.data["rows"]):
            own = places[starts[number] : starts[number + 1]]
            expected = [0] if data.mask is None else np.flatnonzero(data.mask[each["row"]]).tolist()
            assert own.tolist() == expected
        json.dumps(section.data, allow_nan=False)


def test_values(tmp_path: Path, rng: np.random.Generator) -> None:
    data = samples.sample(rng, 30, "values-arrow")
    store = samples.write_store(tmp_path / "test", data, samples.make_spec(data, "values-arrow"))
    (section,) = looked_rows({"test": store})
    rows = [each["row"] for each in section.data["rows"]]
    assert np.allclose(read(section.data["mean"]), store.values(rows), atol=1e-5)
    assert np.array_equal(read(section.data["hard"]), data.labels[rows], equal_nan=True)
    none = write_store(
        tmp_path / "none/test", rng.normal(size=(3, 2)), kind="values", labels=np.full((3, 2), np.nan),
        keys=rng.integers(0, 256, (3, 16), np.uint8),
    )  # fmt: skip
    assert looked_rows({"test": none})[0].data["hard"] is None


def test_the_list_of_label_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    store = noise(tmp_path, rng)
    count = write_label_errors(looked_at({"=1+1": store}), tmp_path / "wrong.csv")
    with (tmp_path / "wrong.csv").open() as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == count
    found = scan(store).errors
    assert found is not None
    assert [int(line["row"]) for line in lines] == found.places.tolist()
    first = lines[0]
    assert first["split"] == "'=1+1"  # no formula
    assert first["content_key"] == bytes(store.gather("content_key", [found.places[0]])[0]).hex()
    assert (first["given_name"], first["suggested"]) == ("abcde"[found.given[0]], str(found.suggested[0]))
    scores = [float(line["score"]) for line in lines]
    assert scores == sorted(scores)


def test_of_very_many_rows_a_page_looks_at_some_labels_and_the_list_at_all(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlabels.pages.row_scan._LABELS", 100 * 3 * 5)  # 100 rows of three members and five classes
    store = noise(tmp_path, rng, inputs=np.arange(600).reshape(300, 2))
    (section,) = looked_rows({"test": store})
    some, every = scan(store), looked_at({"test": store}, every_label=True)
    assert some.errors is not None
    assert 60 < some.labels_of == some.errors.looked_at < 140
    assert f"{some.labels_of} hard labels (of {some.labels_of} rows, taken evenly by content key)" in section.html
    count = write_label_errors(every, tmp_path / "wrong.csv")
    with (tmp_path / "wrong.csv").open() as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == count >= 20
    first = store.gather("input", [int(lines[0]["row"])])[0]
    assert lines[0]["input"] == ", ".join(map(str, first))


def test_no_list_without_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    store = write_store(tmp_path / "test", rng.normal(size=(40, 4)), keys=some_keys(rng, 40))
    with pytest.raises(ConfigError, match="no hard labels of classes"):
        write_label_errors(looked_at({"test": store}), tmp_path / "wrong.csv")


def test_rows_evenly_by_content_key_come_in_the_order_of_the_keys(tmp_path: Path, rng: np.random.Generator) -> None:
    """Few of the list are shown where there are others; by number these would be the first rows of the store."""
    keys = some_keys(rng, 300)
    store = write_store(tmp_path / "test", rng.normal(size=(300, 5)), keys=keys)
    student = Answers("s", "hard", np.arange(50, 250), rng.normal(size=(200, 5)).astype(np.float32))
    for answers, inside in (([], range(300)), ([student], range(50, 250))):
        order = sorted(inside, key=lambda row: bytes(keys[row]))
        assert ranked(store, scan(store), answers)[EVEN].tolist() == order


def test_places_of_no_class_have_no_probability(tmp_path: Path, rng: np.random.Generator) -> None:
    """Rows that keep fewer classes than others are filled up; what fills them must not pass for class 0."""
    z = rng.normal(size=(40, 2, 500)) * 4
    z[:, :, 0] += 30
    store = write_store(tmp_path / "test", z, keys=some_keys(rng, 40))
    student = z[:, 0].astype(np.float32)
    (section,) = looked_rows({"test": store}, answers={"test": [Answers("s", "hard", np.arange(40), student)]})
    empty = read(section.data["ids"]) < 0
    assert empty.any()
    assert np.isneginf(read(section.data["log_p"]).transpose(0, 2, 1)[empty]).all()
    assert np.isneginf(read(section.data["student_log_p"])[0][empty]).all()
