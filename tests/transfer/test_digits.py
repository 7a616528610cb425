from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferSetConfig, load_transfer_set

DATA = Path(__file__).parents[2] / "data"


def test_the_parquet_files_hold_scikit_learns_arrays() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    config = TransferSetConfig(source=str(DATA / "digits"))
    train, test = (load_transfer_set(config, split) for split in ("train", "test"))
    assert (len(train.labels), len(test.labels)) == (1297, 500)
    assert train.inputs.dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate([train.inputs, test.inputs]), digits.images)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), digits.target)
    assert train.class_names == tuple("0123456789")


def test_the_readme_gives_the_sums_of_the_files() -> None:
    listed = dict(re.findall(r"`(digits/\S+)` \| [\d,]+ \| `([0-9a-f]{64})`", (DATA / "README.md").read_text()))
    files = {
        f"digits/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in (DATA / "digits").iterdir()
    }
    assert listed == files


def test_scaled_digits_lie_between_0_and_1() -> None:
    prepare = ObjectSpec("softlabels.transfer.scale", {"divisor": 16})
    rows = load_transfer_set(TransferSetConfig(source=str(DATA / "digits"), prepare=prepare), "test")
    raw = load_transfer_set(TransferSetConfig(source=str(DATA / "digits")), "test")
    assert rows.inputs.dtype == np.float32
    np.testing.assert_array_equal(rows.inputs * 16, raw.inputs)
    np.testing.assert_array_equal(rows.keys, raw.keys)
