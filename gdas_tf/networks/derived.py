"""Genotype -> network: the searched cells, stacked, as a plain functional `keras.Model`.

The network that is deployed consists of standard Keras layers only, so that its `.keras` file loads anywhere
without this package. The one that is trained has the same weights in the same layers; it adds drop-path and
an auxiliary head, gives logits instead of probabilities, and normalises with one fused kernel.

Conventions (those of DARTS and GDAS; by default the numbers of weights are those that were published, to the
last one: 3,349,342 of DARTS_V2, 2,543,014 of GDAS (FRC)):
- a cell's inputs go through ReLU, 1x1 convolution, batch norm; c_{k-2} through a factorized reduction where
  the cell before was a reduction cell;
- batch norm has scale and offset, epsilon 1e-5 and keeps 0.9 of its moving statistics per step;
- convolutions have no bias; padding is SAME; the padding is left out of average pooling;
- everything of stride 2 is centred on the same pixels, as in the search (`gdas_tf.numerics.primitives`):
  at odd rows of an even number of rows, at even rows of an odd one, and the same for columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import check_settings, keras
from gdas_tf.networks.fast_layers import (
    DropPath,
    FusedBatchNormalization,
    TrainingCropping2D,
    TrainingDepthwiseConv2D,
)
from gdas_tf.numerics.primitives import first_centre
from gdas_tf.spaces.genotype import Edge, Genotype
from gdas_tf.spaces.macro import CellPlan, stack

layers = keras.layers

BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}
STEMS = ("auto", "cifar", "imagenet")
INITIALIZERS = ("torch", "he")
SMALLEST_IMAGE = 8


def build_network(
    genotype: Genotype,
    image_shape: Sequence[int],
    classes: int,
    *,
    channels: int = 36,
    cells: int = 6,
    macro: str = "paper",
    stem: str = "auto",
    head_norm: bool = False,
    initializer: str = "torch",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    drop_path: float = 0.0,
    auxiliary: bool = False,
    training: bool | None = None,
    seed: int | None = None,
    dtype: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Builds the network of a genotype (Dong & Yang, CVPR 2019, figure 3).

    Stem; N normal cells, reduction cell, N normal, reduction, N normal, with C, 2C and 4C channels; global
    average pooling, dense.

    Args:
        genotype: the cells. Without a reduction cell in it, the fixed reduction cell of the paper is used.
        image_shape: (height, width, channels) of an image; 8x8 pixels or more, not necessarily square.
        classes: number of classes.
        channels: C, channels of the first block.
        cells: N, normal cells per block.
        macro: "paper", or "autodl" with N - 1 normal cells in the second and third block.
        stem: "cifar" is one 3x3 convolution; "imagenet" reduces the image by 8 before the first cell; "auto"
            takes the latter for images of more than 64x64 pixels.
        head_norm: whether batch norm and ReLU stand before the global pooling, as in AutoDL-Projects (2020).
            The networks of the papers of DARTS and GDAS have neither.
        initializer: of the weights before training. "torch" is PyTorch's, which every published result was
            made with: uniform in +-1 / sqrt(fan in), the bias of the dense layer too. "he" is normal with
            variance 2 / fan in (He et al., ICCV 2015), 1 / fan in and a bias of 0 in the dense layer.
        mean, std: of the training images, which are in [0, 1], one per channel; part of the network.
        drop_path: probability with which a training network drops each operation of a cell but the identity.
        auxiliary: whether to add the auxiliary head to a training network.
        training: whether to build the network to train; by default with `auxiliary` or `drop_path`.
        seed: of initial weights and drop-path; None draws one.
        dtype: Keras dtype policy, as "mixed_bfloat16"; None stands for the global one. Outputs are float32.
        name: of the model.

    Returns:
        A functional model of `image`, float32 [B, H, W, channels] in [0, 1]. The deployed network returns
        `probabilities`, float32 [B, classes]; a training network a dictionary of "logits" and, with the
        auxiliary head, "auxiliary", both float32 [B, classes].

    Raises:
        UsageError: an argument is out of range.

    Example:
        >>> model = build_network(GENOTYPES["GDAS_V1"], (32, 32, 3), 10)
        >>> count_parameters(model)
        3368782
    """
    check_settings()
    _check(image_shape, classes, channels, stem, initializer)
    plan = stack(channels, cells, macro)
    if training is None:
        training = auxiliary or drop_path > 0
    builder = _Builder(training=training, seed=seed, dtype=dtype, initial=initializer)
    image = keras.Input(image_shape, name="image", dtype="float32")
    if drop_path:
        builder.draw_paths(image, genotype, plan, drop_path)

    x = builder.standardize(image, mean, std)
    wide = stem == "imagenet" or (stem == "auto" and image_shape[0] * image_shape[1] > 64 * 64)
    before, last = builder.imagenet_stem(x, channels) if wide else builder.cifar_stem(x, channels)
    outputs = {}
    for number, cell in enumerate(plan):
        halved = cell.after_reduction or (wide and number == 0)
        before, last = last, builder.cell(f"cell{number}", genotype, before, last, cell, halved)
        if auxiliary and cell.reduction and cell.filters == 4 * channels:
            outputs["auxiliary"] = builder.auxiliary_head(last, classes)

    if head_norm:
        last = builder.relu(builder.batch_norm(last, "head_bn"), "head_relu")
    logits = builder.classify(last, classes, "logits")
    if training:
        return keras.Model(image, {"logits": logits, **outputs}, name=name or "training_network")
    probabilities = layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(image, probabilities, name=name or "network")


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of a training network into the deployed one of the same genotype and options."""
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


def count_parameters(model: keras.Model) -> int:
    """Returns the number of trainable parameters, batch norm's scales and offsets included."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _check(image_shape: Sequence[int], classes: int, channels: int, stem: str, initializer: str) -> None:
    if len(image_shape) != 3 or min(image_shape[:2]) < SMALLEST_IMAGE or image_shape[2] < 1:
        raise UsageError(
            f"image shape: found {tuple(image_shape)}; it must be (height, width, channels) "
            f"with {SMALLEST_IMAGE}x{SMALLEST_IMAGE} pixels or more (data.image_size resizes images)"
        )
    for value, what in ((classes, "classes"), (channels, "channels")):
        if value < 2:
            raise UsageError(f"{what}: found {value}; at least 2 are needed")
    for value, what, accepted in ((stem, "stem", STEMS), (initializer, "initializer", INITIALIZERS)):
        if value not in accepted:
            raise UsageError(f"{what}: found {value!r}; accepted: {', '.join(accepted)}")


