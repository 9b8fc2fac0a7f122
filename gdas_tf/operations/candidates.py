"""The candidate operations of the search, and `CandidateOperation`, the Keras layer of one of them.

A candidate is written as three functions of its input and kernels: `forward`, `backward`, and `inference`, by
moving statistics. The supernet runs the sampled candidate of each edge through them
(`gdas_tf.supernet.mixed`), and `CandidateOperation` is the same candidate as a layer of its own.

The candidates have no constants of their own: channels and image size are those of the input, and the output
has as many channels. Batch norms have neither scale nor offset (CVPR 2019, section 3: the search space of
DARTS).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.numerics import primitives as p
from gdas_tf.numerics.graph_constants import constant
from gdas_tf.spaces.base import OPERATIONS

Update = Literal["weights", "architecture"]
"""Whose gradient a pass is for: it decides what the backward pass computes."""

Shape = tuple[int, ...]
Statistics = list[tuple[tf.Tensor, tf.Tensor]]
"""Mean and variance, each [C], of every batch norm of an operation, in order."""


class Forward(NamedTuple):
    """Result of a forward pass.

    `moments` is all that `backward` needs beside the input: what the last batch norm says of its batch
    (`primitives.Normalized.reserved`), or nothing where there is none. No image is kept but the input, which
    edges share: computing the rest again costs a tenth of a step and saves two fifths of its memory.
    """

    output: tf.Tensor
    moments: tuple[tf.Tensor, ...]
    statistics: Statistics


class Backward(NamedTuple):
    """Result of a backward pass.

    `gate` is `sum(dy * y)`, a scalar: the gradient by the operation's weight in the mixed operation. It is
    only computed for the update of the architecture, and `kernels` only for the update of the weights.
    """

    input: tf.Tensor
    gate: tf.Tensor | None
    kernels: list[tf.Tensor]


class Candidate(abc.ABC):
    """One candidate operation, without weights: they are passed in."""

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        """Shapes of the kernels for an input of `channels` channels, in the order of use."""
        return []

    def norms(self, stride: int) -> int:
        """Number of batch norms, each over all channels."""
        return 0

    def trivial(self, stride: int) -> bool:
        """Whether there is nothing to optimize in it: no convolution, pooling or batch norm."""
        return False

    @abc.abstractmethod
    def forward(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        """Apply to x [B, H, W, C] in training."""

    @abc.abstractmethod
    def backward(
        self,
        dy: tf.Tensor,
        x: tf.Tensor,
        kernels: Sequence[tf.Tensor],
        moments: tuple[tf.Tensor, ...],
        stride: int,
        update: Update,
    ) -> Backward:
        """Gradients for the cotangent dy of the output, given the moments that `forward` returned."""

    def inference(
        self, x: tf.Tensor, kernels: Sequence[tf.Tensor], statistics: Statistics, stride: int
    ) -> tf.Tensor:
        """Apply to x by the moving statistics. An operation without batch norm is the same as in training."""
        return self.forward(x, kernels, stride).output


def _homogeneous(dx: tf.Tensor, x: tf.Tensor, update: Update) -> Backward:
    """Gradients of an operation of degree one without kernels (linear, or a maximum).

    By Euler's theorem y = J x, so that sum(dy * y) = sum(dx * x), and the output need not be kept.
    """
    gate = tf.reduce_sum(tf.cast(dx * x, tf.float32)) if update == "architecture" else None
    return Backward(dx, gate, [])


def _gate(products: tf.Tensor, update: Update) -> tf.Tensor | None:
    """The gradient by the gate, of the sums over each channel that the gradient of batch norm comes with."""
    return tf.reduce_sum(products) if update == "architecture" else None


class Zero(Candidate):
    """`none`: the output is zero, nothing flows back."""

    def trivial(self, stride: int) -> bool:
        return True

    def forward(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        return Forward(p.zeros_like(x if stride == 1 else p.every_second(x)), (), [])

    def backward(self, dy, x, kernels, moments, stride, update) -> Backward:
        return Backward(p.zeros_like(x), tf.constant(0.0), [])


class Skip(Candidate):
    """`skip_connect`: the identity; at stride 2 the factorized reduction: ReLU, `factorize`, batch norm."""

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        return [] if stride == 1 else factorized_kernel_shapes(channels, channels)

    def norms(self, stride: int) -> int:
        return stride - 1

    def trivial(self, stride: int) -> bool:
        return stride == 1

    def forward(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        if stride == 1:
            return Forward(tf.identity(x), (), [])
        y = p.normalize(p.convolution(p.relu(x), factorize(kernels, x.shape), 2))
        return Forward(y.output, y.reserved, [(y.mean, y.variance)])

    def backward(self, dy, x, kernels, moments, stride, update) -> Backward:
        if stride == 1:
            return _homogeneous(dy, x, update)
        r, kernel = p.relu(x), factorize(kernels, x.shape)
        dz, products = p.normalize_gradient(dy, p.convolution(r, kernel, 2), moments)
        dr = p.convolution_input_gradient(dz, kernel, x.shape, 2)
        dkernels = []
        if update == "weights":
            dkernel = p.convolution_kernel_gradient(dz, r, tuple(kernel.shape), 2)
            (row, column), half = p.first_centre(x.shape), kernels[0].shape[-1]
            dkernels = [
                dkernel[row : row + 1, column : column + 1, :, :half],
                dkernel[1 - row : 2 - row, 1 - column : 2 - column, :, half:],
            ]
        return Backward(p.relu_gradient(dr, r), _gate(products, update), dkernels)

    def inference(self, x, kernels, statistics, stride) -> tf.Tensor:
        if stride == 1:
            return tf.identity(x)
        return p.normalize_by(p.convolution(p.relu(x), factorize(kernels, x.shape), 2), *statistics[0])


def factorized_kernel_shapes(channels: int, filters: int) -> list[Shape]:
    """Shapes of the two kernels of a factorized reduction from `channels` to `filters` channels."""
    return [(1, 1, channels, filters // 2), (1, 1, channels, filters - filters // 2)]


def factorize(kernels: Sequence[tf.Tensor], image_shape: tf.TensorShape) -> tf.Tensor:
    """The kernel [2, 2, C, F] of a factorized reduction as one convolution of stride 2.

    A factorized reduction is two 1x1 convolutions of stride 2 with half of the filters each, concatenated.
    The first sees the pixels that everything of stride 2 is centred on (`primitives.first_centre`), the
    second those of the other rows and columns; of an odd number of rows the second sees zeros after the last.
    As one kernel, zero off its diagonal, it needs neither slices nor a concatenation, which cost more than
    the zeros.

    Args:
        kernels: The two kernels, see `factorized_kernel_shapes`.
        image_shape: [B, H, W, C] of the input.
    """
    (first, second), places = kernels, p.first_centre(image_shape)
    first_pads = [[place, 1 - place] for place in places]
    second_pads = [[1 - place, place] for place in places]
    filters = first.shape[-1], second.shape[-1]
    first = tf.pad(first, [*first_pads, [0, 0], [0, filters[1]]])
    return first + tf.pad(second, [*second_pads, [0, 0], [filters[0], 0]])


class Convolutions(Candidate):
    """ReLU, depthwise convolution, pointwise convolution, batch norm; `repeats` times, the first with the
    stride.

    `sep_conv` is two of them, `dil_conv` a single one with dilation 2. At stride 2 all pixels that a kernel
    of dilation 2 meets are such as it is centred on; it is computed as the undilated convolution of those.
    """

    def __init__(self, size: int, dilation: int = 1, repeats: int = 1) -> None:
        self.size, self.dilation, self.repeats = size, dilation, repeats

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        return [(self.size, self.size, channels, 1), (1, 1, channels, channels)] * self.repeats

    def norms(self, stride: int) -> int:
        return self.repeats

    def forward(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        statistics = []
        for unit in range(self.repeats):
            u = self._depthwise(p.relu(x), kernels[2 * unit], stride if unit == 0 else 1)
            y = p.normalize(p.convolution(u, kernels[2 * unit + 1]))
            statistics.append((y.mean, y.variance))
            x = y.output
        return Forward(x, y.reserved, statistics)

    def backward(self, dy, x, kernels, moments, stride, update) -> Backward:
        computed = []
        for unit in range(self.repeats):
            r = p.relu(x)
            u = self._depthwise(r, kernels[2 * unit], stride if unit == 0 else 1)
            z = p.convolution(u, kernels[2 * unit + 1])
            y = p.normalize(z) if unit < self.repeats - 1 else None
            computed.append((r, u, z, y.reserved if y else moments))
            x = y.output if y else None
        gate, dkernels = None, []
        for unit, (r, u, z, reserved) in reversed(list(enumerate(computed))):
            depthwise_kernel, pointwise_kernel = kernels[2 * unit : 2 * unit + 2]
            unit_stride = stride if unit == 0 else 1
            dz, products = p.normalize_gradient(dy, z, reserved)
            gate = _gate(products, update) if gate is None else gate
            du = p.convolution_input_gradient(dz, pointwise_kernel, z.shape)
            if update == "weights":
                dkernels = [
                    self._depthwise_kernel_gradient(du, r, tuple(depthwise_kernel.shape), unit_stride),
                    p.convolution_kernel_gradient(dz, u, tuple(pointwise_kernel.shape)),
                    *dkernels,
                ]
            dr = self._depthwise_input_gradient(du, depthwise_kernel, r.shape, unit_stride)
            dy = p.relu_gradient(dr, r)
        return Backward(dy, gate, dkernels)

    def inference(self, x, kernels, statistics, stride) -> tf.Tensor:
        for unit, (mean, variance) in enumerate(statistics):
            u = self._depthwise(p.relu(x), kernels[2 * unit], stride if unit == 0 else 1)
            x = p.normalize_by(p.convolution(u, kernels[2 * unit + 1]), mean, variance)
        return x

    def _strides_by_slicing(self, stride: int) -> bool:
        return self.dilation > 1 and stride == self.dilation

    def _depthwise(self, r: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
        if self._strides_by_slicing(stride):
            return p.depthwise(p.subsample(r), kernel)
        return p.depthwise(r, kernel, stride, self.dilation)

    def _depthwise_input_gradient(
        self, du: tf.Tensor, kernel: tf.Tensor, shape: tf.TensorShape, stride: int
    ) -> tf.Tensor:
        if self._strides_by_slicing(stride):
            return p.subsample_gradient(p.depthwise_input_gradient(du, kernel, du.shape), shape)
        return p.depthwise_input_gradient(du, kernel, shape, stride, self.dilation)

    def _depthwise_kernel_gradient(
        self, du: tf.Tensor, r: tf.Tensor, kernel_shape: Shape, stride: int
    ) -> tf.Tensor:
        if self._strides_by_slicing(stride):
            return p.depthwise_kernel_gradient(du, p.subsample(r), kernel_shape)
        return p.depthwise_kernel_gradient(du, r, kernel_shape, stride, self.dilation)


class DenseConvolution(Candidate):
    """`conv`: ReLU, a convolution over all channels, batch norm."""

    def __init__(self, size: int) -> None:
        self.size = size

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        return [(self.size, self.size, channels, channels)]

    def norms(self, stride: int) -> int:
        return 1

    def forward(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        y = p.normalize(self._convolution(p.relu(x), kernels[0], stride))
        return Forward(y.output, y.reserved, [(y.mean, y.variance)])

    def backward(self, dy, x, kernels, moments, stride, update) -> Backward:
        r, (kernel, (row, column)) = p.relu(x), self._centred(kernels[0], x.shape, stride)
        dz, products = p.normalize_gradient(dy, p.convolution(r, kernel, stride), moments)
        dr = p.convolution_input_gradient(dz, kernel, r.shape, stride)
        dkernels = []
        if update == "weights":
            dkernel = p.convolution_kernel_gradient(dz, r, tuple(kernel.shape), stride)
            dkernels = [dkernel[row:, column:] if row or column else dkernel]
        return Backward(p.relu_gradient(dr, r), _gate(products, update), dkernels)

    def inference(self, x, kernels, statistics, stride) -> tf.Tensor:
        return p.normalize_by(self._convolution(p.relu(x), kernels[0], stride), *statistics[0])

    def _convolution(self, r: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
        return p.convolution(r, self._centred(kernel, r.shape, stride)[0], stride)

    def _centred(
        self, kernel: tf.Tensor, image_shape: tf.TensorShape, stride: int
    ) -> tuple[tf.Tensor, tuple[int, int]]:
        """The kernel, of one pixel with zeros before it where it would else see pixels that nothing else is
        centred on, and the numbers of rows and columns of zeros."""
        if self.size > 1 or stride == 1:
            return kernel, (0, 0)
        row, column = p.first_centre(image_shape)
        if row or column:
            kernel = tf.pad(kernel, constant(((row, 0), (column, 0), (0, 0), (0, 0))))
        return kernel, (row, column)


class _Pool(Candidate):
    """3x3 pooling, and on request a batch norm after it.

    The batch norm is that of DARTS' search and of the authors' code of 2019, which put a `BatchNorm2d`
    without scale and offset after every pooling; the paper does not mention it, and the seed study and
    AutoDL-2020 have none. It brings the pooling's output to the scale of that of the other candidates.

    Args:
        norm: Whether there is a batch norm.
    """

    def __init__(self, norm: bool = False) -> None:
        self.norm = norm

    @abc.abstractmethod
    def _pool(self, x: tf.Tensor, stride: int) -> tf.Tensor:
        """The pooling of x."""

    @abc.abstractmethod
    def _pool_gradient(self, dz: tf.Tensor, x: tf.Tensor, stride: int) -> tf.Tensor:
        """Gradient of `_pool` by x."""

    def norms(self, stride: int) -> int:
        return int(self.norm)

    def forward(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        z = self._pool(x, stride)
        if not self.norm:
            return Forward(z, (), [])
        y = p.normalize(z)
        return Forward(y.output, y.reserved, [(y.mean, y.variance)])

    def backward(self, dy, x, kernels, moments, stride, update) -> Backward:
        if not self.norm:
            return _homogeneous(self._pool_gradient(dy, x, stride), x, update)
        dz, products = p.normalize_gradient(dy, self._pool(x, stride), moments)
        return Backward(self._pool_gradient(dz, x, stride), _gate(products, update), [])

    def inference(self, x, kernels, statistics, stride) -> tf.Tensor:
        z = self._pool(x, stride)
        return p.normalize_by(z, *statistics[0]) if self.norm else z


class AveragePool(_Pool):
    """`avg_pool`: 3x3 average pooling, the padding left out of the mean."""

    def _pool(self, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.average_pool(x, 3, stride)

    def _pool_gradient(self, dz: tf.Tensor, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.average_pool_gradient(dz, x.shape, 3, stride)


class MaxPool(_Pool):
    """`max_pool`: 3x3 max pooling."""

    def _pool(self, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.max_pool(x, 3, stride)

    def _pool_gradient(self, dz: tf.Tensor, x: tf.Tensor, stride: int) -> tf.Tensor:
        return p.max_pool_gradient(dz, x, 3, stride)


CANDIDATES: dict[str, Candidate] = {
    "none": Zero(),
    "skip_connect": Skip(),
    "sep_conv_3x3": Convolutions(3, repeats=2),
    "sep_conv_5x5": Convolutions(5, repeats=2),
    "dil_conv_3x3": Convolutions(3, dilation=2),
    "dil_conv_5x5": Convolutions(5, dilation=2),
    "avg_pool_3x3": AveragePool(),
    "max_pool_3x3": MaxPool(),
    "sep_conv_7x7": Convolutions(7, repeats=2),
    "dil_conv_7x7": Convolutions(7, dilation=2),
    "conv_1x1": DenseConvolution(1),
    "conv_3x3": DenseConvolution(3),
}
"""Registry: every operation that a search space can name."""


_NORMALIZED_POOLS: dict[str, Candidate] = {
    "avg_pool_3x3": AveragePool(norm=True),
    "max_pool_3x3": MaxPool(norm=True),
}


def candidate(name: str, pool_norm: bool = False) -> Candidate:
    """The candidate operation of that name.

    Args:
        name: one of `gdas_tf.spaces.base.OPERATIONS`.
        pool_norm: Whether a pooling has a batch norm after it.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in CANDIDATES:
        raise UsageError(f"operation {name!r} is unknown; known are {', '.join(OPERATIONS)}")
    return (pool_norm and _NORMALIZED_POOLS.get(name)) or CANDIDATES[name]


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


