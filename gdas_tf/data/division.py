"""How images are divided: by class in the same ratio, at random by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gdas_tf.data.seeds import generator
from gdas_tf.errors import UsageError


def stratified(labels: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Divides images so that each class is divided in the same ratio.

    Images are put in a row by class, at random within it, and every time the running count times the
    fraction passes a whole number, the image goes to the second part. So each class and the whole are off by
    less than one.

    Returns:
        bool [n], true for the second part.
    """
    count = len(labels)
    row = generator.permutation(count)
    row = row[np.argsort(labels[row], kind="stable")]
    passed = np.floor(np.arange(count + 1) * fraction + 1e-9)
    in_second = np.zeros(count, bool)
    in_second[row] = np.diff(passed) > 0
    return in_second


def hold_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns which images become test images, bool [n]; each class keeps at least one training image."""
    held_out = stratified(labels, fraction, generator(seed, "held out"))
    for label in np.setdiff1d(labels[held_out], labels[~held_out]):
        held_out[np.flatnonzero(labels == label)[0]] = False
    return held_out


def some(labels: np.ndarray, count: int, class_names: Sequence[str], seed: int) -> np.ndarray:
    """Returns which of many training images are taken, bool [n]: `count`, the same share of each class.

    Raises:
        UsageError: none is left of a class.
    """
    chosen = stratified(labels, count / len(labels), generator(seed, "training images"))
    for label in np.setdiff1d(labels, labels[chosen]):
        raise UsageError(
            f"data.train_images: {count} of {len(labels)} training images leave none of class "
            f"{class_names[label]}; raise data.train_images"
        )
    return chosen
