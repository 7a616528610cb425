"""A label for each frame: as many as log_mel makes of the clip, and of its class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferSetConfig, load_transfer_set
from tests.transfer.test_sound import wav

SIZES = (40, 120, 139, 140, 400)


def test_a_clip_has_a_label_for_each_of_its_frames(tmp_path: Path, rng: np.random.Generator) -> None:
    files = [{"bytes": wav(rng.integers(-9999, 9999, size)), "path": None} for size in SIZES]
    labels, who = [2, 0, 1, 1, 0], ["a", "b", "a", "a", "b"]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"audio": pa.array(files, kind), "label": labels, "speaker": who})
    pq.write_table(table, tmp_path / "clips.parquet")
    cut = {"rate": 8000, "frames": 6, "window": 100, "hop": 20}
    config = TransferSetConfig(
        factory=ObjectSpec(
            "softlabels.recipes.clip_frames.clip_frames",
            {"source": str(tmp_path / "clips.parquet"), "split_column": "speaker", **cut},
        ),
        inputs=("audio",),
        positions={"most": 6},
        classes=("x", "y", "z"),
        prepare=ObjectSpec("softlabels.transfer.log_mel", {**cut, "mels": 8}),
        splits={"train": "a", "test": "b"},
    )
    rows = load_transfer_set(config, "train")
    assert np.asarray(rows.labels).tolist() == [[2] + 5 * [-1], [1, 1] + 4 * [-1], [1, 1, 1] + 3 * [-1]]
    test = load_transfer_set(config, "test")
    assert np.asarray(test.labels).tolist() == [[0, 0] + 4 * [-1], [0] * 6]  # the last is cut
    for each in (rows, test):
        assert each.mask is not None
        np.testing.assert_array_equal((np.asarray(each.inputs) != 0).any(axis=2), np.asarray(each.mask) == 1)
