"""`none` and `skip_connect`, the operations without a convolution of their own at stride 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.numerics import primitives as p
from gdas_tf.numerics.lazy import tf
from gdas_tf.operations.base import (
    OPERATIONS,
    Backward,
    Norm,
    Operation,
    Shape,
)

if TYPE_CHECKING:
    from gdas_tf.networks.builder import Builder


class Zero(Operation):
    """`none`: the output is zero, nothing flows back."""

    name, short, color = "none", "none", "#7a7070"

    def trivial(self, stride: int) -> bool:
        return True

    def compute(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, norm: Norm) -> tf.Tensor:
        return p.zeros_like(x if stride == 1 else p.every_second(x))

    def backward(self, dy, x, kernels, reserved, stride, update) -> Backward:
        return Backward(p.zeros_like(x), tf.constant(0.0), [])

    def droppable(self, stride: int) -> bool:
        return False

    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        return build.zeros(x, stride, name)


class Skip(Operation):
    """`skip_connect`: the identity; at stride 2 the factorized reduction: ReLU, `factorize`, batch norm."""

    name, short, color = "skip_connect", "skip", "#00c197"

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        return [] if stride == 1 else factorized_kernel_shapes(channels, channels)

    def norms(self, stride: int) -> int:
        return stride - 1

    def trivial(self, stride: int) -> bool:
        return stride == 1

    def compute(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, norm: Norm) -> tf.Tensor:
        if stride == 1:
            return tf.identity(x)
        return norm(p.convolution(p.relu(x), factorize(kernels, x.shape), 2))

    def backward(self, dy, x, kernels, reserved, stride, update) -> Backward:
        if stride == 1:
            return Backward.homogeneous(dy, x, update)
        r, kernel = p.relu(x), factorize(kernels, x.shape)
        dz, products = p.normalize_gradient(dy, p.convolution(r, kernel, 2), reserved)
        dr = p.convolution_input_gradient(dz, kernel, x.shape, 2)
        dkernels = []
        if update == "weights":
            dkernel = p.convolution_kernel_gradient(dz, r, tuple(kernel.shape), 2)
            (row, column), half = p.first_centre(x.shape), kernels[0].shape[-1]
            dkernels = [
                dkernel[row : row + 1, column : column + 1, :, :half],
                dkernel[1 - row : 2 - row, 1 - column : 2 - column, :, half:],
            ]
        return Backward(p.relu_gradient(dr, r), Backward.gate_of(products, update), dkernels)

    def droppable(self, stride: int) -> bool:
        return stride > 1

    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        return x if stride == 1 else build.factorized_reduction(x, x.shape[-1], name)


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
        kernels: the two kernels, see `factorized_kernel_shapes`.
        image_shape: [B, H, W, C] of the input.
    """
    (first, second), places = kernels, p.first_centre(image_shape)
    first_pads = [[place, 1 - place] for place in places]
    second_pads = [[1 - place, place] for place in places]
    filters = first.shape[-1], second.shape[-1]
    first = tf.pad(first, [*first_pads, [0, 0], [0, filters[1]]])
    return first + tf.pad(second, [*second_pads, [0, 0], [filters[0], 0]])


for _operation in (Zero(), Skip()):
    OPERATIONS.register(_operation.name, _operation)
