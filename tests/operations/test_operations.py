"""Every candidate operation against the golden values, and its layer against automatic differentiation."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.numerics import primitives
from gdas_tf.operations.base import OPERATIONS, Operation, candidate
from gdas_tf.operations.checks import check
from gdas_tf.operations.layer import CandidateOperation
from gdas_tf.supernet.mixed import MixedOperation
from gdas_tf.supernet.segments import Segments

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "operations.npz")
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
    return OPERATIONS.get("conv_1x1" if name == "relu_conv_bn_1x1" else name)


@pytest.mark.parametrize("case", CASES, ids="/".join)
@pytest.mark.parametrize("update", ["weights", "architecture"])
def test_golden(case: tuple[str, str], update: str) -> None:
    values, kernels, dkernels = _golden(case)
    operation, stride = _candidate(case[0]), int(case[1][-1])
    assert operation.kernel_shapes(CHANNELS, stride) == [tuple(kernel.shape) for kernel in kernels]

    @tf.function(autograph=False)
    def run(x, dy):
        forward = operation.forward_without_tape(x, kernels, stride)
        return forward, operation.backward(dy, x, kernels, forward.reserved, stride, update)

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
@pytest.mark.parametrize("pool_norm", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_automatic_differentiation(
    name: str, pool_norm: bool, stride: int, size: int
) -> None:
    operation = candidate(name, pool_norm)
    if pool_norm and operation is candidate(name):
        pytest.skip("not a pooling")
    if type(operation).backward is Operation.backward:
        pytest.skip("its gradient is that of automatic differentiation")
    random = tf.random.Generator.from_seed(5)
    x = random.normal((3, size, size, CHANNELS))
    kernels = [random.normal(shape) for shape in operation.kernel_shapes(CHANNELS, stride)]
    forward = operation.forward_without_tape(x, kernels, stride)
    np.testing.assert_allclose(forward.output, operation.forward(x, kernels, stride).output, atol=1e-5)
    assert forward.output.shape == (3, -(-size // stride), -(-size // stride), CHANNELS)
    assert len(forward.statistics) == operation.norms(stride)
    dy = random.normal(forward.output.shape)
    for update in ("weights", "architecture"):
        arguments = (dy, x, kernels, forward.reserved, stride, update)
        expected, found = Operation.backward(operation, *arguments), operation.backward(*arguments)
        np.testing.assert_allclose(found.input, expected.input, atol=1e-4)
        assert len(found.kernels) == len(expected.kernels) == (len(kernels) if update == "weights" else 0)
        for one, other in zip(found.kernels, expected.kernels, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-4)
        if update == "architecture":
            np.testing.assert_allclose(found.gate, expected.gate, atol=1e-3)


@pytest.mark.parametrize("batch", [3, None])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1)])
def test_depthwise_convolution_is_right_under_a_tape(
    stride: int, dilation: int, size: int, batch: int | None
) -> None:
    # The gradient that TensorFlow registers for oneDNN's dilated kernel ignores the dilation.
    x, dy = (tf.random.stateless_normal((3, side, side, 16), [side, 2]) for side in (8, 8 // stride))
    kernel = tf.random.stateless_normal((size, size, 16, 1), [3, 4])

    @tf.function(input_signature=[tf.TensorSpec((batch, 8, 8, 16)), tf.TensorSpec(kernel.shape)])
    def gradients(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = primitives.depthwise(x, kernel, stride, dilation)
        return [y, *tape.gradient(y, [x, kernel], dy)]

    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=[dilation, dilation])
        y = y[:, stride - 1 :: stride, stride - 1 :: stride]
    expected = [y, *tape.gradient(y, [x, kernel], dy)]
    for found, value in zip(gradients(x, kernel), expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-4, rtol=1e-4)


def test_depthwise_convolution_takes_odd_kernels_and_a_stride_or_a_dilation() -> None:
    x = tf.zeros((1, 8, 8, 2))
    with pytest.raises(ValueError, match="kernel of 2 rows"):
        primitives.depthwise(x, tf.zeros((2, 2, 2, 1)))
    with pytest.raises(ValueError, match="stride 2, dilation 2"):
        primitives.depthwise(x, tf.zeros((3, 3, 2, 1)), 2, 2)


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
        found = normalized.backward(dy, x, [], forward.reserved, stride, update)
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
    with pytest.raises(UsageError, match="unknown operation 'conv_9x9'; did you mean conv_3x3"):
        CandidateOperation("conv_9x9")
    with pytest.raises(UsageError, match="stride"):
        CandidateOperation("none", stride=3)


@pytest.mark.parametrize("stride", [1, 2])
def test_segments_cut_and_place(stride: int) -> None:
    segments = Segments(OPERATIONS.names(), CHANNELS, stride)
    flat = tf.range(segments.weights, dtype=tf.float32) + 1
    placed = [segments.flat_weights(segments.kernels(flat, i), i) for i in range(len(OPERATIONS))]
    np.testing.assert_array_equal(tf.add_n(placed), flat)
    operations = tf.range(len(OPERATIONS))
    masks = segments.weight_mask(operations).numpy()
    np.testing.assert_array_equal(masks.sum(0), np.ones(segments.weights))
    for mask, row in zip(masks, placed, strict=True):
        np.testing.assert_array_equal(mask, row.numpy() > 0)
    assert segments.statistic_mask(operations).shape == (len(OPERATIONS), segments.statistics)


class _Own(Operation):
    """A user's operation; each test makes one thing of it wrong."""

    name = "own"

    def __init__(self, compute, norms: int = 0, **attributes) -> None:
        self._compute, self._norms = compute, norms
        for name, value in attributes.items():
            setattr(self, name, value)

    def kernel_shapes(self, channels: int, stride: int) -> list[tuple[int, ...]]:
        return [(1, 1, channels, channels)]

    def norms(self, stride: int) -> int:
        return self._norms

    def compute(self, x, kernels, stride, norm):
        return self._compute(x[:, ::stride, ::stride], kernels[0], norm)

    def layers(self, build, x, stride, name):
        return build.relu_conv_bn(x, x.shape[-1], 1, stride, name)


