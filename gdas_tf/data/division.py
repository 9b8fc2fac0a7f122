"""How images are divided: by class in the same ratio, at random by a seed."""

from __future__ import annotations

import math
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


def validation_part(labels: np.ndarray, fraction: float, class_names: Sequence[str], seed: int) -> np.ndarray:
    """Returns which training images a retraining validates on, bool [n]: the same part of each class.

    Raises:
        UsageError: a class has a single image, or one of the parts has no image of a class.
    """
    what = f"retrain.validation: {fraction:g} of {len(labels)} training images"
    counts = np.bincount(labels, minlength=len(class_names))
    single = [name for name, count in zip(class_names, counts, strict=True) if count == 1]
    if single:
        raise UsageError(
            f"{what}: class {single[0]} has a single image, which cannot be trained on and validated on; add "
            "images to the class, or set retrain.validation to 0"
        )
    held_out = stratified(labels, fraction, generator(seed, "validation"))
    least = 1 / counts[counts > 0].min()
    for part, lacking in (("validation part", held_out), ("images to train on", ~held_out)):
        for label in np.setdiff1d(labels, labels[lacking]):
            raise UsageError(
                f"{what} leaves none of class {class_names[label]}, which has {counts[label]}, in the "
                f"{part}; accepted here are {_round_up(least)} to {1 - _round_up(least):g}"
            )
    return held_out


def _round_up(fraction: float) -> float:
    """The next number of three digits after the point."""
    return math.ceil(fraction * 1000 - 1e-9) / 1000