class _Builder:
    """Adds layers to a functional model; every method takes and returns symbolic tensors."""

    def __init__(self, training: bool, seed: int | None, dtype: str | None, initial: str = "torch") -> None:
        self.dtype = dtype
        self.initial = initial
        self.seed = seed
        self.initializers = 0
        self.norm_layer = FusedBatchNormalization if training else layers.BatchNormalization
        self.depthwise_layer = TrainingDepthwiseConv2D if training else layers.DepthwiseConv2D
        self.crop_layer = TrainingCropping2D if training else layers.Cropping2D
        self.paths = iter(())  # factors of drop-path, one for each operation that may be dropped

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
        return layers.Conv2D(
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

    def pool(self, x: Any, kind: type[layers.Layer], stride: int, name: str) -> Any:
        return kind(3, strides=stride, padding="same", name=name, dtype=self.dtype)(x)

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

    def operation(self, x: Any, operation: str, stride: int, name: str) -> Any:
        """Applies an operation of an edge; a path that may be dropped is multiplied with its factor."""
        if operation == "skip_connect" and stride == 1:
            return x
        x = _OPERATIONS[operation](self, x, stride, name)
        if operation != "none" and (factor := next(self.paths, None)) is not None:
            x = layers.Multiply(name=f"{name}_drop", dtype=self.dtype)([x, factor])
        return x

    def zeros(self, x: Any, stride: int, name: str) -> Any:
        if stride > 1:
            x = self.every_second(x, f"{name}_pixels")
        return layers.Rescaling(0.0, name=f"{name}_zeros", dtype=self.dtype)(x)

    def cell(
        self,
        name: str,
        genotype: Genotype,
        before: Any,
        last: Any,
        plan: CellPlan,
        halved: bool,
    ) -> Any:
        """Adds a cell on the outputs of the two before; `halved`: the last is half the size of the other."""
        channels, reduction, _ = plan
        if halved:
            before = self.factorized_reduction(before, channels, f"{name}_input0")
        else:
            before = self.relu_conv_bn(before, channels, 1, 1, f"{name}_input0")
        last = self.relu_conv_bn(last, channels, 1, 1, f"{name}_input1")
        if reduction and genotype.reduction is None:
            outputs = self.fixed_reduction(before, last, name)
        else:
            nodes = genotype.reduction if reduction else genotype.normal
            outputs = self.searched(nodes, before, last, reduction, name)
        if len(outputs) == 1:
            return outputs[0]
        return layers.Concatenate(name=f"{name}_output", dtype=self.dtype)(outputs)

    def searched(
        self, nodes: Sequence[Sequence[Edge]], before: Any, last: Any, reduction: bool, name: str
    ) -> list[Any]:
        states = [before, last]
        for i, edges in enumerate(nodes):
            terms = []
            # `none` contributes nothing; but a node needs one term.
            kept = [(j, edge) for j, edge in enumerate(edges) if edge.operation != "none"] or [(0, edges[0])]
            for j, edge in kept:
                stride = 2 if reduction and edge.input < 2 else 1
                label = f"{name}_node{i}_edge{j}_{edge.operation}"
                terms.append(self.operation(states[edge.input], edge.operation, stride, label))
            if len(terms) > 1:
                terms = [layers.Add(name=f"{name}_node{i}", dtype=self.dtype)(terms)]
            states += terms
        return states[2:]

    def fixed_reduction(self, before: Any, last: Any, name: str) -> list[Any]:
        """The fixed reduction cell (FRC) of Dong & Yang (CVPR 2019): two branches of each input."""
        outputs = [
            operation(self, x, 2, f"{name}_{label}{i}")
            for label, operation in (("conv", _fixed_convolution), ("max_pool", _fixed_pooling))
            for i, x in enumerate((before, last))
        ]
        return [
            x if factor is None else layers.Multiply(name=f"{name}_drop{i}", dtype=self.dtype)([x, factor])
            for i, x in enumerate(outputs)
            for factor in [next(self.paths, None)]
        ]

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
        x = self.batch_norm(self.conv(x, 3 * channels, 3, "stem_conv"), "stem_bn")
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

    def draw_paths(self, image: Any, genotype: Genotype, plan: Sequence[CellPlan], rate: float) -> None:
        paths = 0
        for _, reduction, _ in plan:
            if reduction and genotype.reduction is None:
                paths += 4
                continue
            for node in genotype.reduction if reduction else genotype.normal:
                for edge in node:
                    identity = edge.operation == "skip_connect" and not (reduction and edge.input < 2)
                    paths += not identity and edge.operation != "none"
        if paths:
            seed = None if self.seed is None else (self.seed + 17) % (2**31 - 1)
            self.paths = iter(DropPath(paths, rate, seed, name="drop_path", dtype=self.dtype)(image))


def _separable_twice(size: int) -> Callable[[_Builder, Any, int, str], Any]:
    def apply(builder: _Builder, x: Any, stride: int, name: str) -> Any:
        x = builder.separable(x, size, stride, 1, f"{name}_0")
        return builder.separable(x, size, 1, 1, f"{name}_1")

    return apply


def _dilated(size: int) -> Callable[[_Builder, Any, int, str], Any]:
    return lambda builder, x, stride, name: builder.separable(x, size, stride, 2, name)


def _pool(kind: type[layers.Layer]) -> Callable[[_Builder, Any, int, str], Any]:
    return lambda builder, x, stride, name: builder.pool(x, kind, stride, name)


def _convolution(size: int) -> Callable[[_Builder, Any, int, str], Any]:
    return lambda builder, x, stride, name: builder.relu_conv_bn(x, x.shape[-1], size, stride, name)


# Identity is left to the builder: at stride 1 `skip_connect` adds no layer.
_OPERATIONS: dict[str, Callable[[_Builder, Any, int, str], Any]] = {
    "none": lambda builder, x, stride, name: builder.zeros(x, stride, name),
    "skip_connect": lambda builder, x, stride, name: builder.factorized_reduction(x, x.shape[-1], name),
    "sep_conv_3x3": _separable_twice(3),
    "sep_conv_5x5": _separable_twice(5),
    "sep_conv_7x7": _separable_twice(7),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
    "dil_conv_7x7": _dilated(7),
    "avg_pool_3x3": _pool(layers.AveragePooling2D),
    "max_pool_3x3": _pool(layers.MaxPooling2D),
    "conv_1x1": _convolution(1),
    "conv_3x3": _convolution(3),
}


def _fixed_convolution(builder: _Builder, x: Any, stride: int, name: str) -> Any:
    """ReLU, 1x3 and 3x1 of 8 groups (fewer where the channels can't be divided), BN, ReLU, 1x1, BN."""
    groups = math.gcd(8, x.shape[-1])
    x = builder.relu(x, f"{name}_relu0")
    x = builder.grouped_conv(x, (1, 3), (1, stride), groups, f"{name}_1x3")
    x = builder.grouped_conv(x, (3, 1), (stride, 1), groups, f"{name}_3x1")
    x = builder.batch_norm(x, f"{name}_bn0")
    return builder.relu_conv_bn(x, x.shape[-1], 1, 1, name)


def _fixed_pooling(builder: _Builder, x: Any, stride: int, name: str) -> Any:
    return builder.batch_norm(builder.pool(x, layers.MaxPooling2D, stride, name), f"{name}_bn")
