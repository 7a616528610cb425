"""Every way in: folders, files, saved datasets and factories give the same rows, and what cannot be read is one line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from softlabels.errors import ConfigError, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set

NAMES = ("cat", "dog", "owl")


def load(source: Path | str, split: str = "train", **settings: object) -> TransferRows:
    return load_transfer_set(TransferSetConfig(source=str(source), **settings), split)


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (20, 6, 5)).astype(np.uint8)


@pytest.fixture
def data(images: np.ndarray, rng: np.random.Generator) -> Dataset:
    """20 PNG images with labels."""
    files = []
    for pixels in images:
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, "PNG")
        files.append({"bytes": buffer.getvalue(), "path": None})
    columns = {"image": files, "label": rng.integers(0, 3, 20).tolist()}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=list(NAMES))}))


def save(data: Dataset, form: str, path: Path) -> Path:
    """`data` in one of the forms that a user may have."""
    path.mkdir()
    if form == "folder of Parquet":
        data.to_parquet(path / "train-00000-of-00001.parquet")
    elif form == "Parquet file":
        data.to_parquet(path / "some.parquet")
        return path / "some.parquet"
    elif form == "Parquet from other tools":
        pq.write_table(data.with_format("arrow")[:].replace_schema_metadata(None), path / "some.parquet")
        return path / "some.parquet"
    elif form in ("Arrow stream", "Arrow file"):
        table = data.with_format("arrow")[:]
        new = pa.ipc.new_stream if form == "Arrow stream" else pa.ipc.new_file
        with new(str(path / "some.arrow"), table.schema) as writer:
            writer.write_table(table)
        return path / "some.arrow"
    elif form == "saved dataset":
        data.save_to_disk(path / "saved")
        return path / "saved"
    elif form == "saved splits":
        DatasetDict({"train": data}).save_to_disk(path / "saved")
        return path / "saved"
    else:
        for row, example in enumerate(data):
            folder = path / "train" / NAMES[example["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            example["image"].save(folder / f"{row:02d}.{'bmp' if row % 2 else 'png'}")
    return path


FORMS = [
    "folder of Parquet",
    "Parquet file",
    "Parquet from other tools",
    "Arrow stream",
    "Arrow file",
    "saved dataset",
    "saved splits",
    "image folder",
]


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_in_any_form_has_the_same_keys_inputs_and_labels(
    data: Dataset, images: np.ndarray, tmp_path: Path, form: str
) -> None:
    dense = Dataset.from_dict({"image": list(images), "label": data["label"]}, features=Features(
        {"image": datasets.Array2D((6, 5), "uint8"), "label": ClassLabel(names=list(NAMES))}
    ))  # fmt: skip
    expected = load(save(dense, "folder of Parquet", tmp_path / "dense"))
    np.testing.assert_array_equal(expected.inputs, images)

    rows = load(save(data, form, tmp_path / "copy"))
    order = np.lexsort(rows.keys.T) if form == "image folder" else np.arange(20)
    theirs = np.lexsort(expected.keys.T) if form == "image folder" else np.arange(20)
    np.testing.assert_array_equal(rows.keys[order], expected.keys[theirs])
    np.testing.assert_array_equal(rows.inputs[order], expected.inputs[theirs])
    np.testing.assert_array_equal(rows.labels[order], expected.labels[theirs])
    if form == "image folder":  # the names of the classes that occur
        assert set(rows.class_names) <= set(NAMES)
    else:
        assert rows.class_names == (None if form == "Parquet from other tools" else NAMES)


def test_a_shuffled_and_filtered_copy_has_the_same_keys(
    data: Dataset, tmp_path: Path, rng: np.random.Generator
) -> None:
    whole = load(save(data, "saved dataset", tmp_path / "whole"))
    kept = rng.permutation(20)[:13]
    part = load(save(data.select(kept), "folder of Parquet", tmp_path / "part"))
    np.testing.assert_array_equal(part.keys, whole.keys[kept])
    np.testing.assert_array_equal(part.inputs, whole.inputs[kept])
    np.testing.assert_array_equal(part.labels, whole.labels[kept])


def test_tabular_columns_from_csv(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.integers(0, 1000, (9, 3))
    labels = [NAMES[number] for number in rng.integers(0, 3, 9)]
    table = pa.table({"a": values[:, 0], "b": values[:, 1], "c": values[:, 2] / 8, "label": labels})
    pyarrow.csv.write_csv(table, tmp_path / "some.csv")
    settings = {"prepare": ObjectSpec("softlabels.transfer.vector"), "classes": NAMES, "inputs": ("c", "a")}
    rows = load(tmp_path / "some.csv", **settings)
    np.testing.assert_array_equal(rows.inputs, np.column_stack([values[:, 2] / 8, values[:, 0]]).astype(np.float32))
    assert [NAMES[label] for label in rows.labels] == labels
    assert rows.class_names == NAMES
    pq.write_table(table.rename_columns(["x", "y", "z", "label"]), tmp_path / "other.parquet")
    renamed = load(tmp_path / "other.parquet", **{**settings, "inputs": ("z", "x")})
    np.testing.assert_array_equal(renamed.keys, rows.keys)


def test_class_names_of_the_recipe_come_first(data: Dataset, tmp_path: Path) -> None:
    rows = load(save(data, "saved dataset", tmp_path / "a"), classes=("x", "y", "z"))
    assert rows.class_names == ("x", "y", "z")


def test_splits_go_by_the_recipes_names(data: Dataset, tmp_path: Path) -> None:
    DatasetDict({"first": data.select(range(4)), "rest": data.select(range(4, 20))}).save_to_disk(tmp_path / "saved")
    rows = load(tmp_path / "saved", "train", splits={"train": "rest"}, name="animals")
    assert (len(rows.labels), rows.split, rows.name, rows.source) == (16, "train", "animals", str(tmp_path / "saved"))


def write_factory(file: Path, body: str) -> ObjectSpec:
    head = "import numpy as np\nfrom datasets import Dataset\ndef make(split, **options):\n    "
    file.write_text(head + body.replace("\n", "\n    "))
    return ObjectSpec(f"{file.stem}.make")


def test_a_local_copy_needs_no_subset_and_may_have_some(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [[1, 2]], "label": [0]}), tmp_path / "train.parquet")
    assert load(tmp_path, subset="large").inputs.tolist() == [[1, 2]]  # the recipe names the hub's subset
    (tmp_path / "large").mkdir()
    pq.write_table(pa.table({"image": [[3, 4]], "label": [0]}), tmp_path / "large" / "train.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files: {folder}train.parquet\n"
        for name, folder in (("small", ""), ("large", "large/"))
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert load(tmp_path, subset="large").inputs.tolist() == [[3, 4]]
    assert load(tmp_path, subset="small").inputs.tolist() == [[1, 2]]


def test_a_factory_may_return_arrays_or_a_dataset(functions: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    np.savez(tmp_path / "made.npz", x=rng.standard_normal((7, 3, 2)).astype(np.float16), y=rng.integers(0, 3, 7))
    spec = write_factory(functions, (
        f"made = np.load({str(tmp_path / 'made.npz')!r})\n"
        "columns = {'image': made['x'], 'label': made['y'], 'name': [split] * 7}\n"
        "return columns if options['arrays'] else Dataset.from_dict({**columns, 'image': list(made['x'])})"
    ))  # fmt: skip
    made = np.load(tmp_path / "made.npz")
    for arrays in (True, False):
        config = TransferSetConfig(factory=ObjectSpec(spec.class_path, {"arrays": arrays}))
        rows = load_transfer_set(config, "test")
        np.testing.assert_array_equal(rows.inputs, made["x"])
        np.testing.assert_array_equal(rows.labels, made["y"])
        assert rows.source == rows.name == spec.class_path


def test_a_factory_is_never_served_from_a_stale_cache(functions: Path, tmp_path: Path) -> None:
    PIL.Image.new("L", (4, 4), 7).save(tmp_path / "a.png")
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3, 1))
    spec = write_factory(functions, (
        f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
        f"return {{'x': x, 'image': [{{'bytes': None, 'path': {str(tmp_path / 'a.png')!r}}}] * 2}}"
    ))  # fmt: skip
    numbers = TransferSetConfig(factory=spec, inputs=("x",), label=None)
    image = TransferSetConfig(factory=spec, label=None)
    before = load_transfer_set(numbers, "train")
    assert load_transfer_set(image, "train").inputs.max() == 7
    np.save(tmp_path / "x.npy", np.arange(6, 12).reshape(2, 3, 1))
    PIL.Image.new("L", (4, 4), 9).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_transfer_set(numbers, "train").inputs, before.inputs + 6)
    assert load_transfer_set(image, "train").inputs.max() == 9


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return [1, 2]", "returned a list"),
        ("return {'image': np.zeros((3, 2)), 'label': np.zeros(4, int)}", "make no table"),
        ("return {'image': np.zeros((0, 2)), 'label': np.zeros(0, int)}", "has no rows"),
        ("return {'image': np.zeros((3, 2), complex), 'label': np.zeros(3, int)}", "make no table"),
    ],
)
def test_what_a_factory_may_not_return(functions: Path, body: str, words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        load_transfer_set(TransferSetConfig(factory=write_factory(functions, body)), "train")


def test_a_factory_that_cannot_take_its_arguments_is_a_config_error(functions: Path) -> None:
    functions.write_text("def make(folder): ...")
    with pytest.raises(ConfigError, match=r"make\(folder\) cannot be called with these arguments"):
        load_transfer_set(TransferSetConfig(factory=ObjectSpec(f"{functions.stem}.make")), "train")


def test_what_the_source_lacks_is_named_with_what_it_has(data: Dataset, tmp_path: Path) -> None:
    source = save(data, "folder of Parquet", tmp_path / "some")
    with pytest.raises(TransferSetError, match=r"no column 'img'; its columns are image, label"):
        load(source, inputs=("img",))
    with pytest.raises(TransferSetError, match=r"no column 'id'"):
        load(source, key="id")
    with pytest.raises(TransferSetError, match=r"no split 'test'; its splits are train"):
        load(source, "test")
    with pytest.raises(TransferSetError, match=r"no split 'dev'; the recipe's splits are train, test"):
        load(source, "dev")


def one_line(error: pytest.ExceptionInfo[TransferSetError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    for source in ("empty", "broken.parquet", "saved"):
        with pytest.raises(TransferSetError, match="cannot open") as error:
            load(tmp_path / source)
        assert str(tmp_path) in one_line(error)
    for missing in (tmp_path / "missing", "csv", "no id/at all/"):
        with pytest.raises(TransferSetError, match="there is no file or folder") as error:
            load(missing)
        one_line(error)


def test_an_unknown_hub_id_without_network_is_one_line() -> None:
    with pytest.raises(TransferSetError, match=r"cannot open nobody/has-this: .*no local path of that name") as error:
        load("nobody/has-this")
    one_line(error)


def test_scripts_in_a_data_folder_are_not_run(data: Dataset, tmp_path: Path) -> None:
    source = save(data, "folder of Parquet", tmp_path / "folder")
    (source / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert len(load(source).labels) == 20
    (source / "folder.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(TransferSetError, match="scripts are no longer supported"):
        load(source)
    only = tmp_path / "only"
    only.mkdir()
    (only / "only.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for path in (only, only / "only.py"):
        with pytest.raises(TransferSetError, match="cannot open"):
            load(path)
    assert not (tmp_path / "ran").exists()


def test_text_rows_and_an_id_column(functions: Path, tmp_path: Path) -> None:
    functions.write_text("import numpy as np\ndef lengths(rows): return np.array([[len(row)] for row in rows])\n")
    texts = ["a", "bcd", "", "ef"]
    table = {"text": texts, "id": ["w", "x", "y", "z"]}
    (tmp_path / "some.jsonl").write_text(
        "".join(json.dumps(dict(zip(table, row, strict=True))) + "\n" for row in zip(*table.values(), strict=True))
    )
    settings = {"inputs": ("text",), "label": None, "prepare": ObjectSpec(f"{functions.stem}.lengths")}
    rows = load(tmp_path / "some.jsonl", **settings)
    assert rows.inputs.tolist() == [[1], [3], [0], [2]]
    assert rows.labels.tolist() == [-1] * 4
    assert rows.class_names is None
    by_id = load(tmp_path / "some.jsonl", key="id", **settings)
    Dataset.from_dict(
        {**table, "text": ["re-encoded"] * 4}, Features({"text": Value("string"), "id": Value("string")})
    ).to_parquet(tmp_path / "other.parquet")
    np.testing.assert_array_equal(load(tmp_path / "other.parquet", key="id", **settings).keys, by_id.keys)
    assert (by_id.keys != rows.keys).any(axis=1).all()
