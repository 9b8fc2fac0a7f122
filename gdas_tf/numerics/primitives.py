"""The numerical kernels that the candidate operations are made of, each with its gradient.

TensorFlow's automatic differentiation would store and compute more than a sampled step needs, so the search
writes its gradients out: every function here is one tensor operation, or the gradient of one. All images are
NHWC, all padding is SAME, batch norm has neither scale nor offset and epsilon 1e-5 (as in the search of
Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019).

Everything of stride 2 is centred on the same pixels: those at odd rows of an image of an even number of rows,
at even rows of an odd number, and the same for columns. That is how SAME padding places kernels of 3x3 and
larger. PyTorch's symmetric padding takes even rows always, so that what is computed here is what PyTorch
computes of an image turned by 180 degrees with kernels turned by 180 degrees
(tests/networks/test_alignment.py).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from gdas_tf.numerics.depthwise import kernel_gradient
from gdas_tf.numerics.graph_constants import constant, ones, zeros
from gdas_tf.numerics.lazy import tf

EPSILON = 1e-5


def zeros_like(x: tf.Tensor) -> tf.Tensor:
    """Zeros of the shape and type of x, made when they are needed.

    `tf.zeros_like` makes a constant of an image of known size, which is kept ever after.
    """
    return tf.raw_ops.ZerosLike(x=x)


def relu(x: tf.Tensor) -> tf.Tensor:
    """max(x, 0)."""
    return tf.raw_ops.Relu(features=x)


def relu_gradient(dy: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Gradient of `relu` by its input; `y` is its input or its output (they have the same sign)."""
    return tf.raw_ops.ReluGrad(gradients=dy, features=y)


def convolution(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """Convolution of [B, H, W, I] with a kernel [h, w, I, O]."""
    return tf.raw_ops.Conv2D(input=x, filter=kernel, strides=[1, stride, stride, 1], padding="SAME")


def convolution_input_gradient(
    dy: tf.Tensor, kernel: tf.Tensor, input_shape: tf.TensorShape, stride: int = 1
) -> tf.Tensor:
    """Gradient of `convolution` by its input, of shape `input_shape`."""
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=constant(input_shape),
        filter=kernel,
        out_backprop=dy,
        strides=[1, stride, stride, 1],
        padding="SAME",
    )


def overruns(kernel_shape: Sequence[int], stride: int) -> bool:
    """Whether oneDNN writes past its memory in the gradient by a kernel [h, w, I, O].

    Of 1x1 convolutions of stride 2 with fewer channels than its vectors have numbers (AVX-512: 16), where
    TensorFlow hands them to oneDNN, as from 56x56 pixels on, with AVX2 at 9x7: uxlfoundation/oneDNN issue
    6035. The same convolution of `every_second` pixel has no stride.
    """
    return stride == 2 and tuple(kernel_shape[:2]) == (1, 1) and kernel_shape[2] < 16


def convolution_kernel_gradient(
    dy: tf.Tensor, x: tf.Tensor, kernel_shape: tuple[int, ...], stride: int = 1
) -> tf.Tensor:
    """Gradient of `convolution` by its kernel, of shape `kernel_shape`."""
    if overruns(kernel_shape, stride):
        x, stride = every_second(x), 1
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=constant(kernel_shape),
        out_backprop=dy,
        strides=[1, stride, stride, 1],
        padding="SAME",
    )


@functools.cache
def _native_dilation(dtype: tf.DType) -> bool:
    """Whether the depthwise kernel of this machine honours dilation (oneDNN's does in float32 and bfloat16,
    Eigen's and cuDNN's refuse).

    Asked by running it, on numbers whose result is known, rather than by guessing from versions.
    """
    with tf.init_scope():
        # Whole numbers, of which every sum is exact in 8 bits.
        x = tf.cast(tf.reshape(tf.range(2 * 7 * 7 * 16) % 3, (2, 7, 7, 16)), dtype)
        kernel = tf.cast(tf.reshape(tf.range(9 * 16) % 5, (3, 3, 16, 1)), dtype)
        try:
            native = _depthwise(x, kernel, 1, 2)
        except (tf.errors.OpError, ValueError):
            return False
        expected = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=[2, 2])
        return bool(tf.reduce_all(tf.abs(native - expected) < 1e-3))