def test_an_operation_of_ones_own_is_differentiated_by_its_computation() -> None:
    own = _Own(lambda x, kernel, norm: norm(tf.nn.conv2d(tf.nn.relu(x), kernel, 1, "SAME")), norms=1)
    check(own)
    x, dy = (tf.random.stateless_normal((3, 7, 7, CHANNELS), [seed, 1]) for seed in (1, 2))
    kernels = [tf.random.stateless_normal((1, 1, CHANNELS, CHANNELS), [3, 1])]
    built_in = OPERATIONS.get("conv_1x1")
    one, other = (operation.forward(x, kernels, 1) for operation in (own, built_in))
    np.testing.assert_allclose(one.output, other.output, atol=1e-5)
    for update in ("weights", "architecture"):
        found = own.backward(dy, x, kernels, one.reserved, 1, update)
        expected = built_in.backward(dy, x, kernels, other.reserved, 1, update)
        for one_value, other_value in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            if one_value is not None:
                np.testing.assert_allclose(one_value, other_value, atol=1e-3)
    moving = [(tf.ones(CHANNELS), 2 * tf.ones(CHANNELS))]
    np.testing.assert_allclose(
        own.inference(x, kernels, moving, 1), built_in.inference(x, kernels, moving, 1), atol=1e-5
    )


@pytest.mark.parametrize("update", ["weights", "architecture"])
def test_an_operation_of_ones_own_in_the_supernet(update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Branches are traced where no tape records.
    own = _Own(lambda x, kernel, norm: norm(tf.nn.conv2d(tf.nn.relu(x), kernel, 1, "SAME")), norms=1)
    monkeypatch.setitem(OPERATIONS._items, "own", own)
    x, dy = (tf.random.stateless_normal((3, 7, 7, CHANNELS), [seed, 1]) for seed in (1, 2))
    results = []
    for name in ("own", "conv_1x1"):
        mixed = MixedOperation(("none", name))
        mixed.build(x.shape)
        row = tf.random.stateless_normal([mixed.segments.weights], [3, 1])
        y, batch, moments = mixed.forward(x, tf.constant(1), row)
        results.append([y, batch, *mixed.backward(dy, x, tf.constant(1), row, moments, update)])
    for found, expected in zip(*results, strict=True):
        assert float(tf.reduce_max(abs(expected))) > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            _Own(lambda x, k, norm: x[:, 1:] @ k[0, 0]),
            r"stride 1 .* gives float32 \(2, 7, 8, 4\); it must give",
        ),
        (_Own(lambda x, k, norm: tf.cast(x, tf.float64)), "gives float64"),
        (_Own(lambda x, k, norm: tf.round(x @ k[0, 0])), "no gradient by its input and kernel 0"),
        (_Own(lambda x, k, norm: x), "no gradient by kernel 0"),
        (_Own(lambda x, k, norm: norm(x @ k[0, 0])), "calls 1 batch norms, but norms.1. is 0"),
        (_Own(lambda x, k, norm: x @ k[0, 0, :2]), "fails with InvalidArgumentError"),
    ],
)
def test_an_operation_that_cannot_stand_on_an_edge_is_refused(own: Operation, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check(own)
    assert str(caught.value).startswith("operation own at stride 1") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("other", _Own(None), "its record has the name 'own'"),
        ("own", _Own(None, short="sep3"), "registered already, as sep_conv_3x3"),
        ("skip", _Own(None, name="skip"), "registered already, as skip_connect"),
        ("own", _Own(None, short="a@b"), "short is 'a@b'"),
        ("own", _Own(None, color="red"), "color is 'red'; accepted is #rrggbb"),
        ("own", _Own, "accepted is an instance"),
    ],
)
def test_a_record_that_cannot_be_registered_is_refused(name: str, own: Operation, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OPERATIONS.register(name, own)
    assert "own" not in OPERATIONS and "skip" not in OPERATIONS
