"""Boxes of the recipe `detect` for a page: what `detect_grid` finds in the outputs of an image's cells.

P cells, C classes with background as the last, B boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.recipes.detect_grid import Floats, centres, found_cells


def cell_boxes(
    outputs: Mapping[str, Floats], *, size: Sequence[int], least: float = 0.3, overlap: float = 0.5
) -> dict[str, NDArray[np.generic]]:
    """The boxes in an image: `position` (B,), `class` (B,) and `box` (B, 4), left, top, width and height as parts of the image.

    Args:
        outputs: `class` (P, C), probabilities, and `box` (P, 4), as `detect_grid.to_cells` codes them.
        size: H and W of the images, as in `detect_rows.cell_rows`.
        least: probability of a class below which a cell has no box.
        overlap: of two boxes of a class that overlap more (intersection over union) the one with the lower score goes.

    Raises:
        ConfigError: another size than that of the images.
    """
    height, width = size
    cells = centres(height, width)
    if len(cells) != len(outputs["class"]):
        raise ConfigError(
            f"boxes: {len(cells)} cells of an image of {height} x {width} pixels, and rows have {len(outputs['class'])}",
            remedy="give boxes.init_args.size as transfer_set.factory.init_args has it",
        )
    cell, found = found_cells(outputs["class"], outputs["box"], cells, least=least, overlap=overlap)
    edges = found.boxes.clip(0, [width, height, width, height]) / [width, height, width, height]
    inside = (edges[:, 2:] > edges[:, :2]).all(axis=1)
    box = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)
    return {"position": cell[inside], "class": found.classes[inside], "box": box[inside]}
