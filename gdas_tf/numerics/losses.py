"""What a classifier is trained and judged by, the same in search and retraining."""

from __future__ import annotations

from gdas_tf.numerics.lazy import tf


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross entropy in nats, a scalar, of logits [B, classes] and labels int [B]."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 [B]: 1 where the largest of the logits [B, classes] is that of the label int [B], else 0."""
    return tf.cast(tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels), tf.float32)
