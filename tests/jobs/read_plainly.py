"""What people without softlabels do with a store: run by tests/jobs/test_plain_readers.py in an environment that has none.

Words: the folder of what was pushed and pulled. Each reader gives values and names, which are compared with `truth.npz` there.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import tensorstore
import zarr
from datasets import load_dataset
from huggingface_hub import hf_hub_download

HERE = Path(sys.argv[1])
TRUTH = np.load(HERE / "truth.npz")
NAMES = json.loads((HERE / "names.json").read_text())
PREVIEWED = 100


def same(found: Any, truth: np.ndarray, what: str) -> None:
    found = np.asarray(found)
    assert found.shape == truth.shape, (what, found.shape, truth.shape)
    assert np.array_equal(found, truth), what
    print(f"{what}: {found.shape}")


def exact(stored: np.ndarray, shift: np.ndarray, split: str, what: str) -> None:
    """Logits as they were put in, to what float16 keeps of them."""
    logits = TRUTH[f"{split}_logits"]
    assert np.abs(stored.astype(np.float64) + shift[..., None] - logits).max() < 2e-2, what
    print(f"{what}: logits of {logits.shape}")


def labels_of(dataset: Any, split: str, what: str) -> None:
    assert dataset.features["label"].names == NAMES, what
    labels = dataset["label"][:]
    same(labels, TRUTH[f"{split}_labels"][: len(labels)], f"{what}: labels")
    text = [dataset.features["label"].int2str(each) for each in labels]
    assert text == [NAMES[each] for each in TRUTH[f"{split}_labels"][: len(labels)]], what


def of_hub(repository: str, *, whole: bool) -> None:
    """What `load_dataset` makes of a pushed store."""
    for split, dataset in load_dataset(repository).items():
        labels_of(dataset, split, f"load_dataset({repository}) {split}")
        if whole:
            columns = {name: np.array(dataset[name][:]) for name in ("logits", "shift")}
            exact(columns["logits"], columns["shift"], split, f"load_dataset({repository}) {split}")


def previews(repository: str) -> None:
    """The Parquet that lies beside it."""
    for split in ("train", "test"):
        logits, labels = TRUTH[f"{split}_logits"][:PREVIEWED], TRUTH[f"{split}_labels"][:PREVIEWED]
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p = (p / p.sum(-1, keepdims=True)).mean(1)
        order = (-p).argsort(-1)
        path = hf_hub_download(repository, f"preview/{split}.parquet", repo_type="dataset")
        rows = duckdb.sql(f"select label, label_name, top, p from '{path}'").fetchall()
        frame = polars.read_parquet(path)
        columns = [frame[name].to_list() for name in ("label", "label_name", "top", "p")]
        for what, found in (("duckdb", [*map(list, zip(*rows, strict=True))]), ("polars", columns)):
            same(found[0], labels, f"{what} {split}: labels")
            assert found[1] == [NAMES[each] for each in labels]
            assert np.abs(np.array(found[3]) - np.take_along_axis(p, order, -1)).max() < 1e-2
            assert [row[0] for row in found[2]] == [NAMES[each] for each in order[:, 0]]


def pulled() -> None:
    """Folders as `pull` made them."""
    for split in ("train", "test"):
        labels = TRUTH[f"{split}_labels"]
        group = zarr.open_group(HERE / "pulled-zarr" / split, mode="r")
        same(group["label"][:], labels, f"zarr {split}: labels")
        exact(group["logits"][:], group["shift"][:], split, f"zarr {split}")
        kept = {}
        for name in ("logits", "shift"):
            store = {"driver": "file", "path": str(HERE / "pulled-zarr" / split / name)}
            kept[name] = tensorstore.open({"driver": "zarr3", "kvstore": store}).result().read().result()
        exact(kept["logits"], kept["shift"], split, f"tensorstore {split}")
        tables = [polars.read_ipc_stream(path) for path in sorted((HERE / "pulled-arrow" / split).glob("*.arrow"))]
        frame = polars.concat(tables)
        same(frame["label"].to_numpy(), labels, f"polars {split}: labels of Arrow")
        exact(frame["logits"].to_numpy(), frame["shift"].to_numpy(), split, f"polars {split}")
    for split, dataset in load_dataset(str(HERE / "pulled-arrow")).items():
        labels_of(dataset, split, f"load_dataset(folder) {split}")


assert importlib.util.find_spec("softlabels") is None
of_hub("team/arrow", whole=True)
of_hub("team/zarr", whole=False)
previews("team/arrow")
previews("team/zarr")
pulled()
print("all as it was put in")
