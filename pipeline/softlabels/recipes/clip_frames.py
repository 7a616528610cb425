"""A class for each frame of a clip, from one class of the clip: a factory of transfer sets with positions. Extra `[audio]`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, List

from softlabels.recipes.log_mel import frame_count
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import file_bytes
from softlabels.transfer.sound import waveform
from softlabels.transfer.source import open_split


def clip_frames(
    *,
    split: str,
    source: str,
    rate: int,
    frames: int,
    window: int = 256,
    hop: int = 160,
    split_column: str | None = None,
    audio: str = "audio",
    label: str = "label",
) -> Dataset:
    """The clips of one split, with a label for each of the frames that `log_mel` makes of them with the same arguments.

    Args:
        split: split of the source, or values of `split_column`, as in transfer_set.splits.
        source: as transfer_set.source.
        rate: samples a second that the files have.
        frames: the most that a clip has; what is longer is cut.
        window: samples of a frame.
        hop: samples from one frame to the next.
        split_column: as transfer_set.split_column.
        audio: the column of audio files.
        label: the column of each clip's class.

    Returns:
        The columns `audio`, the files as they are, and `label`, a list with the clip's class once a frame.

    Raises:
        MissingExtra: soundfile is not installed.
        TransferSetError: there is no such source, split or column, or a file is no audio.
    """
    config = TransferSetConfig(
        source=source, inputs=(audio,), label=label, split_column=split_column, splits={"_": split}
    )
    data = open_split(config, "_").data
    table: Any = data.with_format("arrow")[:]
    most = (frames - 1) * hop + window
    labels = [
        [one] * frame_count(len(waveform(file_bytes(file), rate=rate, most=most)), window=window, hop=hop)
        for file, one in zip(table[audio].to_pylist(), table[label].to_pylist(), strict=True)
    ]
    features = Features({"audio": data.features[audio], "label": List(data.features[label])})
    columns = pa.Table.from_arrays([table[audio], pa.array(labels)], ["audio", "label"])
    return Dataset(columns.cast(features.arrow_schema), info=DatasetInfo(features=features), fingerprint="clip_frames")
