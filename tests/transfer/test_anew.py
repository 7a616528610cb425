"""Cached rows are what the prepare function gives today, each for itself: 64 of them are prepared anew at each opening."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set


class Case:
    """200 rows of four numbers, and a prepare function that a test writes."""

    def __init__(self, folder: Path, functions: Path, rng: np.random.Generator) -> None:
        self.values, self.functions, self.folder = rng.standard_normal((200, 4)), functions, folder
        pq.write_table(pa.table({"x": self.values.tolist()}), folder / "rows.parquet")

    def write(self, body: str, head: str = "") -> None:
        self.functions.write_text(f"import numpy as np\n{head}\ndef prepare(rows, **settings):\n    {body}\n")

    def load(self, init_args: dict[str, object] | None = None, **settings: object) -> TransferRows:
        for name in [name for name in sys.modules if name.startswith(("functions_", "helper_"))]:
            del sys.modules[name]  # another process imports anew
        importlib.invalidate_caches()
        config = TransferSetConfig(
            source=str(self.folder / "rows.parquet"),
            inputs=("x",),
            label=None,
            prepare=ObjectSpec(f"{self.functions.stem}.prepare", init_args or {}),
            **settings,
        )
        return load_transfer_set(config, "train", cache=self.folder / "cache")


@pytest.fixture
def case(tmp_path: Path, functions: Path, rng: np.random.Generator) -> Case:
    return Case(tmp_path, functions, rng)


def test_a_module_that_the_function_imports_changed(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    helper = case.functions.with_name(f"helper_{case.functions.stem}.py")
    helper.write_text("SCALE = 2.0\n")
    case.write(f"from {helper.stem} import SCALE; return SCALE * np.stack(rows)")
    np.testing.assert_array_equal(case.load().inputs, 2 * case.values)
    helper.write_text("SCALE = 3.25\n")
    np.testing.assert_array_equal(case.load().inputs, 3.25 * case.values)
    assert "preparing them again" in caplog.text


@pytest.mark.parametrize("row", [None, 150])
def test_a_file_that_an_argument_names_changed(case: Case, row: int | None) -> None:
    """Also where it changes one row in 200, that is not among those which are prepared anew."""
    file = case.folder / "offsets.npy"
    np.save(file, np.zeros(200))
    case.write("table = np.load(settings['file']); return np.stack(rows) + table[int(len(rows) == 1)]")
    if row is not None:
        case.write(
            "x = np.stack(rows); table = np.load(settings['file'])\n"
            f"    return np.where(x[:, :1] == {float(case.values[row, 0])!r}, x + table[{row}], x)"
        )
    np.testing.assert_array_equal(case.load({"file": str(file)}).inputs, case.values)
    expected, table = case.values.copy(), np.zeros(200)
    table[:] = 5.0
    np.save(file, table)
    expected[slice(None) if row is None else row] += 5.0
    np.testing.assert_array_equal(case.load({"file": str(file)}).inputs, expected)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x = np.stack(rows); return x - x.mean(axis=0)", "gives a row other values where other rows stand beside it"),
        ("x = np.stack(rows); return x / np.abs(x).max()", "treat every row alone"),
        ("x = np.stack(rows); return x + 1e-4 * len(rows)", "other rows stand beside it"),
        ("x = np.stack(rows); return x + 1e-3 * np.random.rand(*x.shape)", "other values for the same rows each time"),
    ],
)
def test_rows_that_are_not_their_own_are_refused(case: Case, body: str, words: str) -> None:
    case.write(body)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(TransferSetError, match=words):
            case.load()


def test_float32_sums_in_another_order_are_no_reason(case: Case) -> None:
    """A product of matrices, whose last bits depend on the number of rows."""
    case.write(
        "return np.stack(rows).astype(np.float32) @ np.random.default_rng(1).normal(size=(4, 900)).astype(np.float32)"
    )
    case.load()
    case.load()


@pytest.mark.parametrize("dtype", ["i4", "f4", "?"])
def test_one_value_of_one_row_in_64_is_seen(case: Case, dtype: str) -> None:
    case.write(f"x = np.stack(rows); return (x > 0).astype({dtype!r})")
    first = np.array(case.load().inputs)
    inputs = next(case.folder.glob("cache/*/inputs.npy"))
    altered = np.load(inputs)
    row = int(np.random.default_rng(0).permutation(200)[63])
    altered[row, 2] = 1 - altered[row, 2]
    np.save(inputs, altered)
    meta = inputs.with_name("meta.json")
    from blake3 import blake3

    meta.write_text(meta.read_text().replace(digest_in(meta, "inputs.npy"), blake3(inputs.read_bytes()).hexdigest()))
    np.testing.assert_array_equal(case.load().inputs, first)


def digest_in(meta: Path, name: str) -> str:
    import json

    return next(file["blake3"] for file in json.loads(meta.read_text())["files"] if file["name"] == name)


@pytest.mark.parametrize(
    ("value", "body", "words"),
    [
        (np.nan, "return np.stack(rows)", r"gives NaN in 1 of 16 rows, first in row 7, and the input 'x' of that row holds"),
        (np.inf, "return np.stack(rows)", r"gives an infinite value .* row 7, and the input 'x' of that row holds it"),
        (-1.0, "return np.log(np.abs(np.stack(rows)) - 1 * (np.stack(rows) == -1))", "the inputs of that row are finite"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_not_finite_is_named_where_it_arises(case: Case, value: float, body: str, words: str) -> None:
    case.values[7, 1] = value
    pq.write_table(pa.table({"x": case.values.tolist()}), case.folder / "rows.parquet")
    case.write(body)
    with pytest.raises(TransferSetError, match=words):
        case.load()
    assert not np.isfinite(case.load(missing="pass").inputs[7, 1])
