"""Pseudo rows follow a split's own, hold what its columns can hold, and are made once; what cannot be made is one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Array2D, ClassLabel, Dataset, Features, Value

from softlabels.errors import ConfigError, DiskFull, MissingExtra, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set, pseudo
from softlabels.transfer.prepare import Row
from softlabels.transfer.pseudo_config import PseudoDataConfig
from softlabels.transfer.source import open_split

ROWS = 20
WORDS = ["oak", "elm", "yew"]


def numbers_only(rows: list[Row]) -> np.ndarray:
    """Rows (area, grid, tree, count) as floats; a tree by its number."""
    assert all(isinstance(row, tuple) for row in rows)
    return np.stack([np.r_[row[0], np.ravel(row[1]), WORDS.index(row[2]), row[3]].astype(np.float64) for row in rows])


@pytest.fixture
def file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Rows of a float32, a grid of whole numbers, a word, and a uint8 from 250 to 255; two labels."""
    kinds = {
        "area": Value("float32"),
        "grid": Array2D((2, 2), "int16"),
        "tree": Value("string"),
        "count": Value("uint8"),
    }
    columns = {
        "area": rng.normal(size=ROWS).astype(np.float32).tolist(),
        "grid": rng.integers(-9, 9, (ROWS, 2, 2)).tolist(),
        "tree": rng.choice(WORDS, ROWS).tolist(),
        "count": rng.integers(250, 256, ROWS).tolist(),
        "label": rng.integers(0, 2, ROWS).tolist(),
        "price": rng.normal(size=ROWS).tolist(),
    }
    features = Features(kinds | {"label": ClassLabel(names=["no", "yes"]), "price": Value("float32")})
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def config(file: Path, **changes: Any) -> TransferSetConfig:
    settings: dict[str, Any] = {
        "source": str(file),
        "inputs": ("area", "grid", "tree", "count"),
        "splits": {"train": "train[:15]", "test": "train[15:]"},
        "prepare": ObjectSpec(f"{__name__}.numbers_only"),
        "label": {"yes": "label", "price": {"column": "price", "as": "values"}},
        "pseudo_data": PseudoDataConfig(rows=40, probability=0.5, nominal=("tree",)),
    }
    return TransferSetConfig(**settings | changes)


def test_pseudo_rows_follow_the_own_and_have_no_label(file: Path) -> None:
    none = {"pseudo_data": PseudoDataConfig(rows=0)}
    rows, own = (load_transfer_set(config(file, **each), "train") for each in ({}, none))
    assert rows.inputs.shape == (15 + 3 * 15, 7)  # whole passes, at least 40 rows
    for mine, theirs in ((rows.inputs, own.inputs), (rows.keys, own.keys), (rows.hard["yes"], own.hard["yes"])):
        np.testing.assert_array_equal(mine[:15], theirs)
    assert (rows.hard["yes"][15:] == -1).all()
    assert np.isnan(rows.hard["price"][15:]).all()
    assert len(np.unique(rows.keys, axis=0)) > 50
    [note] = rows.notes
    assert rows.pseudo == "45 pseudo rows (munge: passes 3, probability 0.5, spread 1, seed 0)"
    assert note == f"15 rows of the source, {rows.pseudo}; 0 of them equal a row of the source"
    assert load_transfer_set(config(file), "test").inputs.shape == (5, 7)


def test_columns_hold_what_they_can_hold(file: Path) -> None:
    made = np.asarray(load_transfer_set(config(file), "train").inputs)
    own, pseudo_rows = made[:15], made[15:]
    area, whole, tree = pseudo_rows[:, 0], pseudo_rows[:, [1, 2, 3, 4, 6]], pseudo_rows[:, 5]
    assert (area == area.astype(np.float32)).all()
    assert not np.isin(area, own[:, 0]).all()
    assert (whole == np.rint(whole)).all()
    grid = whole[:, :4]
    assert own[:, 1:5].min() <= grid.min() <= grid.max() <= own[:, 1:5].max()
    assert own[:, 6].min() <= whole[:, 4].min() <= whole[:, 4].max() <= own[:, 6].max()
    for one in np.split(tree, 3):  # swapped, so that a pass has the names of the rows
        np.testing.assert_array_equal(np.sort(one), np.sort(own[:, 5]))


