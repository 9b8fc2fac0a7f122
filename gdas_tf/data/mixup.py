"""Mixup: training on weighted means of two images (Zhang et al., ICLR 2018, arXiv 1710.09412)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gdas_tf.errors import UsageError
from gdas_tf.numerics.losses import MixedLabels

if TYPE_CHECKING:
    import tensorflow as tf


def mix(images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor) -> tuple[tf.Tensor, MixedLabels]:
    """Mixes each image of a batch with the one before it, the first with the last.

    One share for the whole batch is drawn from Beta(alpha, alpha), as in the authors' code; which images are
    neighbours is random already, as batches are shuffled.

    Args:
        images: float32 [B, H, W, C].
        labels: int [B].
        alpha: of the distribution; the larger, the nearer the share is to a half.
        seed: two integers; the same seed gives the same share.

    Returns:
        share * images + (1 - share) * neighbours, and the labels of both.

    Raises:
        UsageError: alpha is not above 0.
    """
    import tensorflow as tf

    if not (math.isfinite(alpha) and alpha > 0):
        raise UsageError(f"mixup: found alpha {alpha}; it must be above 0")
    share = _beta(alpha, seed)
    mixed = share * images + (1.0 - share) * tf.roll(images, 1, 0)
    return mixed, MixedLabels(labels, tf.roll(labels, 1, 0), share)


def _beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), a float32 scalar: G / (G + G') of two numbers of Gamma(alpha).

    With a small alpha both are often too small for a float. So the logarithms are computed, log G =
    log Gamma(alpha + 1) + log U / alpha with U uniform (Marsaglia and Tsang, 2000), and the share is the
    logistic function of their difference.
    """
    import tensorflow as tf

    seeds = tf.random.split(tf.cast(seed, tf.int64), 2)
    gamma = tf.random.stateless_gamma([2], seeds[0], alpha + 1.0)
    uniform = 1.0 - tf.random.stateless_uniform([2], seeds[1])  # above 0
    logarithm = tf.math.log(gamma) + tf.math.log(uniform) / alpha
    return tf.sigmoid(logarithm[0] - logarithm[1])
