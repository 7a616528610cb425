"""Encoded image bytes -> pixel values, and whether every decoder must give the same ones.

Losslessly coded images count as their pixels, so that a PNG encoded again keeps its content key. Decoders of lossy formats
differ in their last bits, so those count as their encoded bytes (`keys`). Neighbour: `decode` finds the bytes in a column.

A file whose values are no grey, RGB or RGBA (CMYK, YCbCr, LAB, HSV, premultiplied alpha) gives RGB, as Pillow converts it. Its
key is still made from the values in the file. Colour profiles in a file are not applied, as transformers does not either.
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
_AS_THEY_ARE = ("1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
Pixels = npt.NDArray[np.generic]


def decode_image(data: bytes) -> tuple[Pixels, Pixels | None]:
    """Pixels (H, W) or (H, W, channels) in the dtype that Pillow gives; and of a losslessly coded image the values in the file,
    which are the same but where its colours were converted.

    Turned as its EXIF orientation says; a palette is resolved to RGB, or to RGBA where it has transparency.

    Raises:
        ValueError: no image of a known format, damaged, too many pixels for Pillow, or losslessly coded with several frames.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> from softlabels.transfer.images import decode_image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3), "red").save(file, "PNG")
        >>> decode_image(file.getvalue())[0].shape
        (3, 4, 3)
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
            values = _native(turned)
            pixels = values if turned.mode in _AS_THEY_ARE else _native(_rgb(turned))
    except PIL.UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ImportError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return pixels, values if lossless else None


def _native(image: PIL.Image.Image) -> Pixels:
    values = np.asarray(image)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """An image of another colour space as RGB."""
    if image.mode in ("RGBa", "La"):
        return image.convert("RGBA" if image.mode == "RGBa" else "LA")
    if image.mode != "LAB":
        return image.convert("RGB")
    from PIL import ImageCms  # a build of Pillow may lack it: then LAB alone does not decode

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None  # it is only where the image is changed in place
    return converted


def is_lossless(image: PIL.Image.Image) -> bool:
    """Whether the file keeps its pixels exactly: PNG, BMP, GIF, PPM, and TIFF without lossy compression. WebP never counts."""
    if image.format == "TIFF":
        return image.info.get("compression") in LOSSLESS_TIFF
    return image.format in LOSSLESS
