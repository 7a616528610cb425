"""Tables as rows of numbers: beside scikit-learn's transformers, fitted on the training split alone, and written down."""

from __future__ import annotations

import datetime
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from softlabels.errors import ConfigError, SoftLabelsError, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.store.spec import Preprocessing
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set, table
from softlabels.transfer.keys import array_keys
from softlabels.transfer.stored import as_stored
from softlabels.transfer.tabular import TABLE

INPUTS = ("income", "age", "member", "city", "code", "since", "seen")
ASKED = {"categories": ["code"], "dates": ["since"]}
DAY = datetime.date(1970, 1, 1)


def drawn(rng: np.random.Generator, rows: int, cities: list[str]) -> pd.DataFrame:
    """A random table with gaps in four of its columns."""
    income = rng.lognormal(10, 1, rows)
    income[rng.random(rows) < 0.2] = np.nan
    frame = pd.DataFrame({"income": income, "age": rng.integers(0, 100, rows), "member": rng.random(rows) < 0.3})
    frame["city"] = rng.choice(np.array([*cities, None], dtype=object), rows)
    frame["code"] = rng.integers(0, 5, rows)
    days = [DAY + datetime.timedelta(int(day)) for day in rng.integers(-9000, 20000, rows)]
    frame["since"] = [None if rng.random() < 0.1 else str(day) for day in days]  # text
    frame["seen"] = pd.to_datetime(rng.integers(0, 1 << 60, rows) // 1000, unit="us")
    frame["label"] = rng.integers(0, 2, rows)
    return frame


def written(folder: Path, **splits: pd.DataFrame) -> Path:
    folder.mkdir(exist_ok=True)
    for split, frame in splits.items():
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{split}.parquet")
    return folder


def load(folder: Path, split: str = "train", **settings: Any) -> TransferRows:
    arguments = settings.pop("prepare", {})
    config = {"source": str(folder), "inputs": INPUTS, "missing": "pass", "prepare": ObjectSpec(TABLE, arguments)}
    return load_transfer_set(TransferSetConfig(**(config | settings)), split, cache=folder.parent / "cache")


def days(frame: pd.DataFrame) -> pd.DataFrame:
    """The dates in days since 1970-01-01, as pandas makes them."""
    epoch, day = pd.Timestamp(DAY), pd.Timedelta(days=1)
    return frame.assign(since=(pd.to_datetime(frame["since"]) - epoch) / day, seen=(frame["seen"] - epoch) / day)


def reference(train: pd.DataFrame) -> ColumnTransformer:
    """Mean and deviation of what is there; gaps are 0 with a flag; a place for each category of the training rows."""
    numbers = make_pipeline(StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0, add_indicator=True))
    names = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = [(name, names if name in ("city", "code") else numbers, [name]) for name in INPUTS]
    return ColumnTransformer(parts, sparse_threshold=0).fit(days(train))


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_numbers_are_those_of_scikit_learn(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train, test = drawn(rng, 300, ["Ulm", "Köln", "Bonn"]), drawn(rng, 200, ["Ulm", "Bonn", "Paris", "Rom"])
    folder = written(tmp_path / "data", train=train, test=test)
    theirs = reference(train)
    for split, frame in {"train": train, "test": test}.items():
        ours = load(folder, split, prepare=ASKED)
        assert ours.inputs.dtype == np.float32
        found = np.asarray(ours.inputs, np.float64)
        expected = theirs.transform(days(frame))
        # income and its flag, age, member: then the places of cities, others, gaps; of codes, others; dates
        assert found.shape[1] == expected.shape[1] + 2
        city, code = 4 + 3, 4 + 3 + 1 + 1 + 5
        np.testing.assert_allclose(np.delete(found, [city, code], axis=1), expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(found[:, city], frame["city"].isin(["Paris", "Rom"]))
        np.testing.assert_array_equal(found[:, code], 0)


def test_the_training_split_alone_is_looked_at_and_written_down(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    train, test = drawn(rng, 100, ["Ulm", "Bonn"]), drawn(rng, 50, ["Ulm", "Rom"])
    folder = written(tmp_path / "data", train=train, test=test)
    first = load(folder, "test", prepare=ASKED)
    known = train["income"].dropna()
    assert first.prepare.init_args["columns"][0] == {
        "kind": "number", "name": "income", "missing": True,
        "mean": pytest.approx(known.mean(), rel=1e-14), "deviation": pytest.approx(known.std(ddof=0), rel=1e-14),
    }  # fmt: skip
    assert first.prepare.init_args["columns"][3]["values"] == ["Bonn", "Ulm"]
    written(folder, test=pd.concat([test, test.assign(income=1e9)]))
    assert load(folder, "test", prepare=ASKED).prepare == first.prepare
    # what is written down is enough, without a training split
    alone = load(folder, "test", prepare=first.prepare.init_args, splits={"test": "test"})
    np.testing.assert_array_equal(alone.inputs[:50], first.inputs)
    written(folder, train=train.assign(age=train["age"] + 1))
    assert load(folder, "test", prepare=ASKED).prepare != first.prepare


def test_rows_for_a_store_are_prepared_as_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    folder = written(tmp_path / "data", train=drawn(rng, 60, ["Ulm", "Bonn"]))
    rows = load(folder, prepare=ASKED)
    stored = Preprocessing(function=TABLE, arguments=rows.prepare.init_args)
    written(folder, train=drawn(rng, 90, ["Rom", "Bonn"]))
    config = TransferSetConfig(source=str(folder), inputs=INPUTS, missing="pass", prepare=ObjectSpec(TABLE, ASKED))
    again = load_transfer_set(as_stored(config, stored), "train", cache=tmp_path / "cache")
    assert again.prepare == rows.prepare
    assert load(folder, prepare=ASKED).prepare != rows.prepare
    other = TransferSetConfig(source=str(folder), inputs=INPUTS, missing="pass", prepare=ObjectSpec(TABLE))
    assert as_stored(other, stored) == other  # which asks for something else


def test_columns_that_are_all_alike_and_gaps_that_training_rows_lack(tmp_path: Path) -> None:
    train = pd.DataFrame({"a": [0.1, 0.1, 0.1], "b": [1.0, 2.0, 3.0], "c": ["x", "y", "x"], "label": 0})
    test = pd.DataFrame({"a": [0.3, np.nan], "b": [np.nan, 2.0], "c": [None, "z"], "label": 0})
    folder = written(tmp_path / "data", train=train, test=test)
    found = load(folder, "test", inputs=("a", "b", "c")).inputs
    np.testing.assert_allclose(found, [[0.2, 0, 0, 0, 1], [0, 0, 0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e300, 1.0, 1e-200, 1e-310])
def test_numbers_whose_squares_are_no_float64(tmp_path: Path, scale: float) -> None:
    values = np.array([-1.0, 0.5, 2.0, 1.5])
    train = pd.DataFrame({"a": values * scale, "label": 0})
    test = pd.DataFrame({"a": [-100 * scale, 3 * scale], "label": 0})
    folder = written(tmp_path / "data", train=train, test=test)
    found = load(folder, inputs=("a",)).inputs[:, 0]
    np.testing.assert_allclose(found, (values - values.mean()) / values.std(), rtol=1e-6)
    found = load(folder, "test", inputs=("a",)).inputs[:, 0]
    np.testing.assert_allclose(found, (np.array([-100, 3]) - values.mean()) / values.std(), rtol=1e-6)


def test_a_number_that_is_too_large_beside_the_training_rows(tmp_path: Path) -> None:
    train, test = ({"a": [1.0, 1.5], "label": 0}, {"a": [1.0, 1e300], "label": 0})
    folder = written(tmp_path / "data", train=pd.DataFrame(train), test=pd.DataFrame(test))
    with pytest.raises(TransferSetError, match=r"'a' holds 1e\+300, too far from the mean"):
        load(folder, "test", inputs=("a",))


def test_dates_are_one_input_however_a_file_holds_them(tmp_path: Path) -> None:
    when = [datetime.date(2024, 5, 31), datetime.date(1969, 7, 20)]
    text = ["2024-05-31", "1969-07-20"]
    kinds: dict[str, list[Any]] = {"date": when, "time": [datetime.datetime(d.year, d.month, d.day) for d in when]}
    kinds["text"] = text
    found = {}
    for name, values in kinds.items():
        folder = written(tmp_path / name, train=pd.DataFrame({"d": values, "label": [0, 1]}))
        dates = ["d"] if name == "text" else []
        found[name] = load(folder, inputs=("d",), prepare={"dates": dates})
        np.testing.assert_array_equal(found[name].keys, array_keys(np.array(text)))
        np.testing.assert_array_equal(found[name].inputs, found["date"].inputs)
    noon = written(tmp_path / "noon", train=pd.DataFrame({"d": ["2024-05-31 12:00", "2024-05-31"], "label": [0, 1]}))
    columns = load(noon, inputs=("d",), prepare={"dates": ["d"]}).prepare.init_args["columns"]
    assert columns[0]["deviation"] == 0.25
    moment = datetime.datetime(2024, 5, 31, 12)
    rows: list[Any] = [when[0], moment, pd.Timestamp(moment), pd.NaT, float("nan")]
    asked = table(["2024-05-31", "2024-05-31 12:00", "2024-05-31T12:00:00", None, None], columns=columns)
    np.testing.assert_array_equal(table(rows, columns=columns), asked)
    with pytest.raises(TransferSetError, match="is not a date such as"):
        table([pd.Timestamp(moment, tz="Europe/Berlin")], columns=columns)  # type: ignore[list-item]


def deviations(values: list[float]) -> tuple[float, float]:
    """Mean and deviation in exact arithmetic, rounded at the end."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    square = sum((value - mean) ** 2 for value in exact) / len(exact)
    power = max(0, math.frexp(max(map(abs, values)))[1])
    return float(mean), math.ldexp(math.sqrt(square / Fraction(4) ** power), power)


@pytest.mark.parametrize(
    "values", [[1.7976931348623157e308] * 3 + [1.0, 2.0], [1e200, 1.0, 2.0], [3e-200, 1e-200, 2e-200]]
)
def test_numbers_near_the_limits_of_floats(tmp_path: Path, values: list[float]) -> None:
    folder = written(tmp_path / "data", train=pd.DataFrame({"a": values, "label": 0}))
    [found] = load(folder, inputs=("a",)).prepare.init_args["columns"]
    scale = 1e200 if max(values) < 1 else 1.0
    mean, deviation = (each / scale for each in deviations([value * scale for value in values]))
    assert (found["mean"], found["deviation"]) == pytest.approx((mean, deviation), rel=1e-14, abs=0)


def test_a_number_too_far_from_those_of_the_training_split(tmp_path: Path) -> None:
    far = pd.DataFrame({"a": [0.0, -1e39], "label": 0})
    folder = written(tmp_path / "data", train=pd.DataFrame({"a": [0.0, 1.0], "label": 0}), test=far)
    with pytest.raises(TransferSetError, match=r"row 1.*'a' holds -1e\+39, too far from the mean 0\.5"):
        load(folder, "test", inputs=("a",))


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "infinite": ({"a": [1.0, np.inf]}, {}, "'a' is infinite"),
    "lists": ({"a": [[1.0], [2.0]]}, {}, "'a' holds lists"),
    "bytes": ({"a": [b"1", b"2"]}, {}, "'a' holds bytes"),
    "empty": ({"a": pa.array([None, None], pa.float64())}, {}, "'a' has no value in the training split"),
    "no date": ({"a": ["2024-05-31", "today"]}, {"dates": ["a"]}, "'today', which is not a date"),
    "no such day": ({"a": ["2024-05-31", "2024-02-30"]}, {"dates": ["a"]}, "impossible day"),
    "no input": ({"a": [1.0, 2.0]}, {"categories": ["b"]}, "names 'b', which is no input"),
    "free text": ({"a": [str(n) for n in range(1001)]}, {}, "1,001 distinct values"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_column_of_a_table(tmp_path: Path, case: str) -> None:
    columns, arguments, message = WRONG[case]
    (tmp_path / "data").mkdir()
    labels = [0] * len(columns["a"])
    pq.write_table(pa.table({**columns, "label": labels}), tmp_path / "data" / "train.parquet")
    with pytest.raises(SoftLabelsError, match=message):
        load(tmp_path / "data", inputs=("a",), prepare=arguments)


def test_a_split_with_text_where_the_training_split_has_numbers(tmp_path: Path) -> None:
    known = [{"kind": "number", "name": "a", "mean": 0.0, "deviation": 1.0}]
    folder = written(tmp_path / "data", test=pd.DataFrame({"a": ["1", "x"], "label": 0}))
    with pytest.raises(TransferSetError, match="row 0: input column 'a' holds text"):
        load(folder, "test", inputs=("a",), splits={"test": "test"}, prepare={"columns": known})
    with pytest.raises(ConfigError, match="from the split train, and the recipe has test"):
        load(folder, "test", inputs=("a",), splits={"test": "test"})


WIDE = [{"kind": "category", "name": "a", "values": list(range(1001))}]
FLAT = [{"kind": "number", "name": "a", "mean": 0.0, "deviation": 0.0}]


@pytest.mark.parametrize("columns", [None, 3, [{"kind": "number"}], FLAT, [{"kind": "sum"}], WIDE, []])
def test_columns_that_are_none(columns: Any) -> None:
    with pytest.raises(ConfigError):
        table([np.float64(1)], columns=columns)


def test_rows_of_pandas_and_of_plain_python_are_those_of_a_transfer_set() -> None:
    columns = [
        {"kind": "number", "name": "age", "mean": 40.0, "deviation": 10.0, "missing": True},
        {"kind": "category", "name": "city", "values": ["Bonn", "Ulm"], "missing": True},
        {"kind": "category", "name": "code", "values": [1, 2]},
        {"kind": "date", "name": "since", "mean": 0.0, "deviation": 1.0, "missing": True},
    ]
    frame = pd.DataFrame(
        {"age": [50.0, None], "city": ["Ulm", np.nan], "code": [2, 7], "since": ["1970-01-03", np.nan]}
    )
    expected = [[1, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0], [0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 1]]
    of_pandas = [*frame.itertuples(index=False, name=None)]
    of_python = [(50, "Ulm", 2, "1970-01-03"), (None, None, 7, None)]
    for rows in (of_pandas, of_python):
        assert table(rows, columns=columns).tolist() == expected
