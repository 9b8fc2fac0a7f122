"""The embedded digits as a source."""

from __future__ import annotations

import numpy as np

from gdas_tf.data.sources.base import Source, from_arrays


def digits(image_size: tuple[int, int] | None, image_channels: int | None) -> Source:
    """Returns scikit-learn's embedded set: 1,797 handwritten digits of 8 x 8 pixels, grey."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return from_arrays("digits", names, (images, labels), None, image_size, image_channels)
