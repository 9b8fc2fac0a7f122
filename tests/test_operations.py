"""Every candidate operation against the golden values, and its layer against automatic differentiation."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.numerics import primitives
from gdas_tf.operations.candidates import CANDIDATES, CandidateOperation, candidate
from gdas_tf.spaces.base import OPERATIONS
from gdas_tf.supernet.segments import Segments

GOLDEN = np.load(Path(__file__).parent / "data" / "operations.npz")
CASES = sorted({tuple(key.split("/")[:2]) for key in GOLDEN.files})
CHANNELS = 8


def _golden(case: tuple[str, str]) -> tuple[dict[str, tf.Tensor], list[tf.Tensor], list[np.ndarray]]:
    prefix = "/".join(case)
    golden = {key.removeprefix(f"{prefix}/"): GOLDEN[key] for key in GOLDEN.files if key.startswith(prefix)}
    if case[1] == "stride2":
        # The values are PyTorch's, whose stride 2 takes even pixels of an even size, where ours takes odd
        # ones: the same of everything turned by 180 degrees.
        golden = {
            key: value[::-1, ::-1] if "w" in key else value[:, ::-1, ::-1] for key, value in golden.items()
        }
    values = {name: tf.constant(golden[name]) for name in ("x", "y", "dy", "dx")}
    count = sum(key.startswith("w") for key in golden)
    return (
        values,
        [tf.constant(golden[f"w{i}"]) for i in range(count)],
        [golden[f"dw{i}"] for i in range(count)],
    )


def _candidate(name: str):
    return CANDIDATES["conv_1x1" if name == "relu_conv_bn_1x1" else name]


@pytest.mark.parametrize("case", CASES, ids="/".join)
@pytest.mark.parametrize("update", ["weights", "architecture"])
def test_golden(case: tuple[str, str], update: str) -> None:
    values, kernels, dkernels = _golden(case)
    operation, stride = _candidate(case[0]), int(case[1][-1])
    assert operation.kernel_shapes(CHANNELS, stride) == [tuple(kernel.shape) for kernel in kernels]

    @tf.function(autograph=False)
    def run(x, dy):
        forward = operation.forward(x, kernels, stride)
        return forward, operation.backward(dy, x, kernels, forward.moments, stride, update)

    forward, backward = run(values["x"], values["dy"])
    np.testing.assert_allclose(forward.output, values["y"], atol=2e-5)
    np.testing.assert_allclose(backward.input, values["dx"], atol=2e-5)
    if update == "weights":
        assert len(backward.kernels) == len(dkernels)
        for found, expected in zip(backward.kernels, dkernels, strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-4)
    else:
        assert backward.kernels == []
        np.testing.assert_allclose(backward.gate, tf.reduce_sum(values["y"] * values["dy"]), atol=1e-3)


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_automatic_differentiation(
    name: str, stride: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The gradient that TensorFlow registers for oneDNN's dilated kernel ignores the dilation.
    monkeypatch.setattr(primitives, "_native_dilation", lambda dtype: False)
    operation = candidate(name)
    random = tf.random.Generator.from_seed(5)
    x = random.normal((3, size, size, CHANNELS))
    kernels = [random.normal(shape) for shape in operation.kernel_shapes(CHANNELS, stride)]
    with tf.GradientTape() as tape:
        tape.watch([x, *kernels])
        forward = operation.forward(x, kernels, stride)
    dy = random.normal(forward.output.shape)
    expected = tape.gradient(forward.output, [x, *kernels], dy, unconnected_gradients="zero")
    found = operation.backward(dy, x, kernels, forward.moments, stride, "weights")
    np.testing.assert_allclose(found.input, expected[0], atol=1e-4)
    for one, other in zip(found.kernels, expected[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-4)
    assert forward.output.shape == (3, -(-size // stride), -(-size // stride), CHANNELS)
    assert len(forward.statistics) == operation.norms(stride)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_dilated_depthwise_convolution_is_tensorflows(size: int) -> None:
    # On this machine oneDNN's kernel may be used; where it is not, the same values come another way.
    x = tf.random.stateless_normal((2, 9, 8, 16), [1, 2])
    kernel = tf.random.stateless_normal((size, size, 16, 1), [3, 4])
    expected = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=[2, 2])
    np.testing.assert_allclose(primitives.depthwise(x, kernel, 1, 2), expected, atol=1e-4)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1)])
def test_depthwise_convolution_in_bfloat16(stride: int, dilation: int, size: int) -> None:
    generator = np.random.default_rng(5)
    small = [(4, 12, 12, 16), (size, size, 16, 1), (4, 12 // stride, 12 // stride, 16)]
    # Whole numbers that bfloat16 has, so that only the result is rounded.
    x, kernel, dy = (tf.constant(generator.integers(-2, 3, shape), tf.float32) for shape in small)
    results = {}
    for dtype in (tf.float32, tf.bfloat16):
        cast_x, cast_kernel, cast_dy = (tf.cast(value, dtype) for value in (x, kernel, dy))
        results[dtype] = [
            primitives.depthwise(cast_x, cast_kernel, stride, dilation),
            primitives.depthwise_input_gradient(cast_dy, cast_kernel, x.shape, stride, dilation),
            primitives.depthwise_kernel_gradient(cast_dy, cast_x, tuple(kernel.shape), stride, dilation),
        ]
    for exact, found in zip(results[tf.float32], results[tf.bfloat16], strict=True):
        assert found.dtype == tf.bfloat16
        np.testing.assert_allclose(tf.cast(found, tf.float32), exact, rtol=2**-7, atol=0.02)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("shape", [(3, 1, 1, 16), (3, 2, 2, 16), (3, 4, 4, 8), (3, 3, 5, 8), (3, 8, 8, 16)])
def test_depthwise_convolution_of_images_smaller_than_its_kernel(
    shape: tuple[int, ...], dilation: int, size: int
) -> None:
    x = tf.random.stateless_normal(shape, [1, 2])
    kernel = tf.random.stateless_normal((size, size, shape[-1], 1), [3, 4])
    dy = tf.random.stateless_normal(shape, [5, 6])
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=[dilation, dilation])
    dx, dkernel = tape.gradient(y, [x, kernel], dy)
    np.testing.assert_allclose(primitives.depthwise(x, kernel, 1, dilation), y, atol=1e-4)
    found = primitives.depthwise_input_gradient(dy, kernel, x.shape, 1, dilation)
    np.testing.assert_allclose(found, dx, atol=1e-4)
    found = primitives.depthwise_kernel_gradient(dy, x, tuple(kernel.shape), 1, dilation)
    np.testing.assert_allclose(found, dkernel, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 8, 8, 16), (2, 7, 9, 16), (2, 8, 5, 3), (1, 1, 2, 4)])
def test_subsample(shape: tuple[int, ...]) -> None:
    x = tf.random.stateless_normal(shape, [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        expected = x[:, 1 - shape[1] % 2 :: 2, 1 - shape[2] % 2 :: 2]
    np.testing.assert_array_equal(primitives.subsample(x), expected)
    dy = tf.random.stateless_normal(expected.shape, [3, 4])
    gradient = primitives.subsample_gradient(dy, x.shape)
    np.testing.assert_array_equal(gradient, tape.gradient(expected, x, dy))


@pytest.mark.parametrize("name", OPERATIONS)
def test_layer_trains_infers_and_serializes(name: str) -> None:
    layer = CandidateOperation(name, stride=2)
    x = tf.random.stateless_normal((4, 8, 8, CHANNELS), [1, 2])
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
        loss = tf.reduce_sum(y**2)
    gradients = tape.gradient(loss, [weight.value for weight in layer.trainable_weights])
    assert all(gradient is not None for gradient in gradients)
    assert y.shape == layer.compute_output_shape(x.shape)
    for mean, variance in layer.statistics:
        assert float(tf.reduce_max(abs(mean.value))) > 0
        assert float(tf.reduce_max(abs(variance.value - 1))) > 0
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy(x)
    copy.set_weights(layer.get_weights())
    np.testing.assert_allclose(copy(x), layer(x), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["avg_pool_3x3", "max_pool_3x3"])
def test_pooling_with_batch_norm(name: str, stride: int) -> None:
    """nn.Sequential(pooling, nn.BatchNorm2d(affine=False)) of DARTS and the authors' code of 2019."""
    plain, normalized = candidate(name), candidate(name, pool_norm=True)
    assert (plain.norms(stride), normalized.norms(stride)) == (0, 1)
    x, dy = (tf.random.stateless_normal((4, 8, 8, CHANNELS), [seed, 1]) for seed in (1, 2))
    dy = dy[:, ::stride, ::stride]
    with tf.GradientTape() as tape:
        tape.watch(x)
        pooled = plain.forward(x, [], stride).output
        mean, variance = tf.nn.moments(pooled, [0, 1, 2])
        expected = (pooled - mean) / tf.sqrt(variance + 1e-5)
    forward = normalized.forward(x, [], stride)
    np.testing.assert_allclose(forward.output, expected, atol=1e-5)
    count = np.prod(pooled.shape[:3])
    np.testing.assert_allclose(forward.statistics[0][0], mean, atol=1e-5)
    np.testing.assert_allclose(forward.statistics[0][1], variance * count / (count - 1), rtol=1e-4)
    dx = tape.gradient(expected, x, dy)
    for update in ("weights", "architecture"):
        found = normalized.backward(dy, x, [], forward.moments, stride, update)
        np.testing.assert_allclose(found.input, dx, atol=2e-5)
        assert found.kernels == []
    np.testing.assert_allclose(found.gate, tf.reduce_sum(dy * expected), atol=1e-3)
    inferred = normalized.inference(x, [], [(mean, variance)], stride)
    np.testing.assert_allclose(inferred, expected, atol=1e-5)
    assert candidate("sep_conv_3x3", pool_norm=True) is candidate("sep_conv_3x3")


