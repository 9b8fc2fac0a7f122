"""What a classifier is trained and judged by, the same in search and retraining."""

from __future__ import annotations

from collections.abc import Sequence

from gdas_tf.numerics.lazy import tf


def cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, class_weights: Sequence[float] | None = None
) -> tf.Tensor:
    """Mean cross entropy in nats, a scalar, of logits [B, classes] and labels int [B].

    Args:
        labels, logits: Of a batch.
        class_weights: What an image of each class weighs, [classes]; by default all weigh one. The sum is
            divided by the number of images, whatever they weigh.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(weighted(losses, labels, class_weights))


def weighted(values: tf.Tensor, labels: tf.Tensor, class_weights: Sequence[float] | None) -> tf.Tensor:
    """Values [B] of images, each times the weight of its class; as they are where there are no weights."""
    if class_weights is None:
        return values
    return values * tf.gather(tf.constant(class_weights, values.dtype), labels)


def hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 [B]: 1 where the largest of the logits [B, classes] is that of the label int [B], else 0."""
    return tf.cast(tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels), tf.float32)
