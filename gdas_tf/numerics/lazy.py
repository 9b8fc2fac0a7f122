"""TensorFlow, imported when it is first used.

The records of operations and of strategies are read for their names, too, by `--help` and the genotype. That
must not take the seconds that TensorFlow's import does.

Example:
    >>> from gdas_tf.numerics.lazy import tf
    >>> tf.add(1, 2)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class LazyModule:
    """A module by its name; the first attribute that is asked for imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = LazyModule("tensorflow")
