"""Uneven classes: weights of the loss, or batches that draw every class equally often.

With n images, of which n_c are of class c, and K classes that have images, an image of class c weighs
n / (K n_c): the inverse frequency of its class, one in the mean over the images (King & Zeng, "Logistic
Regression in Rare Events Data", 2001; scikit-learn's `class_weight="balanced"`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gdas_tf.data.seeds import key

if TYPE_CHECKING:
    import tensorflow as tf

ClassWeights = tuple[float, ...] | None
"""The weight of an image of each class in a loss; None where all weigh one."""


@dataclass(frozen=True)
class Balance:
    """How a training meets uneven classes.

    Args:
        sampler: whether its batches draw every class equally often.
        of_batches: class weights of a loss on those batches.
        of_images: class weights of a loss on images in their own ratio, as those of D_V that judge a
            candidate. Where batches are balanced, such a loss is balanced by weights.
    """

    sampler: bool = False
    of_batches: ClassWeights = None
    of_images: ClassWeights = None

    @classmethod
    def of(cls, method: Literal["none", "weights", "sampler"], labels: np.ndarray, classes: int) -> Balance:
        """Returns what a method (`data.balance`) means for training images.

        Args:
            method: `none`, `weights` or `sampler`.
            labels: of the training images, int [n].
            classes: number of classes.
        """
        if method == "none":
            return cls()
        weights = class_weights(labels, classes)
        return cls(method == "sampler", weights if method == "weights" else None, weights)


def class_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """Returns the weight of an image of each class: its inverse frequency, one in the mean over the images.

    Args:
        labels: int [n].
        classes: number of classes; one without images weighs 0.
    """
    counts = np.bincount(labels, minlength=classes)
    even = len(labels) / np.count_nonzero(counts)  # images of a class, if all had as many
    return tuple(even / count if count else 0.0 for count in counts.tolist())


def balanced_order(
    labels: np.ndarray, positions: np.ndarray, stream: tuple[int, str]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the order of balanced epochs, which depends on the seed and the number of the epoch alone.

    In an epoch every class gets the same number of places, n / K rounded up. A class with fewer images fills
    them by whole passes over its images, each in another order, and a part of one more pass; of a class with
    more images each is seen once at most. Then all places are shuffled.

    Args:
        labels: of all images of a split, int [N].
        positions: the images to draw from, int32 [n].
        stream: seed and name of the stream of random numbers.

    Returns:
        A function of the number of an epoch, int64, that gives positions int32 [m], n <= m < n + K.
    """
    import tensorflow as tf

    present, class_of = np.unique(labels[positions], return_inverse=True)
    counts = np.bincount(class_of)
    share = -(-len(positions) // len(present))
    passes = -(-share // counts)
    # All passes of all classes, one after the other: the position, and what it is sorted by before the draw.
    image = np.concatenate(
        [np.tile(np.flatnonzero(class_of == number), count) for number, count in enumerate(passes)]
    )
    rank = np.concatenate(
        [
            number * (passes.max() + 1) + np.repeat(np.arange(count), counts[number])
            for number, count in enumerate(passes)
        ]
    )
    begins = np.cumsum(passes * counts) - passes * counts
    draw_key, order_key = key(*stream, "balanced draw"), key(*stream, "balanced order")
    with tf.device("CPU:0"):
        pool = tf.constant(positions[image])
        ranks = tf.constant(rank, tf.float64)
        places = tf.constant((begins[:, None] + np.arange(share)).ravel(), tf.int32)

    def order(epoch: tf.Tensor) -> tf.Tensor:
        draws = tf.random.stateless_uniform(ranks.shape, [draw_key, epoch], dtype=tf.float64)
        chosen = tf.gather(pool, tf.gather(tf.argsort(ranks + draws), places))
        return tf.random.experimental.stateless_shuffle(chosen, [order_key, epoch])

    return order
