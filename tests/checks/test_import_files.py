"""import: which axis is which, columns a class, CSV, large lists, ids, labels that are names, the split."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from softlabels.jobs.outputs import OutputFile
from softlabels.jobs.reading import Reading
from softlabels.store import open_store
from softlabels.transfer import TransferSetConfig, load_transfer_set
from tests.checks.recipes import write_recipe
from tests.checks.samples import CLASSES, exact, softmax, some_rows


def main(*words: str) -> int:
    return int(import_module("softlabels_stages.import").main(list(words)))


def write(path: str, table: dict[str, Any]) -> None:
    if path.endswith(".csv"):
        pyarrow.csv.write_csv(pa.table(table), path)
    else:
        pq.write_table(pa.table(table), path)


def test_three_axes_are_not_guessed(rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    z, inputs = rng.normal(size=(20, 30, 4)), rng.normal(size=(30, 2))
    np.savez("f.npz", logits=z, inputs=inputs[:20])
    for words in ((), ("--members=7",)):
        assert main("f.npz", "s/train", *words) == 2
        said = capsys.readouterr().err
        assert "20 rows of 30 members and 4 classes (--members=30)" in said
        assert "20 members with 30 rows of 4 classes (--members=20)" in said
    assert main("f.npz", "a/train", "--members=30") == 0
    assert np.abs(open_store("a/train").log_probs([3], temperature=1.0) - np.log(softmax(z[3]).mean(0))).max() < 1e-3
    np.savez("f.npz", logits=z, inputs=inputs)
    assert main("f.npz", "b/train", "--members=20") == 0
    expected = np.log(softmax(z[:, 3]).mean(0))
    assert np.abs(open_store("b/train").log_probs([3], temperature=1.0) - expected).max() < 1e-3
    assert main("f.npz", "c/train", "--weights=1,2", "--members=3") == 2
    np.savez("f.npz", logits=z[:, :1], inputs=inputs[:20])
    assert main("f.npz", "d/train") == 0  # one member can be read in one way only


@pytest.mark.parametrize("path", ["f.csv", "f.parquet"])
@pytest.mark.parametrize(
    "pattern", ["p{}", "prob_{}", "proba-{}", "probability {}", "probabilities.{}", "logit{}", "logits_{}"]
)
@pytest.mark.parametrize("first", [0, 1])
def test_a_column_a_class(rng: np.random.Generator, work: Path, path: str, pattern: str, first: int) -> None:
    """In the order of the numbers, not of the columns nor of the text; other columns are left alone."""
    z = rng.normal(size=(40, 12))
    values = z if pattern.startswith("logit") else softmax(z)
    order = rng.permutation(12)
    columns = {pattern.format(n + first): values[:, n] for n in order.tolist()}
    write(path, {"node": np.arange(40), "x0": z[:, 0], "x1": z[:, 1], **columns, "label": z.argmax(-1)})
    assert main(path, "s/train", "--key=node") == 0
    store = open_store("s/train")
    assert np.abs(np.exp(store.log_probs(range(40), temperature=1.0)) - softmax(z)).max() < 1e-3
    assert store.column("label").tolist() == z.argmax(-1).tolist()


def test_columns_that_are_not_taken(work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    z = rng.normal(size=(20, 3))
    features = {f"x{n}": z[:, n] for n in range(3)}
    write("f.csv", {"id": np.arange(20), **features})
    assert main("f.csv", "s/train", "--key=id") == 2  # features are no outputs
    assert "no logits or probabilities" in capsys.readouterr().err
    assert main("f.csv", "s/train", "--key=id", "--column=x", "--kind=logits") == 0
    write("f.csv", {"id": np.arange(20), "p0": z[:, 0], "p2": z[:, 1]})  # one is lacking
    assert main("f.csv", "t/train", "--key=id") == 2
    write("f.parquet", {"id": np.arange(20), "logit0": pa.array([None, *z[1:, 0]]), "logit1": z[:, 1]})
    assert main("f.parquet", "t/train", "--key=id") == 2
    assert "column logit0 has nulls" in capsys.readouterr().err
    Path("f.csv").write_text("id,logit0,logit1\n1,0.5,NA\n2,1,2\n")
    assert main("f.csv", "t/train", "--key=id") == 2
    assert main("f.csv", "t/train", "--key=no") == 2


@pytest.mark.parametrize("path", ["f.csv", "f.parquet"])
def test_columns_that_are_called_by_their_classes(
    rng: np.random.Generator, work: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As DataFrame(model.predict_proba(X), columns=model.classes_) has them; --classes decides the order of the store."""
    z = rng.normal(size=(40, 3))
    names = ["Sci/Tech", "a b", "world"]
    columns = dict(zip(names, softmax(z).T, strict=True))
    order = [2, 0, 1]
    labels = [names[n] for n in z.argmax(-1).tolist()]
    write(path, {"id": np.arange(40), "x": z[:, 0], **columns, "label": labels})
    classes = f"--classes={','.join(names[n] for n in order)}"
    assert main(path, "s/train", "--key=id", classes) == 2
    assert "say which they are: --kind=probabilities" in capsys.readouterr().err
    assert main(path, "s/train", "--key=id", classes, "--kind=probabilities") == 0
    store = open_store("s/train")
    assert np.abs(np.exp(store.log_probs(range(40), temperature=1.0)) - softmax(z)[:, order]).max() < 1e-3
    assert store.column("label").tolist() == z[:, order].argmax(-1).tolist()
    assert main(path, "t/train", "--key=id", "--kind=probabilities", "--classes=world,a b,no") == 2
    assert "or the classes with --classes=a,b,..." in capsys.readouterr().err


