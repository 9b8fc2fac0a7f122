"""What a source of labelled images is.

A source knows its classes, the shape of its images and their number, and reads the images only when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gdas_tf.data.images import fit_array

Batches = Iterator[tuple[np.ndarray, np.ndarray]]
"""Images uint8 [n, H, W, C] and their labels int32 [n], some at a time."""

_BATCH = 1024


@dataclass(frozen=True)
class Part:
    """The training or the test images of a source, not read yet.

    Args:
        count: number of images.
        batches: gives the images in a fixed order, as pairs of uint8 [n, H, W, C] and int32 [n].
        labels: gives all labels, int32 [count], in the same order.
    """

    count: int
    batches: Callable[[], Batches]
    labels: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Source:
    """Labelled images that are not read yet.

    Args:
        name: the name to show.
        class_names: a name per label.
        image_shape: height, width, channels.
        train: training images.
        test: test images; None if the source has none apart.
        fingerprint: gives a text that changes whenever the images do.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Part
    test: Part | None
    fingerprint: Callable[[], str]


def from_arrays(
    name: str,
    class_names: tuple[str, ...],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    image_size: int | None,
    image_channels: int | None,
) -> Source:
    """Returns a source of images that are in memory.

    Args:
        name: the name to show.
        class_names: a name per label.
        train: images uint8 [n, H, W, C], C = 1, 3 or 4 (RGB and opacity), and labels int [n].
        test: test images likewise; None if there are none apart.
        image_size: height and width in pixels to resize to; None keeps the images' own.
        image_channels: 1 or 3; None keeps the images' own, of which four become three.
    """
    size = (image_size, image_size) if image_size else None
    channels = image_channels or train[0].shape[3]
    if channels == 4:
        channels = 3

    def part(images: np.ndarray, labels: np.ndarray) -> Part:
        labels = labels.astype(np.int32)

        def batches() -> Batches:
            for start in range(0, len(labels), _BATCH):
                chunk = images[start : start + _BATCH]
                yield (
                    np.stack([fit_array(image, size, channels) for image in chunk]),
                    labels[start : start + _BATCH],
                )

        return Part(len(labels), batches, lambda: labels)

    def fingerprint() -> str:
        import hashlib

        digest = hashlib.sha256()
        for array in (*train, *(test or ())):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    height, width = size or train[0].shape[1:3]
    return Source(
        name,
        class_names,
        (height, width, channels),
        part(*train),
        part(*test) if test else None,
        fingerprint,
    )
