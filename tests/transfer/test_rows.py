"""The cache of prepared rows: made once, made again when anything that it depends on changes, never used damaged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.errors import ConfigError, LabelError, StorageError, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set
from softlabels.transfer import fill as fill_module

COUNTING = """
import os
import numpy as np
def double(rows, factor=2):
    with open({calls!r}, "a") as file:
        file.write(str(len(rows)) + "\\n")
    if len(rows) > 16 and "KILL" in os.environ:
        os.kill(os.getpid(), 9)
    return np.stack(rows) * factor
"""


class Case:
    """A Parquet file of 100 rows, a prepare function that notes its calls, and a cache folder."""

    def __init__(self, folder: Path, functions: Path, rng: np.random.Generator) -> None:
        self.values = rng.standard_normal((100, 3, 4))
        self.labels = rng.integers(-1, 10, 100)
        self.file, self.calls, self.cache = folder / "rows.parquet", folder / "calls", folder / "cache"
        self.functions = functions
        functions.write_text(COUNTING.format(calls=str(self.calls)))
        self.write()

    def write(self, **columns: object) -> None:
        table = {"image": self.values.tolist(), "label": self.labels, **columns}
        pq.write_table(pa.table(table), self.file)

    def load(self, init_args: dict[str, object] | None = None, **settings: object) -> TransferRows:
        prepare = ObjectSpec(f"{self.functions.stem}.double", init_args or {})
        config = TransferSetConfig(source=str(self.file), prepare=prepare, **settings)
        return load_transfer_set(config, "train", cache=self.cache)

    def times(self) -> int:
        """How many times all rows were prepared; the few that are prepared anew come in smaller batches."""
        rows = sum(n for n in map(int, self.calls.read_text().split()) if n > 14) if self.calls.exists() else 0
        assert rows % 100 == 0
        return rows // 100

    def folders(self) -> list[Path]:
        return [path for path in self.cache.iterdir() if path.is_dir()]


@pytest.fixture
def case(tmp_path: Path, functions: Path, rng: np.random.Generator) -> Case:
    return Case(tmp_path, functions, rng)


def check(rows: TransferRows, case: Case, factor: float = 2) -> None:
    np.testing.assert_array_equal(rows.inputs, case.values * factor)
    np.testing.assert_array_equal(rows.labels, case.labels)
    assert len(np.unique(rows.keys, axis=0)) == 100


def test_rows_are_prepared_once_and_mapped(case: Case) -> None:
    first, second = case.load(), case.load()
    assert case.times() == 1
    for rows in (first, second):
        check(rows, case)
        for array in (rows.inputs, rows.keys, rows.labels):
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
    np.testing.assert_array_equal(first.keys, second.keys)


def test_the_cut_into_blocks_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = case.load()
    shutil.rmtree(case.cache)
    monkeypatch.setattr(fill_module, "BLOCK_BYTES", 7 * case.values[0].nbytes)
    cut = case.load()
    assert "7" in case.calls.read_text().split()
    check(cut, case)
    np.testing.assert_array_equal(cut.keys, whole.keys)


def test_memory_holds_a_block_and_not_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(
        pa.table({"image": list(np.zeros((4000, 2000)))}), tmp_path / "big.parquet", row_group_size=50
    )  # 64 MB
    config = TransferSetConfig(source=str(tmp_path / "big.parquet"), label=None)
    load_transfer_set(config, "train", cache=tmp_path / "once")  # what `datasets` itself takes
    monkeypatch.setattr(fill_module, "BLOCK_BYTES", 1 << 20)
    tracemalloc.start()
    try:
        load_transfer_set(config, "train", cache=tmp_path / "cache")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("change", ["init_args", "function", "label", "classes", "key"])
def test_another_recipe_or_function_is_another_cache(case: Case, change: str) -> None:
    case.write(id=np.arange(100))
    check(case.load(), case)
    if change == "init_args":
        check(case.load({"factor": 3}), case, factor=3)
    elif change == "function":
        time.sleep(0.01)
        case.functions.write_text(case.functions.read_text().replace("* factor", "* factor + 0 # edited"))
        check(case.load(), case)
    elif change == "label":
        assert (case.load(label=None).labels == -1).all()
    elif change == "classes":
        check(case.load(classes=tuple("abcdefghij")), case)
    else:
        check(case.load(key="id"), case)
    assert case.times() == 2
    check(case.load(), case, factor=2)


def test_a_source_that_changed_is_prepared_again(case: Case) -> None:
    case.load()
    case.values = -case.values
    case.write()
    check(case.load(), case)
    assert case.times() == 2


def test_a_saved_dataset_that_was_edited_in_place_is_prepared_again(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"x": [1.0, 2.0, 3.0]}).save_to_disk(tmp_path / "saved")
    config = TransferSetConfig(source=str(tmp_path / "saved"), inputs=("x",), label=None)
    load_transfer_set(config, "train", cache=tmp_path / "cache")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    time.sleep(0.01)
    data = file.read_bytes()
    file.write_bytes(data.replace(np.float64(2.0).tobytes(), np.float64(5.0).tobytes()))
    assert load_transfer_set(config, "train", cache=tmp_path / "cache").inputs.tolist() == [1.0, 5.0, 3.0]


def test_splits_of_one_fingerprint_are_two_caches(tmp_path: Path) -> None:
    splits = {
        name: datasets.Dataset.from_dict({"x": values}).map(lambda row: {"x": -row["x"]}, new_fingerprint="negated-v1")
        for name, values in {"train": [1.0, 2.0, 3.0], "test": [7.0, 8.0, 9.0]}.items()
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    config = TransferSetConfig(source=str(tmp_path / "saved"), inputs=("x",), label=None)
    train, test = (load_transfer_set(config, split, cache=tmp_path / "cache") for split in ("train", "test"))
    assert train.inputs.tolist() == [-1.0, -2.0, -3.0]
    assert test.inputs.tolist() == [-7.0, -8.0, -9.0]


def damage(path: Path, how: str, rng: np.random.Generator) -> None:
    if how == "delete":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if how == "truncate":
        del data[int(rng.integers(len(data))) :]
    else:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["inputs.npy", "keys.npy", "labels.npy", "meta.json"])
@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_damaged_cache_is_made_again(case: Case, name: str, how: str, rng: np.random.Generator) -> None:
    keys = np.array(case.load().keys)
    [folder] = case.folders()
    damage(folder / name, how, rng)
    rows = case.load()
    check(rows, case)
    np.testing.assert_array_equal(rows.keys, keys)
    assert case.times() == 2
    check(case.load(), case)
    assert case.times() == 2


def test_a_folder_that_belongs_to_another_recipe_is_not_used(case: Case) -> None:
    case.load()
    [other] = case.folders()
    case.load({"factor": 5})
    [mine] = [folder for folder in case.folders() if folder != other]
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    check(case.load({"factor": 5}), case, factor=5)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
{before}
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferSetConfig, load_transfer_set
import datasets
datasets.config.HF_DATASETS_CACHE = Path(sys.argv[5])
config = TransferSetConfig(source=sys.argv[2], prepare=ObjectSpec(sys.argv[3]))
load_transfer_set(config, "train", cache=Path(sys.argv[4]))
{after}
"""


