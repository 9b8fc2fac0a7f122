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
from collections.abc import Sequence

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import check_settings, keras
from gdas_tf.networks.builder import Builder, droppable_paths
from gdas_tf.spaces.base import SPACES, SearchSpace
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.spaces.macro import stem_of

layers = keras.layers

INITIALIZERS = ("torch", "he")
SMALLEST_IMAGE = 8


def build_network(
    genotype: Genotype,
    image_shape: Sequence[int],
    classes: int,
    *,
    space: SearchSpace | None = None,
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

    In the space of DARTS: stem; N normal cells, reduction cell, N normal, reduction, N normal, with C, 2C and
    4C channels; global average pooling, dense.

    Args:
        genotype: the cells. Without a reduction cell in it, what `space.between` names is used: the fixed
            reduction cell of the paper, or a residual block.
        image_shape: (height, width, channels) of an image; 8x8 pixels or more, not necessarily square.
        classes: number of classes.
        space: the search space of the cells, which says how they are stacked to a network; None stands for
            the registered one that the genotype names, or else for "darts".
        channels: C, channels of the first block.
        cells: N, normal cells per block.
        macro: "paper", or "autodl" with N - 1 normal cells in the second and third block.
        stem: "cifar" is one 3x3 convolution; "imagenet" reduces the image by 8 before the first cell; "auto"
            takes the latter for images of more than 64x64 pixels.
        head_norm: whether batch norm and ReLU stand before the global pooling, as in AutoDL-Projects (2020).
            The networks of the papers of DARTS and GDAS have neither; those of a space whose `head_norm` is
            set always have both.
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
    _check(image_shape, classes, channels, initializer)
    wide = stem_of(stem, *image_shape[:2]) == "imagenet"
    space = space_of(genotype) if space is None else space
    _check_space(genotype, space)
    plan = space.stack(channels, cells, macro)
    if training is None:
        training = auxiliary or drop_path > 0
    builder = Builder(training=training, seed=seed, dtype=dtype, initial=initializer)
    image = keras.Input(image_shape, name="image", dtype="float32")
    if drop_path:
        builder.draw_factors(image, list(droppable_paths(genotype, plan, space)), drop_path)

    x = builder.standardize(image, mean, std)
    stem_layers = builder.imagenet_stem if wide else builder.cifar_stem
    before, last = stem_layers(x, channels if wide else space.stem * channels)
    outputs = {}
    for number, cell in enumerate(plan):
        halved = cell.after_reduction or (wide and number == 0)
        before, last = last, builder.cell(f"cell{number}", genotype, space, before, last, cell, halved)
        if auxiliary and cell.reduction and cell.filters == 4 * channels:
            outputs["auxiliary"] = builder.auxiliary_head(last, classes)
    builder.check_factors()

    if head_norm or space.head_norm:
        last = builder.relu(builder.batch_norm(last, "head_bn"), "head_relu")
    logits = builder.classify(last, classes, "logits")
    if training:
        return keras.Model(image, {"logits": logits, **outputs}, name=name or "training_network")
    probabilities = layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(image, probabilities, name=name or "network")


def space_of(genotype: Genotype) -> SearchSpace:
    """Returns the registered space that a genotype names, "darts" where it names none.

    Raises:
        UsageError: no space of that name is registered.
    """
    return SPACES.get(genotype.space or "darts")


def count_parameters(model: keras.Model) -> int:
    """Returns the number of trainable parameters, batch norm's scales and offsets included."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _check_space(genotype: Genotype, space: SearchSpace) -> None:
    """Makes sure that cells fit the network of a space that takes a cell's input as it is."""
    if space.preprocess:
        return
    found = (genotype.inputs, genotype.output, genotype.reduction is None)
    if found != (1, "last", True):
        raise UsageError(
            f"genotype: it has {genotype.inputs} inputs a cell, the output {genotype.output} and "
            f"{'no' if found[2] else 'a'} reduction cell; those of the search space {space.name} "
            "(search.space) have 1 input, the output last and no reduction cell; set search.space to the "
            "space of the genotype"
        )


def _check(image_shape: Sequence[int], classes: int, channels: int, initializer: str) -> None:
    if len(image_shape) != 3 or min(image_shape[:2]) < SMALLEST_IMAGE or image_shape[2] < 1:
        raise UsageError(
            f"image shape: found {tuple(image_shape)}; it must be (height, width, channels) "
            f"with {SMALLEST_IMAGE}x{SMALLEST_IMAGE} pixels or more (data.image_size resizes images)"
        )
    for value, what in ((classes, "classes"), (channels, "channels")):
        if value < 2:
            raise UsageError(f"{what}: found {value}; at least 2 are needed")
    if initializer not in INITIALIZERS:
        raise UsageError(f"initializer: found {initializer!r}; accepted: {', '.join(INITIALIZERS)}")
