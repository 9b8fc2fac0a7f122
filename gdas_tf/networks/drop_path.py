"""Drop-path: the layer that draws which paths of a network each example leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gdas_tf.distribution import own_part, replicas
from gdas_tf.keras_backend import keras

layers = keras.layers


@keras.saving.register_keras_serializable("gdas_tf")
class DropPathFactors(layers.Layer):
    """Draws the factors of drop-path: which paths of a network each example leaves out (Larsson et al.,
    FractalNet, 2017).

    One layer draws for all paths of the network at once: it takes the batch of images and returns one factor
    per path, float [B, 1, 1, 1], which is 0 with probability `rate` and else 1 / (1 - rate); multiplied with
    it, a path is dropped or kept. Without training all factors are 1. The numbers depend on the seed and the
    number of the draw alone, both kept in a variable of the layer: a training that is resumed draws the same.

    Args:
        paths: number of paths.
        rate: probability of dropping a path; it becomes a variable, which may be assigned during training.
        seed: integer seed; None draws one.
    """

    def __init__(self, paths: int, rate: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.paths = paths
        self.initial_rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Sequence[int | None]) -> None:
        constant = keras.initializers.Constant(self.initial_rate)
        self.rate = self.add_weight(
            name="rate", shape=(), initializer=constant, trainable=False, dtype="float32"
        )

    def call(self, images: Any, training: bool | None = None) -> list[Any]:
        batch = keras.ops.shape(images)[0]
        shape = (self.paths, batch, 1, 1, 1)
        if training:
            kept = 1.0 - keras.ops.cast(self.rate, "float32")
            # Several replicas draw what one would draw for the whole batch, and each takes its images' part.
            whole = (self.paths, batch if batch is None else batch * replicas(), 1, 1, 1)
            drawn = own_part(keras.random.uniform(whole, dtype="float32", seed=self.seed_generator), axis=1)
            factors = keras.ops.where(drawn < kept, 1.0 / kept, 0.0)
        else:
            factors = keras.ops.ones(shape)
        return keras.ops.unstack(keras.ops.cast(factors, self.compute_dtype), self.paths)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "paths": self.paths, "rate": self.initial_rate, "seed": self.seed}