def start(case: Case, *, before: str = "", after: str = "") -> subprocess.Popen[str]:
    """A process that loads the case's rows."""
    script = SCRIPT.format(before=before, after=after)
    arguments = [str(case.functions.parent), str(case.file), f"{case.functions.stem}.double", str(case.cache)]
    cache = str(datasets.config.HF_DATASETS_CACHE)
    command = [sys.executable, "-c", script, *arguments, cache]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )


def test_a_kill_leaves_no_half_cache_and_the_next_time_sweeps(case: Case) -> None:
    process = start(case, before="import os; os.environ['KILL'] = '1'")
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    [left] = case.folders()
    assert ".part-" in left.name
    assert case.calls.read_text().split() == ["16", "84"]
    case.calls.unlink()
    check(case.load(), case)
    assert case.times() == 1
    [whole] = case.folders()
    assert ".part-" not in whole.name


def test_processes_at_the_same_time_prepare_once(case: Case) -> None:
    slow = case.functions.read_text().replace("    return", "    import time; time.sleep(0.5)\n    return")
    case.functions.write_text(slow)
    fork = "import os, datasets, softlabels.transfer.anew\none = os.fork()\ntwo = one and os.fork()"
    wait = "if two:\n    assert [os.waitpid(pid, 0)[1] for pid in (one, two)] == [0, 0]"
    process = start(case, before=fork, after=wait)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert case.times() == 1
    assert len(case.folders()) == 1


