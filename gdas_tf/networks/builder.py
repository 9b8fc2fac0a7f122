"""The layers and cells that a network of a genotype is built of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.networks.drop_path import DropPathFactors
from gdas_tf.networks.fast_layers import (
    FusedBatchNormalization,
    TrainingConv2D,
    TrainingCropping2D,
    TrainingDepthwiseConv2D,
)
from gdas_tf.numerics.primitives import first_centre
from gdas_tf.operations.base import OPERATIONS, Operation
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.spaces.macro import CellPlan

layers = keras.layers

BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}


class Term(NamedTuple):
    """One of the outputs that a node of a searched cell adds up.

    Attributes:
        name: of its layers, unique in the network.
        operation: what is applied.
        source: the input, numbered as in `gdas_tf.spaces.genotype.Edge`.
        stride: 1 or 2.
    """

    name: str
    operation: Operation
    source: int
    stride: int


def searched_cell(genotype: Genotype, reduction: bool, name: str) -> list[list[Term]]:
    """The terms of every node of a searched cell."""
    nodes = []
    for number, edges in enumerate(genotype.reduction if reduction else genotype.normal):
        # `none` contributes nothing; but a node needs one term.
        kept = [(j, edge) for j, edge in enumerate(edges) if edge.operation != "none"] or [(0, edges[0])]
        nodes.append(
            [
                Term(
                    f"{name}_node{number}_edge{j}_{edge.operation}",
                    OPERATIONS.get(edge.operation),
                    edge.input,
                    2 if reduction and edge.input < genotype.inputs else 1,
                )
                for j, edge in kept
            ]
        )
    return nodes


def fixed_branches(genotype: Genotype, name: str) -> list[tuple[str, str, int]]:
    """The branches of a fixed reduction cell, in the order of its output, as (name, kind, input)."""
    return [
        (f"{name}_{kind}{number}", kind, number)
        for kind in ("conv", "max_pool")
        for number in range(genotype.inputs)
    ]


def is_fixed(genotype: Genotype, cell: CellPlan) -> bool:
    """Whether a cell of a network is the fixed reduction cell."""
    return cell.reduction and genotype.reduction is None


def droppable_paths(genotype: Genotype, plan: Sequence[CellPlan], space: SearchSpace) -> Iterator[str]:
    """Yields the names of all paths of a network that drop-path may drop, in the order of building."""
    for number, cell in enumerate(plan):
        name = f"cell{number}"
        if is_fixed(genotype, cell):
            if space.between == "residual":
                continue
            yield from (path for path, _, _ in fixed_branches(genotype, name))
        else:
            for node in searched_cell(genotype, cell.reduction, name):
                yield from (term.name for term in node if term.operation.droppable(term.stride))


class Builder:
    """Adds layers to a functional model; every method takes and returns symbolic tensors.

    Args:
        training: whether the network is to be trained: its layers then have faster gradients.
        seed: of initial weights and drop-path; None draws one.
        dtype: Keras dtype policy of the layers; None stands for the global one.
        initial: "torch" or "he", see `gdas_tf.networks.derived.build_network`.
    """

    def __init__(self, training: bool, seed: int | None, dtype: str | None, initial: str = "torch") -> None:
        self.dtype = dtype
        self.initial = initial
        self.seed = seed
        self.initializers = 0
        self.norm_layer = FusedBatchNormalization if training else layers.BatchNormalization
        self.conv_layer = TrainingConv2D if training else layers.Conv2D
        self.depthwise_layer = TrainingDepthwiseConv2D if training else layers.DepthwiseConv2D
        self.crop_layer = TrainingCropping2D if training else layers.Cropping2D
        self.factors: dict[str, Any] = {}  # of drop-path, by the name of the path that each is for

    # ---- single layers

    def initializer(self, fan_in: int, scale: float = 2.0) -> keras.initializers.Initializer:
        """Initial weights of a layer each of whose outputs has `fan_in` inputs.

        `scale` / `fan_in` is the variance of "he", where 2 is meant for inputs that passed a ReLU. (Keras'
        own initializers take another number for the inputs of a depthwise convolution.)
        """
        self.initializers += 1
        seed = None if self.seed is None else (self.seed + 1_000_003 * self.initializers) % (2**31 - 1)
        if self.initial == "torch":
            bound = 1 / math.sqrt(fan_in)
            return keras.initializers.RandomUniform(-bound, bound, seed=seed)
        return keras.initializers.RandomNormal(stddev=math.sqrt(scale / fan_in), seed=seed)

    def relu(self, x: Any, name: str) -> Any:
        return layers.ReLU(name=name, dtype=self.dtype)(x)

    def batch_norm(self, x: Any, name: str) -> Any:
        return self.norm_layer(**BATCH_NORM, name=name, dtype=self.dtype)(x)

    def conv(self, x: Any, channels: int, size: int | tuple[int, int], name: str, **options: Any) -> Any:
        options = {"padding": "same", "use_bias": False, **options}
        height, width = (size, size) if isinstance(size, int) else size
        initializer = self.initializer(height * width * x.shape[-1])
        return self.conv_layer(
            channels, size, kernel_initializer=initializer, name=name, dtype=self.dtype, **options
        )(x)

    def depthwise(self, x: Any, size: int, stride: int, dilation: int, name: str) -> Any:
        if dilation > 1 and stride > 1:
            # All pixels that a dilated kernel meets at stride 2 are such as it is centred on: the plain
            # convolution of those is the same, without computing what striding throws away.
            x, stride, dilation = self.every_second(self.centred(x, name), f"{name}_pixels"), 1, 1
        return self.depthwise_layer(
            size,
            strides=stride,
            dilation_rate=dilation,
            padding="same",
            use_bias=False,
            depthwise_initializer=self.initializer(size * size),
            name=name,
            dtype=self.dtype,
        )(x)

    def every_second(self, x: Any, name: str) -> Any:
        """x[:, ::2, ::2]"""
        return layers.AveragePooling2D(1, strides=2, name=name, dtype=self.dtype)(x)

    def centred(self, x: Any, name: str) -> Any:
        """x from the first pixel on that everything of stride 2 is centred on: every second one is, then."""
        return self.crop(x, first_centre(x.shape), f"{name}_crop")

    def crop(self, x: Any, first: tuple[int, int], name: str) -> Any:
        """x without its first rows and columns."""
        if not any(first):
            return x
        sides = tuple((count, 0) for count in first)
        return self.crop_layer(sides, name=name, dtype=self.dtype)(x)

    def average_pool(self, x: Any, size: int, stride: int, name: str) -> Any:
        return layers.AveragePooling2D(size, strides=stride, padding="same", name=name, dtype=self.dtype)(x)

    def max_pool(self, x: Any, size: int, stride: int, name: str) -> Any:
        return layers.MaxPooling2D(size, strides=stride, padding="same", name=name, dtype=self.dtype)(x)

    # ---- what cells are made of

    def relu_conv_bn(self, x: Any, channels: int, size: int, stride: int, name: str) -> Any:
        x = self.relu(x, f"{name}_relu")
        if size == 1 and stride > 1:
            x = self.centred(x, name)
        x = self.conv(x, channels, size, f"{name}_conv", strides=stride)
        return self.batch_norm(x, f"{name}_bn")

    def factorized_reduction(self, x: Any, channels: int, name: str) -> Any:
        """Halves height and width: half of the channels see the pixels that everything of stride 2 is centred
        on, half see those of the other rows and columns (of an odd number of rows, zeros after the last)."""
        x = self.relu(x, f"{name}_relu")
        first = self.conv(self.centred(x, name), channels // 2, 1, f"{name}_first", strides=2)
        odd = x.shape[1] % 2, x.shape[2] % 2
        if any(odd):
            beyond = tuple((0, count) for count in odd)
            x = layers.ZeroPadding2D(beyond, name=f"{name}_pad", dtype=self.dtype)(x)
        x = self.crop(x, odd, f"{name}_crop_second")
        second = self.conv(x, channels - channels // 2, 1, f"{name}_second", strides=2)
        x = layers.Concatenate(name=f"{name}_concat", dtype=self.dtype)([first, second])
        return self.batch_norm(x, f"{name}_bn")

    def separable(self, x: Any, size: int, stride: int, dilation: int, name: str) -> Any:
        x = self.relu(x, f"{name}_relu")
        x = self.depthwise(x, size, stride, dilation, f"{name}_depthwise")
        x = self.conv(x, x.shape[-1], 1, f"{name}_pointwise")
        return self.batch_norm(x, f"{name}_bn")

    def zeros(self, x: Any, stride: int, name: str) -> Any:
        if stride > 1:
            x = self.every_second(x, f"{name}_pixels")
        return layers.Rescaling(0.0, name=f"{name}_zeros", dtype=self.dtype)(x)

    def operation(self, x: Any, operation: Operation, stride: int, name: str) -> Any:
        """Adds the layers of an operation.

        Raises:
            UsageError: they fail, or give another shape than an edge must have.
        """
        try:
            y = operation.layers(self, x, stride, name)
        except UsageError:
            raise
        except Exception as error:  # Keras has no error of its own, and operations may be a user's
            raise UsageError(
                f"operation {operation.name}: its layers cannot be built on {tuple(x.shape)} at stride "
                f"{stride}: {' '.join(str(error).split()):.200}"
            ) from error
        wanted = (None, -(-x.shape[1] // stride), -(-x.shape[2] // stride), x.shape[3])
        if tuple(getattr(y, "shape", ())) != wanted:
            raise UsageError(
                f"operation {operation.name}: its layers make {tuple(getattr(y, 'shape', ()))} of "
                f"{tuple(x.shape)} at stride {stride}; they must make {wanted}"
            )
        return y

    def cell(
        self,
        name: str,
        genotype: Genotype,
        space: SearchSpace,
        before: Any,
        last: Any,
        plan: CellPlan,
        halved: bool,
    ) -> Any:
        """Adds a cell on the outputs of the two before it, or of the last one alone.

        Args:
            name: of the cell.
            genotype: the cells; it says how many inputs they have and what they give.
            space: says whether inputs are preprocessed, and what stands between two blocks.
            before, last: the outputs.
            plan: which cell it is.
            halved: whether `last` has half of the height and width of `before`.
        """
        if is_fixed(genotype, plan) and space.between == "residual":
            return self.residual_block(last, plan.filters, name)
        inputs = []
        if not space.preprocess:
            inputs.append(last)
        elif genotype.inputs > 1:
            if halved:
                inputs.append(self.factorized_reduction(before, plan.filters, f"{name}_input0"))
            else:
                inputs.append(self.relu_conv_bn(before, plan.filters, 1, 1, f"{name}_input0"))
        if space.preprocess:
            inputs.append(self.relu_conv_bn(last, plan.filters, 1, 1, f"{name}_input{len(inputs)}"))
        if is_fixed(genotype, plan):
            outputs = [
                self.path(self.fixed_branch(inputs[number], kind, path), path, f"{name}_drop{place}")
                for place, (path, kind, number) in enumerate(fixed_branches(genotype, name))
            ]
        else:
            nodes = self.nodes(searched_cell(genotype, plan.reduction, name), inputs, name)
            outputs = [nodes[number - len(inputs)] for number in genotype.given(plan.reduction)]
        if len(outputs) == 1:
            return outputs[0]
        return layers.Concatenate(name=f"{name}_output", dtype=self.dtype)(outputs)

    def nodes(self, nodes: Sequence[Sequence[Term]], inputs: Sequence[Any], name: str) -> list[Any]:
        """Adds the nodes of a searched cell, and returns their outputs."""
        states = list(inputs)
        for number, node in enumerate(nodes):
            terms = [
                self.path(
                    self.operation(states[term.source], term.operation, term.stride, term.name),
                    term.name,
                    f"{term.name}_drop",
                )
                for term in node
            ]
            if len(terms) > 1:
                terms = [layers.Add(name=f"{name}_node{number}", dtype=self.dtype)(terms)]
            states += terms
        return states[len(inputs) :]

    def residual_block(self, x: Any, channels: int, name: str) -> Any:
        """Adds the residual block of stride 2 of NAS-Bench-201, see
        `gdas_tf.supernet.reduction.ResidualBlock`."""
        y = self.relu_conv_bn(x, channels, 3, 2, f"{name}_first")
        y = self.relu_conv_bn(y, channels, 3, 1, f"{name}_second")
        pooled = self.average_pool(x, 2, 2, f"{name}_shortcut_pool")
        shortcut = self.conv(pooled, channels, 1, f"{name}_shortcut")
        return layers.Add(name=f"{name}_output", dtype=self.dtype)([y, shortcut])

    def fixed_branch(self, x: Any, kind: str, name: str) -> Any:
        """Adds a branch of the fixed reduction cell (figure 4 of the paper): "conv" or "max_pool".

        A convolution is ReLU, 1x3 and 3x1 of 8 groups (fewer where the channels can't be divided), batch
        norm, ReLU, 1x1, batch norm; a pooling is followed by a batch norm.
        """
        if kind == "max_pool":
            return self.batch_norm(self.max_pool(x, 3, 2, name), f"{name}_bn")
        groups = math.gcd(8, x.shape[-1])
        x = self.relu(x, f"{name}_relu0")
        x = self.grouped_conv(x, (1, 3), (1, 2), groups, f"{name}_1x3")
        x = self.grouped_conv(x, (3, 1), (2, 1), groups, f"{name}_3x1")
        x = self.batch_norm(x, f"{name}_bn0")
        return self.relu_conv_bn(x, x.shape[-1], 1, 1, name)

    def grouped_conv(
        self, x: Any, size: tuple[int, int], strides: tuple[int, int], groups: int, name: str
    ) -> Any:
        """A grouped convolution, as one convolution per group.

        Keras can only compute its own grouped convolution on a CPU through XLA, which neither trains well nor
        can be converted to ONNX or LiteRT.
        """
        parts = keras.ops.split(x, groups, axis=-1)
        parts = [
            self.conv(part, part.shape[-1], size, f"{name}_group{i}", strides=strides)
            for i, part in enumerate(parts)
        ]
        return layers.Concatenate(name=name, dtype=self.dtype)(parts) if groups > 1 else parts[0]

    # ---- what comes before and after the cells

    def standardize(self, x: Any, mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
        channels = x.shape[-1]
        mean = [0.0] * channels if mean is None else [float(value) for value in mean]
        variance = [1.0] * channels if std is None else [float(value) ** 2 for value in std]
        return layers.Normalization(mean=mean, variance=variance, name="standardize", dtype="float32")(x)

    def cifar_stem(self, x: Any, channels: int) -> tuple[Any, Any]:
        """Returns both inputs of the first cell."""
        x = self.batch_norm(self.conv(x, channels, 3, "stem_conv"), "stem_bn")
        return x, x

    def imagenet_stem(self, x: Any, channels: int) -> tuple[Any, Any]:
        """The stem of DARTS for ImageNet: a quarter and an eighth of the image's height and width."""
        x = self.batch_norm(self.conv(x, channels // 2, 3, "stem0_conv0", strides=2), "stem0_bn0")
        x = self.relu_conv_bn(x, channels, 3, 2, "stem0")
        return x, self.relu_conv_bn(x, channels, 3, 2, "stem1")

    def auxiliary_head(self, x: Any, classes: int) -> Any:
        """5x5 average pooling with stride 3, 1x1 convolution, 2x2 convolution, dense; for 8x8 features.

        The windows are cut to the features where those are smaller; of larger ones more than 1x1 is left,
        which is averaged.
        """
        x = self.relu(x, "auxiliary_relu")
        window = tuple(min(5, size) for size in x.shape[1:3])
        # Windows that do not fill the features lie at their end, as the padding of stride 2 does.
        left = tuple((size - side) % 3 for size, side in zip(x.shape[1:3], window, strict=True))
        x = self.crop(x, left, "auxiliary_crop")
        x = layers.AveragePooling2D(window, strides=3, name="auxiliary_window", dtype=self.dtype)(x)
        x = self.batch_norm(self.conv(x, 128, 1, "auxiliary_conv0"), "auxiliary_bn0")
        x = self.relu(x, "auxiliary_relu0")
        window = tuple(min(2, size) for size in x.shape[1:3])
        x = self.conv(x, 768, window, "auxiliary_conv1", padding="valid")
        x = self.relu(self.batch_norm(x, "auxiliary_bn1"), "auxiliary_relu1")
        return self.classify(x, classes, "auxiliary")

    def classify(self, x: Any, classes: int, name: str) -> Any:
        x = layers.GlobalAveragePooling2D(name=f"{name}_pool", dtype=self.dtype)(x)
        kernel = self.initializer(x.shape[-1], scale=1.0)
        bias = self.initializer(x.shape[-1]) if self.initial == "torch" else "zeros"
        return layers.Dense(
            classes, kernel_initializer=kernel, bias_initializer=bias, name=name, dtype="float32"
        )(x)

    # ---- drop-path

    def draw_factors(self, image: Any, paths: Sequence[str], rate: float) -> None:
        """Adds the layer that draws a factor for each of the paths named; `path` applies them."""
        if paths:
            seed = None if self.seed is None else (self.seed + 17) % (2**31 - 1)
            layer = DropPathFactors(len(paths), rate, seed, name="drop_path", dtype=self.dtype)
            self.factors = dict(zip(paths, layer(image), strict=True))

    def path(self, x: Any, path: str, name: str) -> Any:
        """Multiplies a path with its factor, if it has one, in a layer of the name."""
        factor = self.factors.pop(path, None)
        return x if factor is None else layers.Multiply(name=name, dtype=self.dtype)([x, factor])

    def check_factors(self) -> None:
        """Makes sure that every path for which a factor is drawn has been built."""
        if self.factors:
            raise AssertionError(f"drop-path: no path was built for the factors of {', '.join(self.factors)}")
