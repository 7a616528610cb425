"""Pictures of any size and colours as arrays of one shape: the prepare function `resize`, for models without a processor.

B rows, K channels, H height, W width. Neighbours: `images` decodes files, `vision` prepares as a checkpoint's processor does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from softlabels.errors import ConfigError, TransferSetError
from softlabels.transfer.prepare import Row, require_whole

_MODES = {1: "L", 3: "RGB"}


def resize(
    rows: Sequence[Row], *, size: int | list[int] | tuple[int, int], channels: int = 3
) -> npt.NDArray[np.float32]:
    """Pictures scaled until they cover H x W, what juts out cut off on both sides alike, from 0 to 1: (B, K, H, W) float32.

    Colours become grey, and grey becomes colours, as `channels` says; what is transparent becomes white.

    Args:
        rows: pictures (H, W) or (H, W, 1 to 4) uint8, of any sizes.
        size: H and W in pixels, or one number for both.
        channels: K, 3 (RGB) or 1 (grey).

    Raises:
        ConfigError: a size or channels that cannot be.
        TransferSetError: rows that are no pictures of 8 bits.

    Example:
        >>> from softlabels.transfer import resize
        >>> resize([np.full((9, 12), 51, np.uint8)], size=4, channels=1)[0, 0, 0].tolist()
        [0.20000000298023224, 0.20000000298023224, 0.20000000298023224, 0.20000000298023224]
    """
    sides = [*size] if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2:
        raise ConfigError(f"prepare.init_args.size of resize is {sides}", remedy="give one number, or height and width")
    height, width = sides
    require_whole("resize", height=height, width=width)
    require_whole("resize", area=height * width)
    if channels not in (*_MODES,) or isinstance(channels, bool):
        raise ConfigError(
            f"prepare.init_args.channels of resize is {channels!r}", remedy="give 3 for colours, or 1 for grey"
        )
    found = [_resized(picture_of(row, "resize"), (width, height), _MODES[channels]) for row in rows]
    values_BHWK = np.array(found, np.float32).reshape(len(rows), height, width, channels) / np.float32(255)
    return np.ascontiguousarray(values_BHWK.transpose(0, 3, 1, 2))


def picture_of(row: Row, who: str) -> Image.Image:
    """One decoded row as a picture of Pillow's. Raises TransferSetError, which names the function `who`, where it is none."""
    if not isinstance(row, np.ndarray) or row.dtype != np.uint8 or row.ndim not in (2, 3):
        found = f"{row.dtype}{list(row.shape)}" if isinstance(row, np.ndarray) else type(row).__name__
        raise TransferSetError(
            f"{who} takes one column of images of 8 bits, not {found}",
            remedy="name an image column in inputs, or set prepare to another function",
        )
    return Image.fromarray(row[..., 0] if row.ndim == 3 and row.shape[2] == 1 else row)


def _resized(picture: Image.Image, size: tuple[int, int], mode: str) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, 3)."""
    if picture.mode in ("LA", "RGBA"):
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return np.asarray(ImageOps.fit(picture.convert(mode), size, Image.Resampling.BILINEAR))