def test_a_file_that_may_not_grow_is_a_full_disk(case: Case) -> None:
    case.load(label=None)  # so that `datasets` has its own copy of the rows
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    process = start(case, before=limit + "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))")
    _, errors = process.communicate(timeout=200)
    last = errors.splitlines()[-1]
    assert last.startswith("softlabels.errors.DiskFull: cannot write")
    assert "SOFTLABELS_CACHE" in last
    assert len(case.folders()) == 1
    check(case.load(), case)


def test_a_cache_that_cannot_be_made_is_a_storage_error(case: Case) -> None:
    case.cache.write_text("a file")
    with pytest.raises(StorageError, match="set SOFTLABELS_CACHE"):
        case.load()


def test_torch_is_not_imported(case: Case) -> None:
    process = start(case, after="print('torch' in sys.modules, 'softlabels.transfer' in sys.modules)")
    output, errors = process.communicate(timeout=200)
    assert output.split() == ["False", "True"], errors


def test_a_label_outside_the_classes_names_row_and_value(case: Case) -> None:
    case.labels[83] = 12
    case.write()
    with pytest.raises(LabelError, match="label 12 in row 83"):
        case.load(classes=tuple("abcdefghij"))
    assert case.folders() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return rows", "returned a list"),
        ("return np.stack(rows).astype(object)", "an array of object"),
        ("return np.stack(rows).astype('>f4')", "an array of >f4, which torch cannot hold"),
        ("return np.stack(rows).astype(np.longdouble)", "which torch cannot hold"),
        ("return np.stack(rows)[:-1]", "for 16 rows from row 0"),
        ("return np.float64(len(rows))", "returned a float64"),
        ("return np.zeros((len(rows), len(rows)))", "different shapes: float64.16. up to row 16, then float64.84."),
        ("return np.zeros(len(rows), 'f4' if len(rows) == 16 else 'f8')", "float32.. up to row 16, then float64"),
    ],
)
def test_what_a_prepare_function_may_not_return(case: Case, body: str, words: str) -> None:
    case.functions.write_text(f"import numpy as np\ndef double(rows):\n    {body}\n")
    with pytest.raises(TransferSetError, match=words):
        case.load()


def test_a_row_that_the_prepare_function_refuses_is_named(case: Case) -> None:
    case.functions.write_text(
        "import numpy as np\nfrom softlabels.errors import TransferSetError\ndef double(rows):\n"
        "    if any(row[0, 0] > 5 for row in rows):\n        raise TransferSetError('too bright', remedy='mend it')\n"
        "    return np.stack(rows)\n"
    )
    case.values[83, 0, 0] = 9
    case.write()
    with pytest.raises(TransferSetError, match=r"^row 83: too bright; mend it$"):
        case.load()


def test_arguments_of_the_prepare_function_are_checked_first(case: Case) -> None:
    with pytest.raises(ConfigError, match="facto"):
        case.load({"facto": 3})
    with pytest.raises(ConfigError, match="no plain values"):
        case.load({"factor": np.ones(3)})
    assert not case.cache.exists()


def test_one_id_for_different_inputs_is_refused(case: Case) -> None:
    ids = np.arange(100)
    ids[70] = ids[9]
    case.write(id=ids)
    with pytest.raises(TransferSetError, match="gives rows 9 and 70 the same id"):
        case.load(key="id")
    case.values[70] = case.values[9]
    case.write(id=ids)
    rows = case.load(key="id")
    np.testing.assert_array_equal(rows.keys[9], rows.keys[70])


def test_repeated_inputs_are_legal(case: Case) -> None:
    case.values[50:] = case.values[:50]
    case.write()
    rows = case.load()
    np.testing.assert_array_equal(rows.keys[50:], rows.keys[:50])
    assert len(np.unique(rows.keys, axis=0)) == 50


def test_the_meta_file_says_what_the_cache_is_of(case: Case) -> None:
    case.load({"factor": 4})
    [folder] = case.folders()
    identity = json.loads((folder / "meta.json").read_text())["identity"]
    assert identity["prepare"] == f"{case.functions.stem}.double"
    assert identity["rows"] == 100
