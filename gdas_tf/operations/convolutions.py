"""Convolutions: `sep_conv`, `dil_conv` and `conv` of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.numerics import primitives as p
from gdas_tf.numerics.graph_constants import constant
from gdas_tf.numerics.lazy import tf
from gdas_tf.operations.base import (
    OPERATIONS,
    Backward,
    BatchNorms,
    Forward,
    Norm,
    Operation,
    Shape,
)

if TYPE_CHECKING:
    from gdas_tf.networks.builder import Builder


class DepthwiseConvolution(Operation):
    """ReLU, depthwise convolution, pointwise convolution, batch norm; `repeats` times, the first with the
    stride.

    `sep_conv` is two of them, `dil_conv` a single one with dilation 2. At stride 2 all pixels that a kernel
    of dilation 2 meets are such as it is centred on; it is computed as the undilated convolution of those.
    """

    def __init__(
        self, name: str, short: str, color: str, size: int, dilation: int = 1, repeats: int = 1
    ) -> None:
        self.name, self.short, self.color = name, short, color
        self.size, self.dilation, self.repeats = size, dilation, repeats

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        return [(self.size, self.size, channels, 1), (1, 1, channels, channels)] * self.repeats

    def norms(self, stride: int) -> int:
        return self.repeats

    def compute(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, norm: Norm) -> tf.Tensor:
        return self._units(x, kernels, stride, norm, p.depthwise)

    def forward_without_tape(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        norm = BatchNorms()
        return norm.forward(self._units(x, kernels, stride, norm, p.depthwise_without_gradient))

    def _units(
        self,
        x: tf.Tensor,
        kernels: Sequence[tf.Tensor],
        stride: int,
        norm: Norm,
        depthwise: Callable[..., tf.Tensor],
    ) -> tf.Tensor:
        for unit in range(self.repeats):
            u = self._depthwise(p.relu(x), kernels[2 * unit], stride if unit == 0 else 1, depthwise)
            x = norm(p.convolution(u, kernels[2 * unit + 1]))
        return x

    def backward(self, dy, x, kernels, reserved, stride, update) -> Backward:
        computed = []
        for unit in range(self.repeats):
            r = p.relu(x)
            unit_stride = stride if unit == 0 else 1
            u = self._depthwise(r, kernels[2 * unit], unit_stride, p.depthwise_without_gradient)
            z = p.convolution(u, kernels[2 * unit + 1])
            y = p.normalize(z) if unit < self.repeats - 1 else None
            computed.append((r, u, z, y.reserved if y else reserved))
            x = y.output if y else None
        gate, dkernels = None, []
        for unit, (r, u, z, kept) in reversed(list(enumerate(computed))):
            depthwise_kernel, pointwise_kernel = kernels[2 * unit : 2 * unit + 2]
            unit_stride = stride if unit == 0 else 1
            dz, products = p.normalize_gradient(dy, z, kept)
            gate = Backward.gate_of(products, update) if gate is None else gate
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

    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        for unit in range(self.repeats):
            label = f"{name}_{unit}" if self.repeats > 1 else name
            x = build.separable(x, self.size, stride if unit == 0 else 1, self.dilation, label)
        return x

    def _strides_by_slicing(self, stride: int) -> bool:
        return self.dilation > 1 and stride == self.dilation

    def _depthwise(
        self, r: tf.Tensor, kernel: tf.Tensor, stride: int, depthwise: Callable[..., tf.Tensor]
    ) -> tf.Tensor:
        if self._strides_by_slicing(stride):
            return depthwise(p.subsample(r), kernel)
        return depthwise(r, kernel, stride, self.dilation)

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


class DenseConvolution(Operation):
    """`conv`: ReLU, a convolution over all channels, batch norm."""

    def __init__(self, name: str, short: str, color: str, size: int) -> None:
        self.name, self.short, self.color, self.size = name, short, color, size

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        return [(self.size, self.size, channels, channels)]

    def norms(self, stride: int) -> int:
        return 1

    def compute(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, norm: Norm) -> tf.Tensor:
        r, (kernel, _) = p.relu(x), self._centred(kernels[0], x.shape, stride)
        return norm(p.convolution(r, kernel, stride))

    def backward(self, dy, x, kernels, reserved, stride, update) -> Backward:
        r, (kernel, (row, column)) = p.relu(x), self._centred(kernels[0], x.shape, stride)
        dz, products = p.normalize_gradient(dy, p.convolution(r, kernel, stride), reserved)
        dr = p.convolution_input_gradient(dz, kernel, r.shape, stride)
        dkernels = []
        if update == "weights":
            dkernel = p.convolution_kernel_gradient(dz, r, tuple(kernel.shape), stride)
            dkernels = [dkernel[row:, column:] if row or column else dkernel]
        return Backward(p.relu_gradient(dr, r), Backward.gate_of(products, update), dkernels)

    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        return build.relu_conv_bn(x, x.shape[-1], self.size, stride, name)

    def _centred(
        self, kernel: tf.Tensor, image_shape: tf.TensorShape, stride: int
    ) -> tuple[tf.Tensor, tuple[int, int]]:
        """The kernel, and the numbers of rows and columns of zeros that were put before it.

        A kernel of one pixel gets zeros where it would else see pixels that nothing else of stride 2 is
        centred on.
        """
        if self.size > 1 or stride == 1:
            return kernel, (0, 0)
        row, column = p.first_centre(image_shape)
        if row or column:
            kernel = tf.pad(kernel, constant(((row, 0), (column, 0), (0, 0), (0, 0))))
        return kernel, (row, column)


for _operation in (
    DepthwiseConvolution("sep_conv_3x3", "sep3", "#5b83f4", 3, repeats=2),
    DepthwiseConvolution("sep_conv_5x5", "sep5", "#03529e", 5, repeats=2),
    DepthwiseConvolution("sep_conv_7x7", "sep7", "#06237e", 7, repeats=2),
    DepthwiseConvolution("dil_conv_3x3", "dil3", "#bebaff", 3, dilation=2),
    DepthwiseConvolution("dil_conv_5x5", "dil5", "#8a1251", 5, dilation=2),
    DepthwiseConvolution("dil_conv_7x7", "dil7", "#4e0644", 7, dilation=2),
    DenseConvolution("conv_1x1", "conv1", "#c54f2d", 1),
    DenseConvolution("conv_3x3", "conv3", "#682000", 3),
):
    OPERATIONS.register(_operation.name, _operation)
