"""The kernel gradient of depthwise convolutions, by way of the calls that oneDNN is fast at."""

from __future__ import annotations

from gdas_tf.numerics.graph_constants import constant
from gdas_tf.numerics.lazy import tf


def kernel_gradient(dy: tf.Tensor, x: tf.Tensor, size: int, dilation: int = 1) -> tf.Tensor:
    """Gradient of a depthwise convolution of stride 1 and SAME padding by its kernel.

    oneDNN is fast for kernels of any height, but of a width of 3 at most: a 5x5 one takes 6 times as long as
    5x3. Wider kernels, and dilated ones, are made of such: in x seen as [B, H, W / f, f * C], which costs
    nothing, neighbouring columns are f apart in x, so that one call gives three columns of the kernel's
    gradient, at -f, 0 and f. Dilated rows are every dilation-th of a higher kernel. As kernels that are
    higher than the image are slow again, such an image is made as high as they are by rows of zeros.

    Args:
        dy: gradient of the output, [B, H, W, C].
        x: input, [B, H, W, C], of static shape but for B.
        size: k, odd.
        dilation: distance of the pixels that neighbours in the kernel meet.

    Returns:
        [k, k, C, 1].
    """
    height, width, channels = x.shape[1:]
    rows = dilation * (size - 1) + 1
    distances = [dilation * number for number in range(1, size // 2 + 1)]
    if any(width % distance for distance in distances):
        return _plain_kernel_gradient(dy, x, size, dilation)
    if rows > height:
        below = constant(((0, 0), (0, rows - height), (0, 0), (0, 0)))
        x, dy = tf.pad(x, below), tf.pad(dy, below)
        height = rows
    columns = {}
    for distance in distances:
        columns_of_x, columns_of_dy = x, dy
        if distance > 1:
            shape = constant((-1, height, width // distance, distance * channels))
            columns_of_x, columns_of_dy = tf.reshape(x, shape), tf.reshape(dy, shape)
        phases = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=columns_of_x,
            filter_sizes=constant((rows, 3, distance * channels, 1)),
            out_backprop=columns_of_dy,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )
        if size == 3 and distance == 1:
            return phases
        if dilation > 1:
            phases = phases[::dilation]
        if distance > 1:
            phases = tf.reduce_sum(
                tf.reshape(phases, constant((size, 3, distance, channels, 1))), constant(2)
            )
        left, middle, right = tf.unstack(phases, axis=1)
        columns |= {-distance: left, 0: middle, distance: right}
    return tf.stack([columns[distance] for distance in sorted(columns)], 1)


def _plain_kernel_gradient(dy: tf.Tensor, x: tf.Tensor, size: int, dilation: int) -> tf.Tensor:
    padding = "SAME"
    if dilation > 1:
        # The pixels that meet under a dilated kernel are those of one phase; with the phases moved into the
        # batch the convolution is a plain one.
        reach, padding = dilation * (size // 2), "VALID"
        beyond = [-x.shape[axis] % dilation for axis in (1, 2)]
        x = tf.space_to_batch(x, [dilation, dilation], [[reach, reach + more] for more in beyond])
        dy = tf.space_to_batch(dy, [dilation, dilation], [[0, more] for more in beyond])
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=x,
        filter_sizes=[size, size, x.shape[-1], 1],
        out_backprop=dy,
        strides=[1, 1, 1, 1],
        padding=padding,
    )