def _useless_taps(size: int, image_shape: tf.TensorShape, dilation: int) -> int:
    """How many rows and columns at each side of a kernel never meet a pixel of so small an image.

    At stride 1 a tap further from the middle than the image is long only ever meets padding. On images of a
    few pixels leaving such taps out is not only exact: oneDNN has no fast kernel for padding beyond the
    image, and takes a hundred times as long.
    """
    reach = (max(image_shape[1:3]) - 1) // dilation
    return max(0, size // 2 - reach)


def _inner(kernel: tf.Tensor, useless: int) -> tf.Tensor:
    if not useless:
        return kernel
    size = kernel.shape[0] - 2 * useless
    return tf.slice(kernel, constant((useless, useless, 0, 0)), constant((size, size, -1, -1)))


def _depthwise(x: tf.Tensor, kernel: tf.Tensor, stride: int, dilation: int = 1) -> tf.Tensor:
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=kernel,
        strides=[1, stride, stride, 1],
        padding="SAME",
        dilations=[1, dilation, dilation, 1],
    )


def depthwise_without_gradient(
    x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, dilation: int = 1
) -> tf.Tensor:
    """`depthwise` for a caller that writes its gradient out by the two functions below.

    Never differentiate it by a tape: the gradient that TensorFlow has for oneDNN's dilated kernel ignores the
    dilation (TensorFlow 2.21).
    """
    if stride == 1:
        kernel = _inner(kernel, _useless_taps(kernel.shape[0], x.shape, dilation))
        if kernel.shape[0] == 1:
            return x * tf.reshape(kernel, constant((-1,)))
    if dilation == 1 or (x.dtype in (tf.float32, tf.bfloat16) and _native_dilation(x.dtype)):
        return _depthwise(x, kernel, stride, dilation)
    return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=[dilation, dilation])


def depthwise(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, dilation: int = 1) -> tf.Tensor:
    """Depthwise convolution, differentiated rightly, and fast on a CPU, by any tape.

    Args:
        x: [B, H, W, C] of known height, width and channels.
        kernel: [k, k, C, 1], k odd.
        stride: 1 or 2.
        dilation: 1 or more; only 1 where the stride is 2.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), C].
    """
    if kernel.shape[0] % 2 == 0 or (stride > 1 and dilation > 1):
        raise ValueError(
            f"depthwise: found a kernel of {kernel.shape[0]} rows, stride {stride}, dilation {dilation}; "
            "accepted are odd kernels with a stride or a dilation, not both"
        )

    @tf.custom_gradient
    def convolution(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if stride == 1:
                # Of any batch size, known or not: the convolution with the kernel turned by 180 degrees.
                turned = tf.reverse(kernel, [0, 1])
                dx = depthwise_without_gradient(dy, turned, 1, dilation)
            else:
                shape = x.shape if x.shape.is_fully_defined() else tf.shape(x)
                dx = depthwise_input_gradient(dy, kernel, shape, stride)
            return dx, depthwise_kernel_gradient(dy, x, tuple(kernel.shape), stride, dilation)

        return depthwise_without_gradient(x, kernel, stride, dilation), gradient

    return convolution(x, kernel)


def depthwise_input_gradient(
    dy: tf.Tensor,
    kernel: tf.Tensor,
    input_shape: tf.TensorShape | tf.Tensor,
    stride: int = 1,
    dilation: int = 1,
) -> tf.Tensor:
    """Gradient of `depthwise` by its input, of shape `input_shape` (a tensor only at stride 2)."""
    if stride == 1:
        kernel = _inner(kernel, _useless_taps(kernel.shape[0], input_shape, dilation))
    if dilation > 1 or kernel.shape[0] == 1:
        # At stride 1 with an odd kernel the gradient is the convolution with the kernel turned by 180
        # degrees. (oneDNN's own input gradient ignores the dilation without saying so.)
        return depthwise_without_gradient(dy, tf.reverse(kernel, constant((0, 1))), 1, dilation)
    dtype = dy.dtype if stride == 1 else _strided_gradient_type(dy.dtype)
    gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=input_shape if tf.is_tensor(input_shape) else constant(input_shape),
        filter=tf.cast(kernel, dtype),
        out_backprop=tf.cast(dy, dtype),
        strides=[1, stride, stride, 1],
        padding="SAME",
    )
    return tf.cast(gradient, dy.dtype)


