"""What must hold for several replicas to share the batches of a stage, found out before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdas_tf.errors import UsageError
from gdas_tf.strategies.base import STRATEGIES

if TYPE_CHECKING:
    from gdas_tf.config.config import Config


def check_divided(config: Config, stage: str, replicas: int, images: int) -> None:
    """Make sure that a stage can be divided over replicas.

    Args:
        config: Configuration of the run.
        stage: "search" or "retrain".
        replicas: Their number; 1 for a stage that is not divided.
        images: Images that its batches are taken from, which may be fewer than a batch has.

    Raises:
        UsageError: It cannot; the message names the field of the configuration.
    """
    if replicas == 1:
        return
    field = f"{stage}.batch_size"
    size = min(config.get(field), images)
    if size % replicas:
        few = "" if size == config.get(field) else f", all that there are (of {config.get(field)})"
        raise UsageError(
            f"{field}: found {size} images{few}, which {replicas} replicas cannot share evenly; accepted are "
            f"multiples of {replicas}"
        )
    if stage == "retrain" and config.retrain.jit_compile:
        raise UsageError(
            f"retrain.jit_compile: found true with {replicas} replicas, whose gradients XLA cannot bring "
            "together; accepted is false"
        )
    if stage == "retrain" and config.retrain.validation:
        raise UsageError(
            f"retrain.validation: found {config.retrain.validation:g} with {replicas} replicas, which do not "
            "share the images of a validation part; accepted is 0"
        )
    if stage == "search":
        name = config.search.strategy
        if why := STRATEGIES.get(name).from_config(config).undivided():
            raise UsageError(
                f"search.strategy: found {name} with {replicas} replicas: {why}; search with "
                "distribution.kind none, and retrain with the replicas"
            )
