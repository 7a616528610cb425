"""import of rows of positions, of sigmoid and values targets, and of several targets: what is stored, and what is refused."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from softlabels.store import open_store
from softlabels.store.verify import verify
from softlabels.transfer import array_keys
from tests.stages import test_targets_recipe as scenes

R, P, M, C = 40, 6, 3, 5


def main(*words: str) -> int:
    return int(import_module("softlabels_stages.import").main([*words, "--split=train"]))


def softmax(z: np.ndarray) -> np.ndarray:
    exp = np.exp(z - z.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def detector(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Outputs (R, P, M, C) and (R, P, M, 4), and hard labels; nothing of positions that do not count."""
    mask = (np.arange(P) < rng.integers(1, P + 1, R)[:, None]).astype(np.uint8)
    labels = np.where(mask == 1, rng.integers(-1, C, (R, P)), -1)
    boxes = np.where(labels[..., None] >= 0, rng.normal(size=(R, P, 4)), np.nan).astype(np.float32)
    p = np.where(mask[..., None, None] == 1, softmax(3 * rng.normal(size=(R, P, M, C))), 0.0)
    outputs = {"class.probabilities": p, "box.values": rng.normal(size=(R, P, M, 4)).astype(np.float32)}
    return outputs | {"class.labels": labels, "box.label": boxes, "mask": mask, "inputs": rng.normal(size=(R, 7))}


