"""The supernet: the stacked network of searched cells that a search trains."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import check_settings, keras
from gdas_tf.numerics.primitives import relu
from gdas_tf.operations.base import Shape, Update
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.macro import Stem
from gdas_tf.supernet.cells import SearchedCell
from gdas_tf.supernet.layers import BatchNorm, SupernetLayer
from gdas_tf.supernet.paths import Choice, Mixture, Paths, Sampled
from gdas_tf.supernet.reduction import FixedReductionCell, ResidualBlock
from gdas_tf.supernet.stems import make_stem


def _each(given: Paths | Sequence[Paths] | None, make: Callable[[Paths], Any] = lambda p: p) -> Iterator[Any]:
    """What `make` makes of the paths of each cell of a kind: of those that all share, it is made once."""
    if isinstance(given, Paths):
        return itertools.repeat(make(given))
    return iter([make(paths) for paths in given or ()])


def _prepared(paths: Paths) -> Choice | Mixture:
    return Choice.of(paths) if isinstance(paths, Sampled) else paths


def _as_it_is(x: tf.Tensor) -> tf.Tensor:
    return x


@keras.saving.register_keras_serializable("gdas_tf")
class Supernet(SupernetLayer):
    """Images to logits through a stem, searched cells and a classifier (CVPR 2019, section 3.1).

    3x3 convolution to `space.stem` times C channels (3C) and batch norm, or the stem for large images; the
    cells of `space.stack`; batch norm, ReLU, global average pooling and a dense layer. All normal cells run
    one sample of the architecture and all reduction cells another, or every cell runs one of its own.

    Args:
        space: What the cells look like and how they are stacked.
        classes: Number of classes.
        channels: C, the channels of the first block.
        cells: N, normal cells a block.
        macro: Of the space, for example "paper" or "autodl", see `gdas_tf.spaces.macro.stack`.
        fixed_reduction: Use what `space.between` names, as the fixed reduction cell (FRC), instead of a
            searched reduction cell. A space without a reduction cell has no other.
        mean, variance: Per channel, of the training images; the network normalizes its input by them.
        momentum: Of the moving statistics of the batch norms.
        jit_compile: Compile each candidate operation with XLA.
        pool_norm: Whether the pooling candidates have a batch norm without scale and offset after them, as in
            DARTS and the authors' code of 2019; the paper, the seed study and AutoDL-2020 have none.
        stem: "cifar", or "imagenet", which reduces the image by 8 before the first cell, as that of derived
            networks does (`gdas_tf.supernet.stems`); `gdas_tf.spaces.macro.stem_of` says which one images
            take.

    Input: float32 [B, H, W, C] in [0, 1], all known, at least 8x8. Output: float32 [B, classes].

    Example:

    >>> supernet = Supernet(SearchSpace(), classes=10, channels=16, cells=2)
    >>> supernet.build((64, 32, 32, 3))
    >>> supernet.count_trainable()
    1931130
    """

    def __init__(
        self,
        space: SearchSpace,
        classes: int,
        channels: int = 16,
        cells: int = 2,
        macro: str = "paper",
        fixed_reduction: bool = False,
        mean: tuple[float, ...] | None = None,
        variance: tuple[float, ...] | None = None,
        momentum: float = 0.9,
        jit_compile: bool = False,
        pool_norm: bool = False,
        stem: Stem = "cifar",
        **kwargs: Any,
    ) -> None:
        check_settings()
        super().__init__(momentum, **kwargs)
        if classes < 2:
            raise UsageError(f"classes is {classes}; a classifier needs at least 2")
        self.space, self.classes, self.channels = space, classes, channels
        self.cells_per_block, self.macro = cells, macro
        self.jit_compile, self.pool_norm = jit_compile, pool_norm
        self.fixed_reduction = fixed_reduction or not space.reduction
        self.mean, self.variance = mean, variance
        self.stem_name = stem
        self.stem = make_stem(stem, space, channels, momentum)
        self.cells = []
        for i, plan in enumerate(space.stack(channels, cells, macro)):
            reduce_first = plan.after_reduction or (i == 0 and stem == "imagenet")
            shared = {"reduce_first": reduce_first, "momentum": momentum, "name": f"cell_{i}"}
            options = {"jit_compile": jit_compile, "pool_norm": pool_norm}
            if plan.reduction and self.fixed_reduction and space.between == "residual":
                self.cells.append(ResidualBlock(plan.filters, momentum, name=shared["name"]))
            elif plan.reduction and self.fixed_reduction:
                self.cells.append(FixedReductionCell(plan.filters, space.inputs, **shared))
            else:
                self.cells.append(SearchedCell(space, plan.filters, plan.reduction, **options, **shared))
        self.head_norm = BatchNorm(affine=True, momentum=momentum, name="head_norm")
        self.dense = keras.layers.Dense(classes, dtype="float32", name="classifier")

    def build(self, input_shape: Shape) -> None:
        batch, height, width, _ = input_shape
        if None in input_shape or min(height, width) < 8:
            raise UsageError(
                f"images of shape {input_shape} cannot be searched on; batch, height, width and channels "
                f"must be known, height and width at least 8 pixels"
            )
        self.stem.build(input_shape)
        inputs = self.space.inputs
        outputs = self.stem.compute_output_shape(input_shape)
        shapes = [outputs[0], outputs[-1]]
        for cell in self.cells:
            with tf.name_scope(cell.name):
                cell.build(tuple(shapes[-inputs:]))
            shapes.append(cell.compute_output_shape(tuple(shapes[-inputs:])))
        self.head_norm.build(shapes[-1])
        self.dense.build((batch, shapes[-1][-1]))

    def call(
        self,
        inputs: tf.Tensor,
        normal: Paths | Sequence[Paths],
        reduction: Paths | Sequence[Paths] | None = None,
        update: Update | None = None,
    ) -> tf.Tensor:
        """Logits [B, classes] of images, by the operations that the paths name.

        Args:
            inputs: [B, H, W, C] in [0, 1].
            normal, reduction: What runs in the two kinds of cells, sampled operations or a mixture of all:
                one for all cells of the kind, or a list of one for each. `reduction` is None with the fixed
                cell.
            update: Which gradient the pass must support, None in inference.
        """
        x = inputs
        if self.mean is not None:
            x = (x - np.float32(self.mean)) / np.sqrt(np.float32(self.variance))
        x = tf.cast(x, self.compute_dtype)
        # What two cells read goes through the ReLU before both only once; what a residual block reads, and a
        # cell without preprocessing, goes through none.
        enter = relu if self.space.preprocess else _as_it_is
        outputs = self.stem(x, update=update)
        entering = [enter(x) for x in outputs]
        output, states = outputs[-1], [entering[0], entering[-1]]
        choices = {False: _each(normal, _prepared), True: _each(reduction, _prepared)}
        for cell in self.cells:
            arguments = (next(choices[cell.reduction]),) if isinstance(cell, SearchedCell) else ()
            taken = (output,) if isinstance(cell, ResidualBlock) else tuple(states[-self.space.inputs :])
            output = cell(taken, *arguments, update=update)
            states.append(enter(output))
        x = relu(self.head_norm(output, update=update))
        return self.dense(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2]))

    def weight_masks(
        self, normal: Paths | Sequence[Paths], reduction: Paths | Sequence[Paths] | None
    ) -> list[tf.Tensor | None]:
        """Which weights ran: for each of `trainable_variables` a bool tensor of its shape, or None for one
        of which all did. Paths as of `call`."""
        given = {False: _each(normal), True: _each(reduction)}
        masks = {
            variable.path: mask
            for cell in self.cells
            if isinstance(cell, SearchedCell)
            if isinstance(paths := next(given[cell.reduction]), Sampled)
            for variable, mask in cell.weight_masks(paths.index)
        }
        return [masks.get(variable.path) for variable in self.trainable_variables]

    def searched_cells(self, reduction: bool) -> int:
        """Number of searched cells of a kind."""
        return sum(isinstance(cell, SearchedCell) and cell.reduction == reduction for cell in self.cells)

    def count_trainable(self) -> int:
        """Number of weights that are trained, the architecture not among them."""
        return sum(int(tf.size(weight.value)) for weight in self.trainable_weights)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.classes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "space": self.space.to_json(),
            "classes": self.classes,
            "channels": self.channels,
            "cells": self.cells_per_block,
            "macro": self.macro,
            "fixed_reduction": self.fixed_reduction,
            "mean": self.mean,
            "variance": self.variance,
            "jit_compile": self.jit_compile,
            "pool_norm": self.pool_norm,
            "stem": self.stem_name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Supernet:
        config = dict(config)
        return cls(SearchSpace.from_json(config.pop("space")), **config)
