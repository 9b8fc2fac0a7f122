"""A picture to the array that a network takes: what data sets, `predict` and `serve` share.

Needs Pillow and NumPy only.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (
    *(".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""File names that count as images; other files in a folder are left alone."""

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I"})
_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})


def to_array(image: Image.Image, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Brings an opened picture to a size and a number of channels.

    It is turned upright as its EXIF orientation says; transparent pixels lie on white, as viewers show them;
    16-bit grey is scaled to 8 bits; other modes (palette, CMYK, …) are converted by Pillow. It is stretched
    to the size, not cropped, by linear interpolation over the area that a new pixel covers.

    Args:
        image: the picture, as `PIL.Image.open` gives it.
        size: height and width in pixels; None keeps the picture's own.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [height, width, channels].

    Raises:
        Exception: Pillow raises errors of many kinds when the file is damaged or cut off.

    Example:
        >>> to_array(Image.open("cat.jpg"), (32, 32), 3).shape
        (32, 32, 3)
    """
    if size is not None:
        # A JPEG of at least four times the size is decoded at a half, a quarter or an eighth of its own, as
        # that is exact enough and far faster.
        image.draft(image.mode, (2 * max(size), 2 * max(size)))
    image = _upright(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip rather than scale
        pixels = np.asarray(image, np.int64).clip(0, 65535)
        image = Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def fit_array(pixels: np.ndarray, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Brings a decoded picture to a size and a number of channels, as `to_array` does.

    Args:
        pixels: uint8 [h, w, c], c = 1 (grey), 3 (RGB) or 4 (RGB and opacity).
        size: height and width in pixels; None keeps the picture's own.
        channels: 1 or 3.

    Returns:
        uint8 [height, width, channels].
    """
    if pixels.shape[2] == channels and size in (None, pixels.shape[:2]):
        return pixels
    return to_array(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), size, channels)


def read_file(path: str | Path, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Reads a picture file; see `to_array`."""
    with Image.open(path) as image:
        return to_array(image, size, channels)


def read_header(file: str | Path | BinaryIO) -> tuple[tuple[int, int], bool]:
    """Reads the begin of a picture file only.

    Returns:
        (height, width) of the upright picture in pixels, and whether it is grey.
    """
    with Image.open(file) as image:
        try:
            sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
        except Exception:  # damaged EXIF data; the picture itself may be whole
            sideways = False
        size = image.size if sideways else image.size[::-1]
        return size, image.mode in _GREY_MODES or image.mode.startswith("I;16")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data; the picture itself is whole
        return image