BOTH = ("--targets.class.kind=softmax", "--targets.box.kind=values", "--targets.box.dtype=float16")


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
def test_a_detector(layout: str, work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = detector(rng)
    np.savez("f.npz", **arrays)  # type: ignore[arg-type]
    words = (
        "f.npz",
        "s",
        *BOTH,
        f"--layout={layout}",
        "--targets.class.classes=[a,b,c,d,e]",
        "--weights=1,2,1",
        "--inputs=embed",
    )
    assert main(*words) == 0
    store = open_store("s")
    assert (store.targets, store.positions, store.spec.ragged, verify("s")) == (("class", "box"), P, False, [])
    assert (store.only("class").class_names, store.only("box").spec.encoding.dtype) == (
        ("a", "b", "c", "d", "e"),
        "float16",
    )  # type: ignore[union-attr]
    counts, share = arrays["mask"] == 1, np.array([0.25, 0.5, 0.25])
    p = (arrays["class.probabilities"] * share[:, None]).sum(-2)
    assert np.abs(store.only("class").probabilities(range(R), temperature=1.0) - p)[counts].max() < 1e-3
    boxes = (arrays["box.values"] * share[:, None]).sum(-2)
    assert np.abs(store.only("box").values(range(R)) - boxes)[counts].max() < 3e-3
    for name, column in (
        ("class.label", "class.labels"),
        ("box.label", "box.label"),
        ("position_mask", "mask"),
        ("input", "inputs"),
    ):
        np.testing.assert_array_equal(store.column(name), arrays[column])
    assert main(*words) == 0  # sealed
    arrays["box.values"] = arrays["box.values"] + 1
    np.savez("f.npz", **arrays)  # type: ignore[arg-type]
    assert main(*words) == 2
    assert "SpecMismatch: s was begun from other values" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
def test_lists_of_different_length(layout: str, work: Path, rng: np.random.Generator) -> None:
    lengths = rng.integers(1, P + 1, R)
    z = [rng.normal(size=(n, C)) for n in lengths]
    labels = [rng.integers(-1, C, n) for n in lengths]
    given = [[None if label < 0 else label for label in row.tolist()] for row in labels]
    table = {"logits": [row.tolist() for row in z], "label": given, "id": np.arange(R)}
    pq.write_table(pa.table(table), "f.parquet")
    assert main("f.parquet", "s", "--key=id", f"--layout={layout}") == 0
    store = open_store("s")
    assert (store.positions, store.spec.ragged, verify("s")) == (lengths.max(), layout == "arrow", [])
    found, own = store.probabilities(range(R), temperature=2.0), store.column("label")
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(found[row, :n], softmax(z[row] / 2), atol=1e-3)
        np.testing.assert_array_equal(own[row, :n], labels[row])
        assert (own[row, n:] == -1).all()
    np.testing.assert_array_equal(store.column("position_mask"), np.arange(lengths.max()) < lengths[:, None])
    assert main("f.parquet", "t", "--key=id", "--positions=2") == 2


def test_probabilities_of_each_class(work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    p = sigmoid(4 * rng.normal(size=(R, M, C)))
    p[3, 1, 2], p[4, 0, 0], p[5, 2, 1] = 0, 1, 1e-30
    flags = rng.integers(-1, 2, (R, C))
    np.savez("f.npz", probabilities=p, keys=rng.integers(0, 256, (R, 16), np.uint8), labels=flags)
    assert main("f.npz", "s", "--target=sigmoid", "--dtype=float32", f"--members={M}") == 0
    assert "0.2% of the probabilities are 0 and 0.2% are 1, in 5.0% of the rows" in capsys.readouterr().out
    store = open_store("s")
    np.testing.assert_allclose(store.probabilities(range(R), temperature=1.0), p.mean(1), rtol=1e-5)
    exact = np.log(p[5, 2, 1]) - np.log1p(-p[5, 2, 1])
    assert store.column("logits")[5, 2, 1] == np.float32(exact)
    assert (store.column("logits")[3, 1, 2], store.column("logits")[4, 0, 0]) == (-np.inf, np.inf)
    np.testing.assert_array_equal(store.column("label"), flags)
    assert main("f.npz", "t", "--target=sigmoid", f"--members={M}", "--column=probabilities", "--kind=logits") == 0
    np.savez("f.npz", scores=p, keys=rng.integers(0, 256, (R, 16), np.uint8))
    assert main("f.npz", "u", "--target=sigmoid", f"--members={M}") == 2
    assert "all outputs of member 0 of 40 rows lie in [0, 1]" in capsys.readouterr().err


def test_one_value_of_a_row(work: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=R)
    np.savez("f.npz", values=values, keys=rng.integers(0, 256, (R, 16), np.uint8), labels=values)
    assert main("f.npz", "s", "--target=values") == 0
    np.testing.assert_array_equal(open_store("s").column("label")[:, 0], values.astype(np.float32))
    np.testing.assert_array_equal(open_store("s").values(range(R))[:, 0], values.astype(np.float32))
    labels = [None if row % 3 else value for row, value in enumerate(values)]  # a null is none, not -1
    pq.write_table(pa.table({"values": values, "id": np.arange(R), "label": labels}), "f.parquet")
    assert main("f.parquet", "t", "--target=values", "--key=id") == 0
    store = open_store("t")
    np.testing.assert_array_equal(store.column("values")[:, 0, 0], values.astype(np.float32))
    np.testing.assert_array_equal(
        store.column("label")[:, 0], np.where(np.arange(R) % 3, np.nan, values.astype(np.float32))
    )


def test_rows_that_are_text_and_columns_that_are_not_read(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["a dog", "a cat"]
    table = {"inputs": words, "p0": [0.9, 0.2], "p1": [0.1, 0.8], "y": [0, 1]}
    pq.write_table(pa.table(table), "f.parquet")
    assert main("f.parquet", "s") == 0
    assert "not read of f.parquet: y; hard labels are called labels" in capsys.readouterr().out
    np.testing.assert_array_equal(open_store("s").column("content_key"), array_keys(np.array(words)))
    pq.write_table(pa.table({**table, "inputs": [["a", "dog"], ["cat"]]}), "f.parquet")
    assert main("f.parquet", "t") == 2
    assert "or ids of the rows in place of inputs (--key=NAME)" in capsys.readouterr().err
    pq.write_table(pa.table({**table, "labels": [["x"], []]}), "f.parquet")
    assert main("f.parquet", "t", "--target=sigmoid", "--kind=probabilities") == 2
    assert "rows that are alike; a label of a sigmoid is 0 or 1 for each class" in capsys.readouterr().err
    np.savez("f.npz", logits=-np.eye(2), keys=np.arange(2))
    assert main("f.npz", "t", "--key=keys") == 0


def test_rows_of_a_recipe_with_positions(
    work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kinds, names, positions and hard labels hold."""
    scenes.write_recipe()
    count, cells = scenes.ROWS["train"], scenes.cells("train")
    p = softmax(rng.normal(size=(count, scenes.P, 2, scenes.C)))
    boxes = rng.normal(size=(count, scenes.P, 2, 4)).astype(np.float32)
    np.savez("f.npz", **{"class.probabilities": p, "box": boxes})  # type: ignore[arg-type]
    assert main("f.npz", "s", "--config=recipe.yaml", "--inputs=embed") == 0
    said = capsys.readouterr().err
    assert "it is assumed to have the rows of the train split of scenes" in said
    store = open_store("s")
    assert [target.encoding.kind for target in store.spec.targets] == ["dense", "values"]
    assert store.only("class").class_names == tuple(scenes.NAMES)
    np.testing.assert_array_equal(store.column("class.label"), cells["kinds"])
    np.testing.assert_array_equal(store.column("box.label"), cells["boxes"])
    np.testing.assert_allclose(store.only("class").probabilities(range(count), temperature=1.0), p.mean(-2), atol=1e-3)
    np.testing.assert_array_equal(store.column("input"), cells["anchors"])
    other = np.where(cells["kinds"] == 1, 2, cells["kinds"])
    np.savez("f.npz", **{"class.probabilities": p, "box": boxes, "class.labels": other})  # type: ignore[arg-type]
    assert main("f.npz", "t", "--config=recipe.yaml") == 2
    assert "target class: " in (said := capsys.readouterr().err)
    assert "rows of f.npz have another hard label than those of the train split of scenes" in said
    np.savez("f.npz", **{"class.probabilities": p, "box": boxes, "mask": np.eye(count, scenes.P) == 0})  # type: ignore[arg-type]
    assert main("f.npz", "t", "--config=recipe.yaml") == 2
    assert (
        f"row 0 has {scenes.P - 1} positions that count in f.npz and {scenes.P} in the train split"
        in capsys.readouterr().err
    )


def test_padding_of_ragged_rows_is_no_distribution_and_need_be_none(work: Path, rng: np.random.Generator) -> None:
    scenes.write_recipe()
    recipe = yaml.safe_load(Path("recipe.yaml").read_text())
    recipe["transfer_set"] |= {
        "factory": {"class_path": f"{__name__}.clips"}, "inputs": ["frames"], "label": None,
        "positions": {"most": P, "length": "length"},
    }  # fmt: skip
    del recipe["labels"]
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    lengths = clips("train")["length"]
    p = np.where(np.arange(P)[:, None] < lengths[:, None, None], softmax(rng.normal(size=(R, P, C))), 0.0)
    np.save("f.npy", p)
    assert main("f.npy", "s", "--config=recipe.yaml", "--kind=probabilities", "--layout=arrow") == 0
    store = open_store("s")
    assert (store.spec.ragged, store.positions) == (True, P)
    np.testing.assert_array_equal(store.column("position_mask").sum(1), lengths)
    np.savez("g.npz", probabilities=p, lengths=lengths, keys=rng.integers(0, 256, (R, 16), np.uint8))
    assert main("g.npz", "t", "--layout=arrow") == 0
    np.testing.assert_array_equal(open_store("t").column("position_mask"), store.column("position_mask"))


def clips(split: str) -> dict[str, np.ndarray]:
    """Frames of clips, padded, and how many each has."""
    rng = np.random.default_rng(5)
    return {"frames": rng.normal(size=(R, P, 2)).astype(np.float32), "length": rng.integers(1, P + 1, R)}


OF = np.zeros((R, P, C))
KEYS = {"keys": np.arange(R * 16, dtype=np.uint8).reshape(R, 16)}


@pytest.mark.parametrize(
    ("arrays", "words", "message"),
    [
        ({"logits": np.zeros((R, P, M, C))}, [], "has the axes (40, 6, 3, 5), and it is not known which are positions; give"),
        ({"logits": OF.reshape(R, -1)}, ["--positions=6"], "has the axes (40, 30), and 6 positions a row are said; give (rows, "
         "positions, classes) or (rows, positions, members, classes); positions and classes are two axes: reshape(40, 6, 5)"),
        ({"logits": OF.swapaxes(1, 2)}, ["--positions=6"], "has the axes (40, 5, 6), and 6 positions a row are said; "),
        ({"logits": OF.swapaxes(1, 2)}, ["--positions=6"], "the classes are the last axis: transpose(0, 2, 1)"),
        ({"logits": OF}, ["--positions=6", "--members=3"], "6 positions a row and 3 members are said"),
        ({"logits": np.zeros((R, 300, C))}, ["--members=300"], "40 rows of 300 members and 5 classes; give --positions=N where "
         "an axis is positions of a row, such as anchors or frames; where they are members, give --weights, one a member"),
        ({"logits": OF, "labels": np.zeros((R, P), int)}, ["--members=6"], "labels of shape (40, 6) are of 6 positions each; "
         "give --positions=N"),
        ({"logits": OF.reshape(R, -1), "labels": np.zeros((R, P), int)}, [], "reshape them to (rows, 6, 5), and give"),
        ({"logits": OF[:, 0], "labels": np.zeros((R, C), int)}, [], "; a 0 or 1 for each class is a label of a sigmoid"),
        ({"class.logits": OF, "box.values": OF}, [], "; say what each target is: --targets.class.kind=softmax "
         "--targets.box.kind=values"),
        ({"logits": OF, "mask": np.tri(R, P, -1)}, ["--positions=6"], "the mask is float64 (40, 6)"),
        ({"logits": OF, "mask": np.tri(R, P, -1, int)}, [], "row 0: none of its positions counts: the mask is 0 everywhere"),
        ({"logits": OF, "mask": np.ones((R, 5), int)}, [], "has the axes (40, 6, 5), and 5 positions a row are said"),
        ({"logits": OF, "mask": np.ones(R, int)}, [], "the mask in f.npz has the shape (40,); give 0 or 1 of each position of"),
        ({"logits": OF, "lengths": np.full(R, 2**64 - 1, np.uint64)}, [], "row 0 of f.npz has 18446744073709551615 positions"),
        ({"logits": OF, "lengths": np.arange(R)}, [], "row 0 of f.npz has 0 positions (lengths), and a row has 1 to 6"),
        ({"logits": OF, "lengths": np.full(R, 7)}, [], "row 0 of f.npz has 7 positions (lengths), and a row has 1 to 6"),
        ({"logits": OF[:, 0], "lengths": np.ones(R, int)}, [], "has the axes (40, 5), and 5 positions a row are said"),
        ({"logits": OF, "lengths": np.ones(R, int), "mask": np.ones((R, P), int)}, [], "has lengths and a mask; leave one"),
        ({"logits": OF, "labels": np.zeros((R, 4), int)}, ["--positions=6"], "labels have the shape (40, 4), not (40, 6)"),
        ({"logits": np.zeros((R, C)), "labels": np.full((R, C), 2)}, ["--target=sigmoid", "--kind=logits"],
         "row 0 has the hard label 2 of class 0, which is neither 0 nor 1"),
        ({"probabilities": np.full((R, C), 1.5)}, ["--target=sigmoid"], "row 0, member 0 gives class 0 1.5, which is no prob"),
        ({"probabilities": np.full((R, P, C), 0.1)}, ["--positions=6"], "row 0, position 0, member 0 is no distribution"),
        ({"values": np.ones((R, C))}, [], "values in f.npz are to be stored as a softmax; say --target=values, or --kind=l"),
        ({"logits": np.zeros((R, C)), "labels": np.full((R, C), 0.5)}, ["--target=sigmoid"], "label 0.5 in row 0, class 0 of"),
        ({"values": np.full((R, C), np.nan)}, ["--target=values"], "values are NaN (row 0, member 0)"),
        ({"values": np.ones((R, C))}, ["--target=values", "--kind=probabilities"], "and values in f.npz are values; leave"),
        ({"values": np.ones((R, C))}, ["--target=values", "--floor=0.01"], "--floor=0.01, and values in f.npz are values"),
        ({"probabilities": np.full((R, C), 0.5)}, ["--target=sigmoid", "--floor=0.01"], "each class has a probability by it"),
        ({"logits": np.zeros((R, C))}, ["--dtype=float16"], "dtype is float16, and a softmax's logits are kept as float16"),
        ({"class": OF, "box.values": np.zeros((R, 5, 4))}, [*BOTH, "--positions=6"], "box.values in f.npz has the axes (40, 5, "
         "4), and 6 positions a row are said"),
        ({"class": OF, "boxes": OF}, [*BOTH, "--positions=6"], "no outputs of the target box (box.probabilities, box.logits, "
         "box.values, box); call its array box.logits"),
        ({"class": OF, "box": np.zeros((R, P, 3, 4))}, [*BOTH, "--positions=6"], "different members: {'class': 1, 'box': 3}"),
        ({"class": OF, "box": OF[1:]}, [*BOTH, "--positions=6"], "have different rows: {'class': 40, 'box': 39}"),
        ({"class": OF, "box": OF}, [*BOTH, "--column=box"], "--column is given beside --targets"),
        ({"class": OF, "box": OF}, [*BOTH, "--classes=a"], "--classes is given beside --targets"),
        ({"class": OF, "box": OF}, [*BOTH, "--targets.box.k=3"], "--targets.box: unknown key 'k'; known keys: kind, dtype, "
         "classes, column; every output is kept"),
        ({"class": OF, "box": OF}, [*BOTH, "--targets.box.classes=[a]", "--positions=6"], "target box: the outputs have 5 "
         "classes and there are 1 class names; name every class in order with --targets.box.classes=[a,b]"),
    ],
)  # fmt: skip
def test_what_is_refused(
    arrays: dict[str, Any], words: list[str], message: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("f.npz", **KEYS, **arrays)
    assert main("f.npz", "s", *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("s").exists()


def test_lists_that_contradict(work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"id": np.arange(3), "logits": [np.zeros((n, 2)).tolist() for n in (1, 2, 3)]}
    for more, words, message in (
        ({"label": [[0], [1], [0, 0, 1]]}, (), "row 1 has 2 positions in logits and 1 in labels"),
        ({"mask": [[1], [1, 0], [1]]}, (), "row 2 has 3 positions in logits and 1 in the mask"),
        ({}, ("--positions=2",), "row 2 has 3 positions, and positions=2 is the most"),
        ({"lengths": [1, 2, 3]}, (), "f.parquet has lengths, and lists of as many; leave lengths out"),
        ({"label": [0, 1, 1]}, (), "labels have the shape (3,), not (3, 3)"),
    ):
        pq.write_table(pa.table(rows | more), "f.parquet")
        assert main("f.parquet", "s", "--key=id", *words) == 2
        assert message in capsys.readouterr().err
