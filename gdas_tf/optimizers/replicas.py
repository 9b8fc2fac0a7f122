"""What the method's optimizers do not do: keep variables the same that several replicas share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gdas_tf.distribution import has_own_copies, replicas
from gdas_tf.errors import UsageError


def refuse_shared(optimizer: object, variables: Sequence[Any]) -> None:
    """Make sure that each replica has variables of its own.

    The method's optimizers take their step in each replica, by gradients that are means over the replicas
    already (`gdas_tf.distribution`).

    Args:
        optimizer: The optimizer.
        variables: Keras variables that it updates.

    Raises:
        UsageError: Several replicas share a variable, as those do that are made in the scope of a strategy of
            tf.distribute alone.
    """
    if (count := replicas()) > 1 and not all(map(has_own_copies, variables)):
        raise UsageError(
            f"{type(optimizer).__name__}: found {count} replicas that share variables; make the model in "
            "`gdas_tf.distribution.Distribution.scope`, where each has its own"
        )
