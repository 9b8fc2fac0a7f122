"""What the method's optimizers do not do: update the weights of several devices."""

from __future__ import annotations

import tensorflow as tf

from gdas_tf.errors import UsageError


def refuse_replicas(optimizer: object) -> None:
    """Make sure that an optimizer updates the weights of one device.

    The gradients of several replicas would have to be added up before they are clipped, which the method's
    optimizers do not do.

    Raises:
        UsageError: There are several replicas (`tf.distribute`).
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise UsageError(
            f"{type(optimizer).__name__}: found {replicas} replicas; it updates the weights of one device"
        )
