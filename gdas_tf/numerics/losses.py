"""What a classifier is trained and judged by, the same in search and retraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gdas_tf.numerics.lazy import tf


class MixedLabels(NamedTuple):
    """The labels of a batch whose images are weighted means of two (mixup).

    Args:
        first: Labels of the one images, int [B].
        second: Labels of the others, int [B].
        share: Weight of the first, a float32 scalar in [0, 1]; the second have the rest.
    """

    first: tf.Tensor
    second: tf.Tensor
    share: tf.Tensor


def cross_entropy(
    labels: tf.Tensor,
    logits: tf.Tensor,
    class_weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> tf.Tensor:
    """Mean cross entropy in nats, a scalar, of logits [B, classes] and labels int [B].

    Args:
        labels, logits: Of a batch.
        class_weights: What an image of each class weighs, [classes]; by default all weigh one. The sum is
            divided by the number of images, whatever they weigh.
        smoothing: Part s of each label that is spread evenly over the K classes: a target is 1 - s + s / K at
            the label and s / K elsewhere (Szegedy et al., CVPR 2016, section 7; PyTorch's and Keras'
            `label_smoothing` are the same).
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if smoothing:
        # The cross entropy with the even distribution: the mean of -log p over classes.
        even = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
        losses = (1.0 - smoothing) * losses + smoothing * even
    return tf.reduce_mean(weighted(losses, labels, class_weights))


def weighted(values: tf.Tensor, labels: tf.Tensor, class_weights: Sequence[float] | None) -> tf.Tensor:
    """Values [B] of images, each times the weight of its class; as they are where there are no weights."""
    if class_weights is None:
        return values
    return values * tf.gather(tf.constant(class_weights, values.dtype), labels)


def hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 [B]: 1 where the largest of the logits [B, classes] is that of the label int [B], else 0."""
    return tf.cast(tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels), tf.float32)


def of_labels(measure: Callable[[tf.Tensor], tf.Tensor], labels: tf.Tensor | MixedLabels) -> tf.Tensor:
    """A measure of labels int [B]; of mixed labels the weighted mean of the measures of both.

    The cross entropy is linear in the targets, so that of mixed labels is the one of mixed targets.
    """
    if not isinstance(labels, MixedLabels):
        return measure(labels)
    return labels.share * measure(labels.first) + (1.0 - labels.share) * measure(labels.second)
