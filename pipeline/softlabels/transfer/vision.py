"""Images to pixel arrays with a Hugging Face image processor: the prepare function of its image models. Extra `[hf]`.

B batch, K channels, H height, W width. Neighbours: `images` decodes files, `pictures` resizes without a processor,
`softlabels.models.hf` takes what stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from softlabels.errors import ConfigError
from softlabels.transfer.file_arguments import file_digest, reads_files
from softlabels.transfer.pictures import picture_of
from softlabels.transfer.prepare import Row
from softlabels.transfer.pretrained import load_from, matching, pretrained_folder

FILES = ("preprocessor_config.json", "processor_config.json")


def _digests(*, processor: str, revision: str | None = None) -> dict[str, str | None]:  # the arguments of `process`
    folder = _folder(processor, revision)
    return {"processor": file_digest(*matching(folder, FILES)), "revision": None}


@reads_files(_digests, packages=("transformers",))
def process(rows: Sequence[Row], *, processor: str, revision: str | None = None) -> npt.NDArray[np.float32]:
    """Images as the checkpoint's own processor resizes, crops and normalises them: (B, K, H, W) float32.

    Args:
        rows: images (H, W) or (H, W, channels) uint8, of any sizes; grey ones become RGB for a processor of colour images.
        processor: folder or hub id of a Hugging Face image processor or model.
        revision: branch, tag or commit on the hub.

    Raises:
        MissingExtra: transformers is not installed. ConfigError: no such processor.
        TransferSetError: rows that are no images of 8 bits.

    Example:
        >>> from softlabels.transfer.vision import process
        >>> from transformers import ViTImageProcessor
        >>> files = ViTImageProcessor(size={"height": 4, "width": 4}).save_pretrained("processor")
        >>> process([np.zeros((28, 28, 3), np.uint8)], processor="processor").shape
        (1, 3, 4, 4)
    """
    given = load_processor(processor, revision)
    channels = len(given.image_mean) if isinstance(getattr(given, "image_mean", None), list | tuple) else 3
    mode = "L" if channels == 1 else "RGB"
    pictures = [picture_of(row, "an image processor").convert(mode) for row in rows]
    if channels == 1:  # as arrays, whose channel axis the processor would otherwise look for in vain
        arrays = [np.asarray(picture)[..., None] for picture in pictures]
        found = given(images=arrays, input_data_format="channels_last", return_tensors="np")
    else:
        found = given(images=pictures, return_tensors="np")
    return np.ascontiguousarray(found["pixel_values"], dtype=np.float32)


def load_processor(name: str, revision: str | None = None) -> Any:
    """The image processor of a folder or hub id, a transformers object. Raises `ConfigError`, `MissingExtra`."""
    folder = _folder(name, revision)
    return load_from(str(folder), "AutoImageProcessor", "image processor", file_digest(*matching(folder, FILES)))


def _folder(name: str, revision: str | None) -> Path:
    folder = pretrained_folder(name, revision=revision, patterns=(*FILES, "config.json"))
    if not matching(folder, FILES):
        raise ConfigError(
            f"there is no image processor in {name}", remedy="name a folder or hub id with a preprocessor_config.json"
        )
    return folder
