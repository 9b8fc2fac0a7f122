"""Constants shared within a graph."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from gdas_tf.numerics.graph_constants import constant, ones, zeros


def test_values_and_types() -> None:
    assert constant(3).dtype == tf.int32
    assert constant(0.5).dtype == tf.float32
    np.testing.assert_array_equal(constant(((1, 2), (0, -1))), [[1, 2], [0, -1]])
    np.testing.assert_array_equal(constant(tf.TensorShape([4, 8])), [4, 8])
    np.testing.assert_array_equal(zeros(3), [0, 0, 0])
    np.testing.assert_array_equal(ones(2), [1, 1])


def test_one_for_each_value_of_a_graph() -> None:
    with tf.Graph().as_default() as graph:
        assert constant((1, 2)) is constant([1, 2])
        assert constant(1) is not constant(1.0)
        assert ones(4) is ones(4)
        assert ones(4) is not zeros(4)
        assert sum(operation.type == "Const" for operation in graph.get_operations()) == 5


def test_graphs_share_none() -> None:
    def traced() -> tf.Tensor:
        outer = constant(7)
        inner = tf.function(lambda: constant(7) + 1, autograph=False)()
        return outer + inner

    assert int(tf.function(traced, autograph=False)()) == 15
