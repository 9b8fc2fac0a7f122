"""The bytes of a picture to the array that a network takes; `predict` and `serve` share it.

The bytes come from strangers, so that what is decoded is checked first; what becomes of the pixels is the
same as in training (`gdas_tf.data.images`).
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gdas_tf.data.images import PictureError, open_picture, to_array
from gdas_tf.export.serving.memory import give_back

MAX_PIXELS = 50_000_000
"""Pixels of a stranger's picture at most; about twice those of a usual camera. A user's own may have more."""

_LARGE = 4_000_000
"""Pixels of a picture from which on its memory is worth giving back."""


class ImageError(ValueError):
    """A picture that cannot be used; the message says why."""


class ImageFormatError(ImageError):
    """The bytes are no picture of an accepted format."""


class ImageSizeError(ImageError):
    """The picture has more pixels than are accepted."""


def load_image(
    data: bytes,
    image_shape: tuple[int, int, int],
    *,
    formats: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decodes a picture and brings it to the size and channels of a network.

    Args:
        data: the bytes of a picture file.
        image_shape: height, width, channels (1 or 3).
        formats: accepted formats as Pillow names them; None for all that it knows.
        max_pixels: pixels at most, checked before anything is decoded.

    Returns:
        float32 [height, width, channels] in [0, 1].

    Raises:
        ImageError: the picture cannot be used.

    Example:
        >>> load_image(Path("cat.jpg").read_bytes(), (32, 32, 3)).shape
        (32, 32, 3)
    """
    pixels, found = _decode(data, image_shape, formats, max_pixels)
    if found > _LARGE:
        give_back()
    return pixels.astype(np.float32) / 255


def _decode(
    data: bytes, image_shape: tuple[int, int, int], formats: Sequence[str] | None, max_pixels: int
) -> tuple[np.ndarray, int]:
    """Returns uint8 [height, width, channels], and how many pixels the picture itself has."""
    *size, channels = image_shape
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # Pillow's own, of many pixels and damaged EXIF data
        try:
            image = stack.enter_context(open_picture(io.BytesIO(data), max_pixels, formats))
        except PictureError as error:
            raise ImageSizeError(f"the picture has {error}") from error
        except Image.DecompressionBombError as error:
            raise ImageSizeError(f"the picture has more than {max_pixels:,} pixels") from error
        except Exception as error:  # Pillow raises many kinds on bytes that are no picture
            *names, last = formats or ("known",)
            names = " or ".join(filter(None, [", ".join(names), last]))
            raise ImageFormatError(f"the {len(data)} bytes are no {names} picture") from error
        try:
            pixels = to_array(image, tuple(size), channels)
        except PictureError as error:
            raise ImageError(f"the {image.format} picture has {error}") from error
        except Exception as error:
            raise ImageError(f"the {image.format} picture is damaged or cut off") from error
    return pixels, image.width * image.height
