"""Constants of a graph, of which there is one for each value.

A third of the operations of a graph that is written as usual are constants, most of them the same few shapes
and axes over and over. Each costs as much as any other operation when the graph is traced and loaded, so the
search, which traces some hundred graphs before its first step, shares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gdas_tf.numerics.lazy import tf


def constant(value: float | Iterable[Any]) -> tf.Tensor:
    """A number, or a shape or (nested) tuple of numbers, as int32 or float32."""
    value = tuple(value) if isinstance(value, Iterable) else value
    dtype = tf.int32 if value == () else None  # the shape of a scalar
    return _shared(repr(value), lambda: tf.constant(value, dtype))


def zeros(size: int) -> tf.Tensor:
    """float32 [size], zero."""
    return _shared(f"zeros {size}", lambda: tf.zeros([size]))


def ones(size: int) -> tf.Tensor:
    """float32 [size], one."""
    return _shared(f"ones {size}", lambda: tf.ones([size]))


def _shared(key: str, make: Callable[[], tf.Tensor]) -> tf.Tensor:
    if tf.executing_eagerly():
        return make()
    # Kept on the graph itself, to live as long as it does.
    graph = tf.compat.v1.get_default_graph()
    if not hasattr(graph, "gdas_tf_constants"):
        graph.gdas_tf_constants = {}
    if key not in graph.gdas_tf_constants:
        graph.gdas_tf_constants[key] = make()
    return graph.gdas_tf_constants[key]
