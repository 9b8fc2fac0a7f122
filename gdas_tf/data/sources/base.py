"""What a source of labelled images is.

A source knows its classes, the shape of its images and their number, and reads the images only when asked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gdas_tf.data.identity import image_hashes
from gdas_tf.data.images import fit_array

Batches = Iterator[tuple[np.ndarray, np.ndarray]]
"""Images uint8 [n, H, W, C] and their labels int32 [n], some at a time."""

Show = Callable[[], np.ndarray]
"""Gives an image as it lies there, uint8 [h, w, c]."""

_BATCH = 1024


@dataclass(frozen=True)
class Picture:
    """What is known of one image as it lies there.

    Args:
        place: its file as seen from the data set's folder, or its number, from 0 on.
        label: its class.
        size: height and width in pixels; None if it cannot be read.
        channels: 1 if it is grey, else 3.
        hash: `image_hashes` of its pixels as colours; images of one size and one hash are the same.
        problem: why it cannot be read, in a few words; None if it can.
        show: gives its pixels.
    """

    place: str
    label: int
    size: tuple[int, int] | None = None
    channels: int = 0
    hash: int = 0
    problem: str | None = None
    show: Show | None = None

    @classmethod
    def of(cls, place: str, label: int, pixels: np.ndarray, channels: int, show: Show) -> Picture:
        """Returns what is known of an image that could be read.

        Args:
            place, label, channels, show: as of the class.
            pixels: uint8 [h, w, c].
        """
        colours = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels
        digest = int(image_hashes(colours[None])[0])
        return cls(place, int(label), tuple(pixels.shape[:2]), channels, digest, None, show)


@dataclass(frozen=True)
class Part:
    """The training or the test images of a source, not read yet.

    Args:
        count: number of images.
        batches: gives the images in a fixed order, as pairs of uint8 [n, H, W, C] and int32 [n].
        labels: gives all labels, int32 [count], in the same order.
        pictures: gives each image as it lies there, whatever its size, and those that cannot be read.
    """

    count: int
    batches: Callable[[], Batches]
    labels: Callable[[], np.ndarray]
    pictures: Callable[[], Iterator[Picture]]


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
        decodes: whether images have to be decoded to be read, which may take long.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Part
    test: Part | None
    fingerprint: Callable[[], str]
    decodes: bool = True


def from_arrays(
    name: str,
    class_names: tuple[str, ...],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    image_size: tuple[int, int] | None,
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
    channels = image_channels or train[0].shape[3]
    if channels == 4:
        channels = 3

    def part(images: np.ndarray, labels: np.ndarray) -> Part:
        labels = labels.astype(np.int32)

        def batches() -> Batches:
            for start in range(0, len(labels), _BATCH):
                chunk = images[start : start + _BATCH]
                yield (
                    np.stack([fit_array(image, image_size, channels) for image in chunk]),
                    labels[start : start + _BATCH],
                )

        def pictures() -> Iterator[Picture]:
            for number, image in enumerate(images):
                channels = 1 if image.shape[2] == 1 else 3
                show = functools.partial(fit_array, image, None, channels)
                yield Picture.of(str(number), labels[number], show(), channels, show)

        return Part(len(labels), batches, lambda: labels, pictures)

    def fingerprint() -> str:
        import hashlib

        digest = hashlib.sha256()
        for array in (*train, *(test or ())):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    height, width = image_size or train[0].shape[1:3]
    return Source(
        name,
        class_names,
        (height, width, channels),
        part(*train),
        part(*test) if test else None,
        fingerprint,
        decodes=False,
    )
