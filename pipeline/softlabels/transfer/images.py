"""Encoded image bytes -> pixel values, and whether every decoder must give the same ones.

Losslessly coded images count as their pixels, so that a PNG encoded again keeps its content key. Decoders of lossy formats
differ in their last bits, so those count as their encoded bytes (`keys`). Neighbour: `decode` finds the bytes in a column.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

# Pillow is told which formats to try: some of its others start programs, or are parsers that hardly anybody exercises.
_WANTED = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF", "JPEG2000")
PIL.Image.init()
FORMATS = tuple(name for name in _WANTED if name in PIL.Image.OPEN)  # a build of Pillow may lack some
LOSSLESS = ("PNG", "BMP", "GIF", "PPM")
LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
_ORIENTATION = 0x0112  # EXIF tag


def decode_image(data: bytes) -> tuple[npt.NDArray[np.generic], bool]:
    """Pixels (H, W) or (H, W, channels) in the dtype that Pillow gives, and whether the image is losslessly coded.

    Turned as its EXIF orientation says; a palette is resolved to RGB, or to RGBA where it has transparency.

    Raises:
        ValueError: no image of a known format, damaged, too many pixels for Pillow, or losslessly coded with several frames.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            lossless = is_lossless(image)
            if lossless and getattr(image, "is_animated", False):
                raise ValueError("it has more than one frame")
            image.load()
            turned = PIL.ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION) is not None else image
            if turned.mode in ("P", "PA"):
                turned = turned.convert("RGBA" if turned.mode == "PA" or "transparency" in turned.info else "RGB")
            pixels = np.asarray(turned)
    except PIL.UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), lossless


def is_lossless(image: PIL.Image.Image) -> bool:
    """Whether the file keeps its pixels exactly: PNG, BMP, GIF, PPM, and TIFF without lossy compression. WebP never counts."""
    if image.format == "TIFF":
        return image.info.get("compression") in LOSSLESS_TIFF
    return image.format in LOSSLESS
