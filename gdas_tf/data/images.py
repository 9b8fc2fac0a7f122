"""A picture to the array that a network takes: what data sets, `predict` and `serve` share.

Needs Pillow and NumPy only.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, features

MAX_PIXELS = 300_000_000
"""Pixels of a picture at most; cameras and phones have 200 million. A server takes fewer of strangers."""

_SUFFIXES = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff"),
)
_OPTIONAL_SUFFIXES = {
    "avif": (".avif", ".avifs"),
    "jpg_2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "webp": (".webp",),
}
"""Feature of Pillow, which not every build of it has, to names of files."""

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I"})
_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})
_TILE_TAGS = (322, 323)  # width and length of the tiles of a TIFF picture


class PictureError(ValueError):
    """A picture that is whole and yet not accepted; the message says why in a few words."""


@functools.cache
def suffixes() -> frozenset[str]:
    """Returns the ends of file names that count as pictures; other files in a folder are left alone."""
    known = {*features.modules, *features.codecs}  # of an older Pillow, fewer
    return frozenset(_SUFFIXES).union(
        *(
            names
            for feature, names in _OPTIONAL_SUFFIXES.items()
            if feature in known and features.check(feature)
        )
    )


@contextlib.contextmanager
def open_picture(
    file: str | Path | BinaryIO, max_pixels: int | None = None, formats: Sequence[str] | None = None
) -> Iterator[Image.Image]:
    """Opens a picture of at most so many pixels; nothing is decoded before that is known.

    Args:
        file: the file.
        max_pixels: pixels at most, width times height; None for `MAX_PIXELS`.
        formats: accepted formats as Pillow names them; None for all that it knows.

    Raises:
        PictureError: it has more pixels.
        Exception: Pillow raises errors of many kinds on files that are no pictures.
    """
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    with _pillow_limit.lifted(max_pixels), Image.open(file, formats=formats) as image:
        for width, height in (image.size, _tile_size(image)):
            if width * height > max_pixels:
                raise PictureError(
                    f"{width} x {height} pixels; accepted are {max_pixels:,} at most, so save it smaller"
                )
        yield image


class _PillowLimit:
    """Pillow's own limit of pixels, which holds for the whole process.

    It is lifted while any thread has a picture open that may have more pixels, and then holds again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lifted = 0
        self._before: int | None = None

    @contextlib.contextmanager
    def lifted(self, max_pixels: int) -> Iterator[None]:
        with self._lock:
            if not self._lifted:
                self._before = Image.MAX_IMAGE_PIXELS
            needed = self._before is not None and max_pixels > self._before
            if needed:
                self._lifted += 1
                Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            if needed:
                with self._lock:
                    self._lifted -= 1
                    if not self._lifted:
                        Image.MAX_IMAGE_PIXELS = self._before


_pillow_limit = _PillowLimit()


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
        PictureError: its pixels are floating-point numbers.
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
        raise PictureError("floating-point pixels; save it with 8 or 16 bits")
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
    """Reads a picture file; see `open_picture` and `to_array`."""
    with open_picture(path) as image:
        return to_array(image, size, channels)


def read_header(file: str | Path | BinaryIO) -> tuple[tuple[int, int], bool]:
    """Reads only the beginning of a picture file.

    Returns:
        (height, width) of the upright picture in pixels, and whether it is grey.

    Raises:
        PictureError: it has more than `MAX_PIXELS`.
        Exception: Pillow raises errors of many kinds on files that are no pictures.
    """
    with open_picture(file) as image:
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


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of a TIFF picture's tiles, which may be larger than the picture itself."""
    try:
        width, height = (int(image.tag_v2.get(tag, 0)) for tag in _TILE_TAGS)
    except (AttributeError, TypeError, ValueError):  # another format, or damaged
        return 0, 0
    return width, height