def depthwise_kernel_gradient(
    dy: tf.Tensor, x: tf.Tensor, kernel_shape: tuple[int, ...], stride: int = 1, dilation: int = 1
) -> tf.Tensor:
    """Gradient of `depthwise` by its kernel, of shape `kernel_shape`."""
    if stride == 1:
        useless = _useless_taps(kernel_shape[0], x.shape, dilation)
        size = kernel_shape[0] - 2 * useless
        if size == 1:
            inner = tf.reshape(tf.reduce_sum(dy * x, constant((0, 1, 2))), constant((1, 1, -1, 1)))
        else:
            inner = kernel_gradient(dy, x, size, dilation)
        around = (useless, useless)
        return tf.pad(inner, constant((around, around, (0, 0), (0, 0)))) if useless else inner
    dtype = _strided_gradient_type(x.dtype)
    gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=tf.cast(x, dtype),
        filter_sizes=constant(kernel_shape),
        out_backprop=tf.cast(dy, dtype),
        strides=[1, stride, stride, 1],
        padding="SAME",
    )
    return tf.cast(gradient, x.dtype)


def _strided_gradient_type(dtype: tf.DType) -> tf.DType:
    # Without a GPU the kernels for bfloat16 take 5 to 20 times as long as those for float32 and two casts.
    slow = dtype == tf.bfloat16 and not tf.config.list_physical_devices("GPU")
    return tf.float32 if slow else dtype


class Normalized(NamedTuple):
    """What batch norm computes: the output, the batch's statistics and what its gradient needs of them."""

    output: tf.Tensor
    mean: tf.Tensor
    variance: tf.Tensor
    reserved: tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def normalize(x: tf.Tensor, scale: tf.Tensor | None = None, offset: tf.Tensor | None = None) -> Normalized:
    """Batch norm by the statistics of the batch; the variance returned is the unbiased one."""
    one, zero = ones(x.shape[-1]), zeros(x.shape[-1])
    y, mean, variance, *reserved = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=one if scale is None else scale,
        offset=zero if offset is None else offset,
        mean=zero,
        variance=one,
        epsilon=EPSILON,
        is_training=True,
    )
    return Normalized(y, mean, variance, tuple(reserved))


def normalize_by(
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor | None = None,
    offset: tf.Tensor | None = None,
) -> tf.Tensor:
    """Batch norm by given statistics, each [C]."""
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=ones(x.shape[-1]) if scale is None else scale,
        offset=zeros(x.shape[-1]) if offset is None else offset,
        mean=mean,
        variance=variance,
        epsilon=EPSILON,
        is_training=False,
    ).y