def test_they_are_made_once_and_again_where_rows_or_settings_change(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def counted(*args: Any, **settings: Any) -> Any:
        calls.append(settings)
        return munge(*args, **settings)

    munge = pseudo.munge
    monkeypatch.setattr(pseudo, "munge", counted)

    def keys(**changes: Any) -> bytes:
        return load_transfer_set(config(file, **changes), "train").keys.tobytes()

    first = keys()
    assert keys() == first
    assert keys(prepare=ObjectSpec(f"{__name__}.other")) == first  # prepared anew, of the same pseudo rows
    assert len(calls) == 1
    other = keys(pseudo_data=PseudoDataConfig(passes=3, probability=0.5, nominal=("tree",), seed=1))
    assert other != first
    table = pq.read_table(file)
    table = table.set_column(0, table.schema.field(0), pa.array(table.column(0).to_numpy() + np.float32(1)))
    pq.write_table(table, file)
    assert keys()[:240] != first[:240]
    assert len(calls) == 3


def other(rows: list[Row]) -> np.ndarray:
    """Half of what `numbers_only` gives."""
    return numbers_only(rows) / 2


def jittered(rows: Dataset, *, step: float, drop: str = "") -> Mapping[str, Any]:
    """A user's own pseudo rows: each twice."""
    found = {name: np.concatenate([np.asarray(rows[name][:])] * 2) for name in ("area", "grid", "tree", "count")}
    found["area"] = found["area"] + np.float32(step)
    found.pop(drop, None)
    return {name: values[: 0 if drop == "rows" else None] for name, values in found.items()}


def by_function(file: Path, **arguments: Any) -> TransferRows:
    asked = PseudoDataConfig(factory=ObjectSpec(f"{__name__}.jittered", arguments), split="test")
    return load_transfer_set(config(file, pseudo_data=asked), "test")


def test_a_function_of_the_recipe_makes_them(file: Path) -> None:
    rows = by_function(file, step=1.0)
    assert rows.notes == (f"5 rows of the source, 10 pseudo rows ({__name__}.jittered)",)
    np.testing.assert_allclose(rows.inputs[5:, 0], np.tile(rows.inputs[:5, 0] + 1, 2), rtol=1e-6)
    np.testing.assert_array_equal(rows.inputs[5:, 1:], np.tile(rows.inputs[:5, 1:], (2, 1)))
    assert rows.hard["yes"][5:].tolist() == [-1] * 10
    assert not np.array_equal(by_function(file, step=2.0).inputs, rows.inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 1.0, "drop": "grid"}, f"{__name__}.jittered returned no column 'grid'"),
        ({"step": 1.0, "drop": "rows"}, f"{__name__}.jittered returned no rows"),
    ],
)
def test_what_a_function_must_return(file: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TransferSetError, match=f"^{message}"):
        by_function(file, **arguments)


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"label": [0] * 4} | columns), path)
    return path


IMAGE = pa.array([{"bytes": b"", "path": None}] * 4, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, 2.0, np.nan, 3.0], "input column 'x' is NaN or infinite in row 2, and MUNGE takes numbers and names"),
        ([1.0, None, 2.0, 3.0], "input column 'x' misses a value in row 1, and MUNGE takes numbers and names"),
        ([[1], [2], [3, 4], [5]], "input column 'x' holds arrays of several shapes, and MUNGE"),
        (["a", "b", "a", "c"], "input column 'x' holds text, and MUNGE"),
        ([True, False, True, True], "input column 'x' holds false and true, and MUNGE"),
        (
            [1, 2, 2**53 + 1, 4],
            "input column 'x' holds whole numbers beyond 9,007,199,254,740,992, as ids are, and MUNGE",
        ),
        (IMAGE, "input column 'x' holds images or other files, and MUNGE"),
        ([3, 3, 3, 3], "4 rows have one and the same input, so none has a neighbour"),
    ],
)
def test_rows_of_which_none_can_be_made(tmp_path: Path, column: Any, message: str) -> None:
    file = write(tmp_path / "rows.parquet", x=column)
    settings = TransferSetConfig(source=str(file), inputs=("x",), pseudo_data=PseudoDataConfig(passes=1))
    with pytest.raises(TransferSetError, match=f"^{message}"):
        pseudo.with_pseudo_rows(settings, "train", open_split(settings, "train"), tmp_path)


def test_rows_that_are_all_known_are_no_pseudo_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.parquet", x=["a", "b", "a", "c"])
    asked = PseudoDataConfig(passes=2, nominal=("x",))
    settings = TransferSetConfig(source=str(file), inputs=("x",), pseudo_data=asked)
    with pytest.raises(TransferSetError, match="MUNGE gives 8 rows, and each equals a row of the source"):
        load_transfer_set(settings, "train")


def test_more_than_the_disk_holds_is_refused_before_it_is_made(file: Path) -> None:
    with pytest.raises(DiskFull, match=r"^1,000,000,000,005 pseudo rows take [\d,]+ bytes in .*, and [\d,]+ are free"):
        load_transfer_set(config(file, pseudo_data=PseudoDataConfig(rows=10**12, nominal=("tree",))), "train")


def test_what_is_nominal_is_an_input(file: Path) -> None:
    with pytest.raises(TransferSetError, match="nominal names 'bush', which is no input column"):
        load_transfer_set(config(file, pseudo_data=PseudoDataConfig(passes=1, nominal=("bush",))), "train")


def test_without_scikit_learn_it_says_which_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match="sklearn") as caught:
        load_transfer_set(config(file), "train")
    assert caught.value.remedy == "pip install 'softlabels[tables]'"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "gives neither of rows and passes"),
        ({"rows": 1, "passes": 1}, "gives both of rows and passes"),
        ({"passes": 0}, "passes is 0"),
        ({"rows": -1}, "rows is -1"),
        ({"rows": 5, "probability": 0}, "probability is 0"),
        ({"rows": 5, "spread": float("inf")}, "spread is inf"),
        ({"rows": 5, "seed": -1}, "seed is -1"),
        ({"rows": 5, "factory": ObjectSpec("a.b")}, "gives a factory and rows"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^transfer_set.pseudo_data[ .]{message}"):
        PseudoDataConfig(**settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "area"}, "key is 'area', and MUNGE makes no ids"),
        (
            {"positions": {"most": 3}, "label": "label"},
            "positions is {'most': 3}, which counts labels that pseudo rows lack",
        ),
        ({"splits": {"test": "train"}}, "split is 'train'"),
    ],
)
def test_transfer_sets_that_have_none(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(file, **changes)
    assert message in caught.value.what
