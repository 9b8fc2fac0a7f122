"""What an operation is, and `OPERATIONS`, the registry of all that a search space can name.

An operation is one record: its names and colour, its computation in the supernet, and its Keras layers in the
derived network. Whoever subclasses `Operation` writes `compute` and `layers`; the training pass, its gradient
and inference follow from `compute`. The operations of this package override `backward` where a gradient that
is written out is faster; tests hold it against the default.

Operations have no constants of their own: channels and image size are those of the input, and the output has
as many channels. Batch norms have neither scale nor offset in the search (CVPR 2019, section 3: the search
space of DARTS).

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from gdas_tf.errors import UsageError
from gdas_tf.numerics import primitives as p
from gdas_tf.numerics.lazy import tf
from gdas_tf.registry import Registry

if TYPE_CHECKING:
    from gdas_tf.networks.builder import Builder

Update = Literal["weights", "architecture"]
"""Which gradient a training pass must support: it decides what the backward pass computes."""

Shape: TypeAlias = "tuple[int, ...]"
Statistics: TypeAlias = "list[tuple[tf.Tensor, tf.Tensor]]"
"""Mean and variance, each [C], of every batch norm of an operation, in the order of use."""

Norm: TypeAlias = Callable[["tf.Tensor"], "tf.Tensor"]
"""A batch norm without scale and offset: [B, H, W, C] to the same shape."""


class Forward(NamedTuple):
    """Result of a training pass.

    Attributes:
        output: [B, H, W, C].
        reserved: what the last batch norm keeps of its batch for its gradient
            (`gdas_tf.numerics.primitives.Normalized.reserved`); empty without a batch norm. It is all that
            `backward` gets beside the input. No image is kept but the input, which edges share: computing the
            rest again costs a tenth of a step and saves two fifths of its memory.
        statistics: of the batch, one pair for each batch norm.
    """

    output: tf.Tensor
    reserved: tuple[tf.Tensor, ...]
    statistics: Statistics


class Backward(NamedTuple):
    """Result of a backward pass.

    Attributes:
        input: gradient by the input.
        gate: `sum(dy * y)`, float32 scalar: the gradient by the operation's weight in the mixed operation.
            The update of the architecture alone needs it.
        kernels: gradient by each kernel. The update of the weights alone needs them.
    """

    input: tf.Tensor
    gate: tf.Tensor | None
    kernels: list[tf.Tensor]

    @staticmethod
    def gate_of(products: tf.Tensor, update: Update) -> tf.Tensor | None:
        """The gradient by the gate, from the sums [C] that the gradient of a batch norm comes with."""
        return tf.reduce_sum(products) if update == "architecture" else None

    @staticmethod
    def homogeneous(dx: tf.Tensor, x: tf.Tensor, update: Update) -> Backward:
        """Gradients of an operation of degree one without kernels (linear, or a maximum).

        By Euler's theorem y = J x, so that sum(dy * y) = sum(dx * x), and the output need not be kept.
        """
        gate = tf.reduce_sum(tf.cast(dx * x, tf.float32)) if update == "architecture" else None
        return Backward(dx, gate, [])


class BatchNorms:
    """The batch norms of a training pass: each call normalizes by the batch and keeps its statistics."""

    def __init__(self) -> None:
        self.batches: list[p.Normalized] = []

    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        self.batches.append(p.normalize(z))
        return self.batches[-1].output

    def forward(self, output: tf.Tensor) -> Forward:
        """Returns the result of the pass whose output is given."""
        reserved = self.batches[-1].reserved if self.batches else ()
        return Forward(output, reserved, [(batch.mean, batch.variance) for batch in self.batches])


class Operation(abc.ABC):
    """One operation of a search space, without weights: they are passed in.

    Attributes:
        name: letters, digits, `_`, `.` and `-`.
        short: the name in the short notation of genotypes; `name` if it is empty.
        color: `#rrggbb`, the same in all pictures. Those of this package were chosen so that they stay apart
            under protanopia, deuteranopia and tritanopia (simulation of Machado, Oliveira & Fernandes 2009,
            distances in Oklab).

    Example:
        >>> class Blur(Operation):
        ...     name = "blur_2x2"
        ...
        ...     def compute(self, x, kernels, stride, norm):
        ...         return tf.nn.avg_pool2d(x, 2, stride, "SAME")
        ...
        ...     def layers(self, build, x, stride, name):
        ...         return keras.layers.AveragePooling2D(2, strides=stride, padding="same", name=name)(x)
        >>> OPERATIONS.register("blur_2x2", Blur())  # doctest: +SKIP
    """

    name: str
    short: str = ""
    color: str = "#9a9ea6"

    # ---- in the supernet

    def kernel_shapes(self, channels: int, stride: int) -> list[Shape]:
        """Shapes [h, w, in, out] of the kernels for an input of `channels` channels, in the order of use."""
        return []

    def norms(self, stride: int) -> int:
        """Number of batch norms, each over all channels."""
        return 0

    def trivial(self, stride: int) -> bool:
        """Whether there is nothing to optimize in it: no convolution, pooling or batch norm."""
        return False

    def with_norm(self) -> Operation:
        """What `search.pool_norm` puts in place of this operation: of a pooling, one with a batch norm."""
        return self

    @abc.abstractmethod
    def compute(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int, norm: Norm) -> tf.Tensor:
        """Applies the operation.

        Args:
            x: [B, H, W, C]; H, W and C are known. Not yet passed through a ReLU.
            kernels: of the shapes that `kernel_shapes` gives, in the type of x.
            stride: 1, or 2 on the edges that enter a reduction cell.
            norm: the batch norm, to be called `norms` times.

        Returns:
            [B, ceil(H / stride), ceil(W / stride), C].
        """

    def forward(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        """Training pass, by the statistics of the batch. A tape differentiates it rightly."""
        norm = BatchNorms()
        return norm.forward(self.compute(x, kernels, stride, norm))

    def forward_without_tape(self, x: tf.Tensor, kernels: Sequence[tf.Tensor], stride: int) -> Forward:
        """The training pass for a caller that differentiates it by `backward` and never by a tape."""
        return self.forward(x, kernels, stride)

    def backward(
        self,
        dy: tf.Tensor,
        x: tf.Tensor,
        kernels: Sequence[tf.Tensor],
        reserved: tuple[tf.Tensor, ...],
        stride: int,
        update: Update,
    ) -> Backward:
        """Gradients for the cotangent dy of the output: here, by automatic differentiation of `forward`.

        Args:
            dy: gradient by the output.
            x, kernels, stride: of the training pass.
            reserved: `Forward.reserved` of the training pass.
            update: which gradients are needed.
        """
        sources = [x, *kernels] if update == "weights" else [x]
        y, gradients = differentiate(lambda: self.forward(x, kernels, stride).output, sources, dy)
        dx, *dkernels = (
            p.zeros_like(source) if gradient is None else gradient
            for source, gradient in zip(sources, gradients, strict=True)
        )
        gate = tf.reduce_sum(tf.cast(dy * y, tf.float32)) if update == "architecture" else None
        return Backward(dx, gate, dkernels)

    def inference(
        self, x: tf.Tensor, kernels: Sequence[tf.Tensor], statistics: Statistics, stride: int
    ) -> tf.Tensor:
        """Applies the operation by the moving statistics of its batch norms."""
        moving = iter(statistics)
        return self.compute(x, kernels, stride, lambda z: p.normalize_by(z, *next(moving)))

    # ---- in the derived network

    def droppable(self, stride: int) -> bool:
        """Whether drop-path may drop it: all but the identity and `none`."""
        return True

    @abc.abstractmethod
    def layers(self, build: Builder, x: Any, stride: int, name: str) -> Any:
        """Adds the Keras layers of the operation, whose batch norms have scale and offset.

        Args:
            build: adds layers with the initial weights and the type of the network; Keras' own layers may be
                called as well.
            x: symbolic [B, H, W, C].
            stride: 1 or 2.
            name: unique; every layer's name must begin with it.

        Returns:
            Symbolic [B, ceil(H / stride), ceil(W / stride), C].
        """


class Operations(Registry[Operation]):
    """Operations by name, each of which has a short name and a colour that can be used."""

    def register(self, name: str, item: Operation) -> Operation:
        """Adds an operation, and returns it.

        Raises:
            UsageError: it is not an operation of that name, a name or the colour is malformed, or there is
                another operation of that name or short name.
        """
        if not isinstance(item, Operation):
            raise UsageError(
                f"operation {name!r}: found {item!r}; accepted is an instance of a subclass of "
                "gdas_tf.operations.base.Operation"
            )
        if getattr(item, "name", None) != name:
            raise UsageError(
                f"operation {name!r}: its record has the name {getattr(item, 'name', None)!r}; "
                "register it by that one"
            )
        for what, text in (("name", name), ("short", item.short or name)):
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
                raise UsageError(
                    f"operation {name!r}: {what} is {text!r}; accepted are letters, digits and _.-"
                )
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", item.color):
            raise UsageError(f"operation {name}: color is {item.color!r}; accepted is #rrggbb")
        for other in self.values():
            if other is not item and {other.name, other.short} & {item.name, item.short or name}:
                raise UsageError(
                    f"operation {name} (short {item.short or name}) is registered already, as {other.name} "
                    f"(short {other.short or other.name}); choose another name"
                )
        return super().register(name, item)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name)  # lists cannot be looked up

    def values(self) -> tuple[Operation, ...]:
        """Returns all operations, in the order of their registration."""
        return tuple(self.get(name) for name in self)

    def short_name(self, name: str) -> str:
        """Returns the name of an operation in the short notation of genotypes."""
        return self.get(name).short or name

    def long_names(self) -> dict[str, str]:
        """Returns the name of every operation by its short and by its long name."""
        short = {self.short_name(name): name for name in self}
        return short | {name: name for name in self}


OPERATIONS = Operations("operation")
"""Every operation that a search space can name."""


def candidate(name: str, pool_norm: bool = False) -> Operation:
    """Returns the operation of a name as it stands in a supernet.

    Args:
        name: one of `OPERATIONS`.
        pool_norm: whether a pooling has a batch norm after it.

    Raises:
        UsageError: there is no operation of that name.
    """
    operation = OPERATIONS.get(name)
    return operation.with_norm() if pool_norm else operation


def differentiate(
    function: Callable[[], tf.Tensor], sources: Sequence[tf.Tensor], dy: tf.Tensor | None = None
) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
    """Returns what a function gives, and its gradient by each source: None where it does not depend on it.

    A supernet traces its branches in `tf.init_scope`, in which no tape records: `tf.gradients` does there.

    Args:
        function: computes [B, H, W, C] from the sources.
        sources: what to differentiate by.
        dy: gradient by what the function gives; None for ones.
    """
    if not tf.executing_eagerly():
        y = function()
        return y, tf.gradients(y, sources, dy)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        y = function()
    return y, tape.gradient(y, sources, dy)