def test_moving_statistics_come_to_those_of_the_batch() -> None:
    layer = CandidateOperation("dil_conv_3x3", momentum=0.5)
    x = 3 + 2 * tf.random.stateless_normal((16, 8, 8, CHANNELS), [1, 2])
    for _ in range(30):
        trained = layer(x, training=True)
    np.testing.assert_allclose(layer(x), trained, atol=2e-2)


def test_unknown_operation_and_stride() -> None:
    with pytest.raises(UsageError, match="conv_9x9.*known are none"):
        CandidateOperation("conv_9x9")
    with pytest.raises(UsageError, match="stride"):
        CandidateOperation("none", stride=3)


@pytest.mark.parametrize("stride", [1, 2])
def test_segments_cut_and_place(stride: int) -> None:
    segments = Segments(OPERATIONS, CHANNELS, stride)
    flat = tf.range(segments.weights, dtype=tf.float32) + 1
    placed = [segments.flat_weights(segments.kernels(flat, i), i) for i in range(len(OPERATIONS))]
    np.testing.assert_array_equal(tf.add_n(placed), flat)
    operations = tf.range(len(OPERATIONS))
    masks = segments.weight_mask(operations).numpy()
    np.testing.assert_array_equal(masks.sum(0), np.ones(segments.weights))
    for mask, row in zip(masks, placed, strict=True):
        np.testing.assert_array_equal(mask, row.numpy() > 0)
    assert segments.statistic_mask(operations).shape == (len(OPERATIONS), segments.statistics)
