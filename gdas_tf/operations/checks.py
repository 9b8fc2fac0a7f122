"""Whether an operation of a user can stand on the edges of a supernet, found out by running it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.operations.base import Operation, Shape, candidate, differentiate

CHANNELS = 4
SIZES = (8, 7)
"""Height and width of the images that an operation is tried on: halved they are 4 and, rounded up, 4."""


def checked(name: str, pool_norm: bool = False) -> Operation:
    """Returns the operation of a name as it stands in a supernet (`gdas_tf.operations.base.candidate`).

    An operation that does not come with this package is tried when it is first asked for.

    Raises:
        UsageError: there is no operation of that name, or it cannot stand on every edge.
    """
    operation = candidate(name, pool_norm)
    if not type(operation).__module__.startswith("gdas_tf.operations."):
        check(operation)
    return operation


@functools.cache
def check(operation: Operation) -> None:
    """Makes sure that an operation keeps to what `Operation` says, at both strides.

    Raises:
        UsageError: it fails, changes the shape or the type, has another number of batch norms than it says,
            or no gradient by its input or a kernel.
    """
    for stride in (1, 2):
        for size in SIZES:
            _check(operation, (2, size, size, CHANNELS), stride)


def _check(operation: Operation, shape: Shape, stride: int) -> None:
    what = f"operation {operation.name} at stride {stride} on an input of shape {shape}"
    wanted = (shape[0], -(-shape[1] // stride), -(-shape[2] // stride), shape[3])
    try:
        x, *kernels = (
            tf.random.stateless_normal(tensor, [1, number])
            for number, tensor in enumerate([shape, *operation.kernel_shapes(CHANNELS, stride)])
        )
        forward = operation.forward(x, kernels, stride)
        norms = operation.norms(stride)
        moving = [(tf.zeros(CHANNELS), tf.ones(CHANNELS))] * norms
        if len(forward.statistics) != norms:
            raise UsageError(
                f"{what}: it calls {len(forward.statistics)} batch norms, but norms({stride}) is {norms}; "
                "let both be the same number"
            )
        _check_shape(forward.output, wanted, f"{what}, in training")
        _check_shape(operation.inference(x, kernels, moving, stride), wanted, f"{what}, in inference")
    except UsageError:
        raise
    except Exception as error:  # whatever a user's code raises
        raise UsageError(f"{what}: it fails with {_line(error)}") from error
    if type(operation).backward is Operation.backward:
        _check_gradients(operation, x, kernels, stride, what)
    else:
        _check_backward(operation, forward.output, x, kernels, forward.reserved, stride, what)


def _check_shape(y: tf.Tensor, wanted: Shape, what: str) -> None:
    if tuple(y.shape) != wanted or y.dtype != tf.float32:
        raise UsageError(
            f"{what}: it gives {y.dtype.name} {tuple(y.shape)}; it must give float32 {wanted}: the type and "
            "the channels of its input, height and width divided by the stride and rounded up"
        )


def _check_gradients(
    operation: Operation, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, what: str
) -> None:
    try:
        _, (dx, *dkernels) = differentiate(
            lambda: operation.forward(x, kernels, stride).output, [x, *kernels]
        )
    except Exception as error:  # LookupError of TensorFlow, or whatever a custom gradient raises
        raise UsageError(
            f"{what}: it cannot be differentiated ({_line(error)}); use differentiable operations, or define "
            "backward"
        ) from error
    lacking = ["its input"] if dx is None else []
    lacking += [f"kernel {number}" for number, dkernel in enumerate(dkernels) if dkernel is None]
    if lacking:
        raise UsageError(
            f"{what}: it has no gradient by {' and '.join(lacking)}; use differentiable operations of "
            "TensorFlow, or define backward"
        )


def _check_backward(
    operation: Operation,
    y: tf.Tensor,
    x: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    reserved: tuple[tf.Tensor, ...],
    stride: int,
    what: str,
) -> None:
    try:
        found = operation.backward(tf.ones_like(y), x, kernels, reserved, stride, "weights")
        shapes = [tuple(value.shape) for value in (found.input, *found.kernels)]
        gate = operation.backward(tf.ones_like(y), x, kernels, reserved, stride, "architecture").gate
        gate_shape = tuple(gate.shape)
    except Exception as error:  # whatever a user's code raises
        raise UsageError(f"{what}: its backward fails with {_line(error)}") from error
    wanted = [tuple(value.shape) for value in (x, *kernels)]
    if shapes != wanted or gate_shape:
        raise UsageError(
            f"{what}: its backward gives gradients of shapes {shapes} and a gate of shape {gate_shape}; they "
            f"must be {wanted} and ()"
        )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.160}"