def normalize_gradient(
    dy: tf.Tensor, x: tf.Tensor, reserved: tuple[tf.Tensor, ...]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient of `normalize` by its input, and the sum of dy * y over each channel [C].

    The latter is the gradient by a scale of one; the kernel computes it anyway.
    """
    dx, dscale, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy,
        x=x,
        scale=ones(x.shape[-1]),
        reserve_space_1=reserved[0],
        reserve_space_2=reserved[1],
        reserve_space_3=reserved[2],
        epsilon=EPSILON,
        is_training=True,
    )
    return dx, dscale


def max_pool(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Max pooling over size x size windows."""
    return tf.raw_ops.MaxPool(
        input=x, ksize=[1, size, size, 1], strides=[1, stride, stride, 1], padding="SAME"
    )


def max_pool_gradient(dy: tf.Tensor, x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Gradient of `max_pool` by its input.

    The pooling is computed again on purpose: oneDNN replaces the pair of pooling and gradient when it finds
    both in one graph, and the pair is 10 times faster than TensorFlow's own gradient alone.
    """
    return tf.raw_ops.MaxPoolGrad(
        orig_input=x,
        orig_output=max_pool(x, size, stride),
        grad=dy,
        ksize=[1, size, size, 1],
        strides=[1, stride, stride, 1],
        padding="SAME",
    )


def average_pool(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Average pooling over size x size windows; the padding is left out of the mean."""
    return tf.raw_ops.AvgPool(
        value=x, ksize=[1, size, size, 1], strides=[1, stride, stride, 1], padding="SAME"
    )


def average_pool_gradient(dy: tf.Tensor, input_shape: tf.TensorShape, size: int, stride: int) -> tf.Tensor:
    """Gradient of `average_pool` by its input, of shape `input_shape`."""
    return tf.raw_ops.AvgPoolGrad(
        orig_input_shape=constant(input_shape),
        grad=dy,
        ksize=[1, size, size, 1],
        strides=[1, stride, stride, 1],
        padding="SAME",
    )


def first_centre(image_shape: tf.TensorShape) -> tuple[int, int]:
    """Row and column of the first pixel that an operation of stride 2 is centred on: 1 where there is an even
    number of them, else 0."""
    return 1 - image_shape[1] % 2, 1 - image_shape[2] % 2


def every_second(x: tf.Tensor) -> tf.Tensor:
    """x[:, ::2, ::2], as pooling over single pixels: a slice takes several times as long."""
    return tf.raw_ops.AvgPool(value=x, ksize=[1, 1, 1, 1], strides=[1, 2, 2, 1], padding="SAME")


def subsample(x: tf.Tensor) -> tf.Tensor:
    """The pixels that an operation of stride 2 is centred on: x[:, 1::2, 1::2] for even height and width."""
    row, column = first_centre(x.shape)
    if row and column:
        # Two rows are one of pairs of pixels: their second half, and in it the second of each pair. A slice
        # of such a view takes half the time of one of the image.
        batch, height, width, channels = x.shape
        pairs = tf.reshape(x, constant((-1, width, 2 * channels)))
        odd = tf.slice(pairs, constant((0, width // 2, channels)), constant((-1, -1, -1)))
        return tf.reshape(odd, constant((-1, height // 2, width // 2, channels)))
    if row or column:
        x = tf.slice(x, constant((0, row, column, 0)), constant((-1, -1, -1, -1)))
    return every_second(x)


def subsample_gradient(dy: tf.Tensor, input_shape: tf.TensorShape) -> tf.Tensor:
    """Gradient of `subsample` by its input, of shape `input_shape`: zero between the pixels taken."""
    row, column = first_centre(input_shape)
    batch, height, width, channels = input_shape
    if row and column:  # in the view of `subsample`
        pairs = tf.reshape(dy, constant((-1, width // 2, channels)))
        padded = tf.pad(pairs, constant(((0, 0), (width // 2, 0), (channels, 0))))
        return tf.reshape(padded, constant((-1, height, width, channels)))
    gradient = tf.raw_ops.AvgPoolGrad(
        orig_input_shape=constant((batch, height - row, width - column, channels)),
        grad=dy,
        ksize=[1, 1, 1, 1],
        strides=[1, 2, 2, 1],
        padding="SAME",
    )
    if row or column:
        gradient = tf.pad(gradient, constant(((0, 0), (row, 0), (column, 0), (0, 0))))
    return gradient
