"""Images as a checkpoint's own processor makes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softlabels.errors import ConfigError, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer.file_arguments import recorded
from softlabels.transfer.vision import load_processor, process
from tests.models.hf_samples import processor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return processor(tmp_path / "processor", size=8)


def test_images_are_what_the_processor_says(folder: Path, rng: np.random.Generator) -> None:
    colour, wide = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8), rng.integers(0, 256, (4, 20, 3), dtype=np.uint8)
    pixels = process([colour, wide], processor=str(folder))
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels.dtype == np.float32
    for row, array in zip(pixels, (colour, wide), strict=True):
        resized = np.asarray(Image.fromarray(array).resize((8, 8), Image.Resampling.BILINEAR), np.float64)
        np.testing.assert_allclose(row, (resized / 255 - 0.5).transpose(2, 0, 1) / 0.5, atol=1e-5)
    alone = process([wide], processor=str(folder))
    np.testing.assert_array_equal(alone[0], pixels[1])


def test_grey_images_become_what_the_processor_takes(folder: Path, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    three = process([grey, grey[..., None]], processor=str(folder))
    np.testing.assert_array_equal(three[0], three[1])
    np.testing.assert_array_equal(three[0, 0], three[0, 2])
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= {"image_mean": [0.5], "image_std": [0.5], "do_resize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    one = process([grey], processor=str(folder))
    np.testing.assert_allclose(one[0], (grey[None] / 255 - 0.5) / 0.5, atol=1e-6)


@pytest.mark.parametrize("row", ["text", np.zeros((4, 4, 3), np.float32), np.zeros(4, np.uint8)])
def test_what_is_no_image_is_refused(folder: Path, row: object) -> None:
    with pytest.raises(TransferSetError, match="images of 8 bits"):
        process([row], processor=str(folder))  # type: ignore[list-item]


def test_what_is_no_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image processor in"):
        process([], processor=str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no image processor that can be opened"):
        load_processor(str(tmp_path))


def test_a_processor_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    spec = ObjectSpec("softlabels.transfer.vision.process", {"processor": str(folder)})
    before = recorded(spec)
    shutil.copytree(folder, tmp_path / "copy")
    assert recorded(ObjectSpec(spec.class_path, {"processor": str(tmp_path / "copy")})) == before
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"do_normalize": False}))
    assert recorded(spec) != before
    image = np.full((8, 8, 3), 255, np.uint8)
    assert process([image], processor=str(folder)).max() == 1.0