@pytest.mark.parametrize("labels", [[True, False] * 20, [0, -1] * 20])
def test_labels_that_are_true_or_false(rng: np.random.Generator, work: Path, labels: list[int]) -> None:
    write("f.parquet", {"id": np.arange(40), "p": softmax(rng.normal(size=(40, 2))).tolist(), "label": labels})
    assert main("f.parquet", "s/train", "--key=id") == 0
    assert open_store("s/train").column("label").tolist() == [int(label) for label in labels]


def test_a_recipe_says_how_an_import_is_stored(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = some_rows(rng, 40)
    z = exact(inputs)[:, :3]
    names = [["a", "b", "c"][n] for n in z.argmax(-1).tolist()]
    pq.write_table(pa.table({"x": list(inputs), "label": names}), "train.parquet")
    Path("r.yaml").write_text(
        "transfer_set: {source: train.parquet, inputs: [x], prepare: {class_path: softlabels.transfer.vector}}\n"
        "labels: {inputs: embed, layout: arrow, licence: MIT, compression: none, encoding: topk}\n"
    )
    np.save("z.npy", z)
    assert main("z.npy", "s/train", "--config=r.yaml", "--classes=a,b,c") == 0
    assert "import ignores these settings of the recipe's labels: encoding" in capsys.readouterr().err
    store = open_store("s/train")
    assert store.spec.layout == "arrow"
    assert np.array_equal(store.column("input"), inputs)
    assert store.column("label").tolist() == z.argmax(-1).tolist()
    assert "mit" in Path("s/train/README.md").read_text().lower()
    assert main("z.npy", "t/train", "--config=r.yaml", "--classes=a,b,c", "--inputs=reference") == 0
    assert "input" not in open_store("t/train").columns
    Path("r.yaml").write_text("transfer_set: {source: train.parquet}\nlabels: {inputs: embedded}\n")
    assert main("z.npy", "u/train", "--config=r.yaml") == 2
    assert main("z.npy", "u/train", "--column=logit", "--config=digits") == 2
    assert "the array of a npy file has no name" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("axes", [2, 3])
def test_lists_of_every_kind(rng: np.random.Generator, work: Path, kind: str, axes: int) -> None:
    """polars writes large lists."""
    z = rng.normal(size=(40, 4) if axes == 2 else (40, 3, 4))
    of = {"list": pa.list_, "large_list": pa.large_list, "fixed": lambda t: pa.list_(t, 4 if t == pa.float64() else 3)}[
        kind
    ]
    column = pa.array(z.tolist(), of(pa.float64()) if axes == 2 else of(of(pa.float64())))
    pq.write_table(pa.table({"logits": column, "id": np.arange(40)}), "f.parquet")
    assert main("f.parquet", "s/train", "--key=id", *(["--members=3"] if axes == 3 else [])) == 0
    found = np.exp(open_store("s/train").log_probs(range(40), temperature=1.0))
    assert np.abs(found - (softmax(z) if axes == 2 else softmax(z).mean(1))).max() < 1e-3


def test_ids_are_those_of_a_transfer_set(rng: np.random.Generator, work: Path) -> None:
    """Rows of another order meet their labels by `key`."""
    inputs = some_rows(rng, 40)
    ids = [f"r{n}" for n in range(40)]
    pq.write_table(pa.table({"id": ids, "x": list(inputs)}), "train.parquet")
    order = rng.permutation(40)
    z = exact(inputs)[order]
    write("f.csv", {"id": [ids[n] for n in order], **{f"logit{n}": z[:, n] for n in range(CLASSES)}})
    assert main("f.csv", "s/train", "--key=id") == 0
    rows = load_transfer_set(TransferSetConfig(source="train.parquet", inputs=("x",), key="id", label=None), "train")
    store = open_store("s/train")
    assert store.find(rows.keys).tolist() == np.argsort(order).tolist()


def test_labels_that_are_names(rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    z = rng.normal(size=(400, 3))
    names = np.array(["dog", "cat", "ape"])
    columns = {f"logit{n}": z[:, n] for n in range(3)}
    labels = names[z.argmax(-1)].tolist()
    labels[7] = ""
    write("f.csv", {"id": np.arange(400), **columns, "label": labels})
    assert main("f.csv", "s/train", "--key=id") == 2
    assert (
        "'ape' is the name of no class; name the classes in the order of the outputs' columns"
        in capsys.readouterr().err
    )
    assert main("f.csv", "s/train", "--key=id", "--classes=dog,cat,ape") == 0
    expected = z.argmax(-1)
    expected[7] = -1
    assert open_store("s/train").column("label").tolist() == expected.tolist()
    assert main("f.csv", "t/train", "--key=id", "--classes=ape,cat,dog") == 2
    assert "with the classes reversed" in capsys.readouterr().err


GAPS = pa.array([2, None, 0, None], pa.uint8())


@pytest.mark.parametrize(
    ("file", "labels", "words", "expected"),
    [
        ("f.csv", GAPS, (), [2, -1, 0, -1]), ("f.parquet", GAPS, (), [2, -1, 0, -1]),
        ("f.npz", np.array([2, np.nan, 0, -1], np.float32), (), [2, -1, 0, -1]),
        ("f.parquet", pa.array([2.0, None, 0.0, float("nan")]), (), [2, -1, 0, -1]),
        ("f.csv", pa.array(["None", "hate", "NA", "hate"]), ("--classes=NA,hate,None",), [2, 1, 0, 1]),
        ("f.parquet", pa.array(["None", None, "NA", "hate"]), ("--classes=NA,hate,None",), [2, -1, 0, 1]),
        ("f.parquet", pa.array(["b", None, "a", "b"]).dictionary_encode(), ("--classes=a,b,c",), [1, -1, 0, 1]),
    ],
)  # fmt: skip
def test_labels_with_gaps(
    file: str, labels: Any, words: tuple[str, ...], expected: list[int], rng: np.random.Generator, work: Path
) -> None:
    """No label is -1, whatever a file says for it; a class may be called None."""
    z, ids = rng.normal(size=(4, 3)), np.arange(4)
    if file == "f.npz":
        np.savez(file, logits=z, labels=labels, inputs=ids[:, None])
    else:
        write(file, {"id": ids, **{f"logit{n}": z[:, n] for n in range(3)}, "label": labels})
        words = ("--key=id", *words)
    assert main(file, "s/train", *words) == 0
    assert open_store("s/train").column("label").tolist() == expected


def test_a_label_that_is_no_whole_number(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("f.npz", logits=rng.normal(size=(3, 2)), labels=[0, 1, 0.5], inputs=np.arange(3)[:, None])
    assert main("f.npz", "s/train") == 2
    assert "label 0.5 in row 2 of f.npz is no whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("store", "words", "split"),
    [
        ("s/train", (), "train"),
        ("s/test", (), "test"),
        ("s/validation", (), "validation"),
        ("s/forest", ("--split=test",), "test"),
        ("s/test", ("--split=test",), "test"),
        ("s/forest", (), None),
        ("s/test", ("--split=train",), None),
    ],
)
def test_the_split(
    rng: np.random.Generator,
    work: Path,
    store: str,
    words: tuple[str, ...],
    split: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez("f.npz", logits=rng.normal(size=(20, 3)), inputs=rng.normal(size=(20, 2)))
    if split is None:
        assert main("f.npz", store, *words) == 2
        assert "--split" in capsys.readouterr().err
        assert not Path("s").exists()
    else:
        assert main("f.npz", store, *words) == 0
        assert open_store(store).spec.transfer_set.split == split


@pytest.mark.parametrize("name", ["cut.npz", "flipped.npz", "header.npy", "cut.parquet"])
def test_a_broken_file_is_a_line(work: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("whole.npz", logits=np.ones((20, 3)))
    pq.write_table(pa.table({"logits": np.ones((20, 3)).tolist()}), "whole.parquet")
    whole = Path(f"whole.{name.rpartition('.')[2]}")
    data = bytearray(whole.read_bytes() if whole.exists() else b"\x93NUMPY\x01\x00\x10\x00{'descr': broken\n")
    if name == "flipped.npz":
        data[-250] ^= 255
    Path(name).write_bytes(bytes(data if name in ("flipped.npz", "header.npy") else data[:-30]))
    assert main(name, "s/train") == 2
    assert f"UserError: {name} cannot be read" in capsys.readouterr().err


def test_npy_and_npz_are_told_by_what_they_hold(rng: np.random.Generator, work: Path) -> None:
    z = rng.normal(size=(20, 3))
    np.save("z.npy", z)
    np.savez("z.npz", logits=z)
    Path("z.npy").rename("other.npz")
    Path("z.npz").rename("other.npy")
    for path in ("other.npz", "other.npy"):
        assert np.array_equal(OutputFile(Path(path), Reading()).read().first.logits[:, 0], z)


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("values", [["<0.01"] * 20, [None] * 20, [True] * 20])
@pytest.mark.parametrize("path", ["f.csv", "f.parquet"])
def test_no_class_is_left_out(
    path: str, values: list[Any], at: int, rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column of a class that holds no numbers."""
    z = rng.normal(size=(20, 3))
    columns = {f"logit{n}": pa.array(values if n == at else z[:, n]) for n in range(3)}
    write(path, {"id": np.arange(20), **columns})
    assert main(path, "s/train", "--key=id") == 2
    assert f"column logit{at} holds " in capsys.readouterr().err


def test_spaces_around_names(rng: np.random.Generator, work: Path) -> None:
    z = rng.normal(size=(20, 3))
    write("f.parquet", {"id": np.arange(20), "logit0": z[:, 0], "logit1": z[:, 1], " logit2 ": z[:, 2]})
    assert main("f.parquet", "s/train", "--key=id") == 0
    assert np.abs(np.exp(open_store("s/train").log_probs(range(20), temperature=1.0)) - softmax(z)).max() < 1e-3


def test_labels_say_that_rows_stand_in_another_order(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs and labels of the file agree with each other, and not with the rows that they would be given."""
    found = write_recipe(work / "r.yaml")["train"]
    z = exact(found)
    order = rng.permutation(len(z))
    np.savez("f.npz", logits=z[order], labels=z[order].argmax(-1))
    assert main("f.npz", "s/train", "--config=r.yaml") == 2
    assert "have another hard label than those of the train split" in capsys.readouterr().err
    some = np.where(rng.random(len(z)) < 0.5, z.argmax(-1), -1)
    np.savez("f.npz", logits=z, labels=some)
    assert main("f.npz", "s/train", "--config=r.yaml") == 0
    assert open_store("s/train").column("label").tolist() == some.tolist()


def test_arrays_of_other_byte_order(rng: np.random.Generator, work: Path) -> None:
    z, inputs = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    np.savez("f.npz", logits=z.astype(">f4"), inputs=inputs.astype(">f8"), labels=z.argmax(-1).astype(">i2"))
    assert main("f.npz", "s/train", "--inputs=embed") == 0
    store = open_store("s/train")
    assert np.abs(np.exp(store.log_probs(range(20), temperature=1.0)) - softmax(z)).max() < 1e-3
    assert store.column("label").tolist() == z.argmax(-1).tolist()
    assert (store.column("input") == inputs).all()


def test_a_label_beyond_every_class(rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array([0, 1, 2**64 - 1], np.uint64)
    np.savez("f.npz", logits=rng.normal(size=(3, 2)), labels=labels, inputs=np.arange(3)[:, None])
    assert main("f.npz", "s/train") == 2
    assert "label 18446744073709551615 in row 2 of f.npz" in capsys.readouterr().err


def test_equal_rows_that_were_computed_in_half(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z, inputs = np.repeat(rng.normal(size=(50, 4)) * 8, 2, axis=0), np.repeat(rng.normal(size=(50, 3)), 2, axis=0)
    z *= 1 + 2.0**-9 * rng.normal(size=z.shape)
    np.savez("f.npz", logits=z.astype(np.float32), inputs=inputs)
    assert main("f.npz", "s/train") == 2
    assert "--precision of import" in capsys.readouterr().err
    assert main("f.npz", "s/train", "--precision=bfloat16") == 0
    assert open_store("s/train").spec.teacher.precision == "bfloat16"