@keras.saving.register_keras_serializable("gdas_tf")
class CandidateOperation(keras.layers.Layer):
    """One candidate operation of the search as a layer.

    Args:
        operation: Name of the operation, one of `gdas_tf.spaces.base.OPERATIONS`.
        stride: 1, or 2 as on the edges that enter a reduction cell.
        momentum: Of the moving statistics of the batch norms.
        pool_norm: Whether a pooling has a batch norm after it.

    Input: [B, H, W, C] with B, H, W, C known. Output: [B, ceil(H / stride), ceil(W / stride), C].

    Example:

    >>> layer = CandidateOperation("sep_conv_3x3", stride=2)
    >>> layer(keras.ops.ones((4, 8, 8, 16)), training=True).shape
    TensorShape([4, 4, 4, 16])
    """

    def __init__(
        self,
        operation: str,
        stride: int = 1,
        momentum: float = 0.9,
        pool_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if stride not in (1, 2):
            raise UsageError(f"stride of {operation} is {stride!r}; accepted are 1 and 2")
        self.candidate = candidate(operation, pool_norm)
        self.operation, self.stride, self.momentum = operation, stride, momentum
        self.pool_norm = pool_norm

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        self.kernels = [
            self.add_weight(name=f"kernel_{i}", shape=shape, initializer=FanInUniform())
            for i, shape in enumerate(self.candidate.kernel_shapes(channels, self.stride))
        ]
        self.statistics = [
            tuple(
                self.add_weight(name=f"{name}_{i}", shape=(channels,), initializer=start, trainable=False)
                for name, start in (("moving_mean", "zeros"), ("moving_variance", "ones"))
            )
            for i in range(self.candidate.norms(self.stride))
        ]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        kernels = [tf.cast(kernel.value, inputs.dtype) for kernel in self.kernels]
        if not training:
            moving = [(mean.value, variance.value) for mean, variance in self.statistics]
            return self.candidate.inference(inputs, kernels, moving, self.stride)

        @tf.custom_gradient
        def apply(x: tf.Tensor, *kernels: tf.Tensor) -> Any:
            y, moments, batch = self.candidate.forward(x, kernels, self.stride)

            def gradient(dy: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
                result = self.candidate.backward(dy, x, kernels, moments, self.stride, "weights")
                return (result.input, *result.kernels)

            return (y, *tf.nest.flatten(batch)), gradient

        y, *batch = apply(inputs, *kernels)
        for moving, value in zip(tf.nest.flatten(self.statistics), batch, strict=True):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return y

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (batch, -(-height // self.stride), -(-width // self.stride), channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "operation": self.operation,
            "stride": self.stride,
            "momentum": self.momentum,
            "pool_norm": self.pool_norm,
        }
