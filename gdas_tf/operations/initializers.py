"""Initial weights of the supernet."""

from __future__ import annotations

from typing import Any

from gdas_tf.keras_backend import keras
from gdas_tf.operations.base import Shape


class FanInUniform(keras.initializers.Initializer):
    """Uniform in +-1/sqrt(fan in), PyTorch's default for convolutions, which the method was published with.

    The fan in of a depthwise kernel [h, w, C, 1] is h * w, as each channel has its own filter.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        limit = self.limit(shape)
        return keras.random.uniform(shape, -limit, limit, dtype=dtype, seed=self._generator)

    @staticmethod
    def limit(shape: Shape) -> float:
        """Largest initial value of a kernel of that shape."""
        height, width, fan_in, filters = shape
        return (height * width * (1 if filters == 1 else fan_in)) ** -0.5

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
