"""Labelled images by name, and the batches that search, retraining and evaluation take.

Example:
    >>> data = load_dataset("digits")
    >>> data.image_shape, data.classes, len(data.train)
    ((8, 8, 1), 10, 1437)
    >>> batches = train_batches(data.train, 64, seed=0, augmentation=Augmentation(), first_step=0, steps=22)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.data.balance import balanced_order
from gdas_tf.data.division import hold_out, some, stratified
from gdas_tf.data.identity import DataIdentity, Draw, images_digest
from gdas_tf.data.mixup import mix
from gdas_tf.data.seeds import generator, key
from gdas_tf.data.sources.opening import open_source
from gdas_tf.data.split import Split
from gdas_tf.data.store import read_source
from gdas_tf.data.stored_images import StoredImages, chunks
from gdas_tf.data.wording import by
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

    from gdas_tf.data.augmentation import Augmentation
    from gdas_tf.numerics.losses import MixedLabels

MIN_IMAGE_SIZE = 8
"""Height and width of the smallest images, in pixels: the networks halve them twice."""

_MIN_DEVIATION = 1 / 255  # one grey level; a channel that is the same everywhere is not blown up


@dataclass(frozen=True, eq=False)
class DataSet:
    """A labelled image data set.

    Args:
        name: name to show.
        class_names: a name per label.
        train: training images; the search divides them into D_T and D_V.
        test: held-out images, for the evaluation only.
        mean: mean of the training images per channel, for images in [0, 1].
        std: their standard deviation per channel, at least 1/255.
        draw: how the test images were drawn from all images; None if the set has test images of its own.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    draw: Draw | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        return tuple(self.train.images.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def identity(self) -> DataIdentity:
        """What tells this data set, divided as it is, from others."""
        parts = []
        for split in (self.train, self.test):
            parts += [len(split), images_digest(split.hashes, split.labels)]
        return DataIdentity(self.name, self.class_names, self.image_shape, *parts, self.draw)


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    image_channels: int | None = None,
    test_fraction: float = 0.2,
    train_images: int | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
) -> DataSet:
    """Loads a data set.

    A set without test images has a part of its training images, stratified by class, held out as such.

    Args:
        name: `digits` (embedded), the path of a folder with one subfolder of images per class (perhaps below
            `train` and `test`), the path of an .npz file, or the name of an image-classification set in TFDS,
            as `cifar10`.
        data_dir: folder of prepared TFDS sets; what lies there is used without any network.
        image_size: pixels to resize images to, the side of a square or (height, width); needed if they
            differ in size.
        image_channels: 1 reads images as grey, 3 as colour; None keeps what they are.
        test_fraction: part to hold out if the set has no test images.
        train_images: number of training images to take, at most: the same share of each class; None takes
            all. The others are not looked at.
        seed: decides which images are held out, and which are taken.
        cache_dir: where images that need more than 4 GiB are kept decoded; by default
            `$XDG_CACHE_HOME/gdas-tf`.

    Raises:
        UsageError: there is no such set, or it is damaged or unfit; the line says what to do.
        RunError: the set cannot be downloaded, or the cache cannot be written.

    Example:
        >>> load_dataset("cifar10", data_dir="~/tensorflow_datasets").train.images.shape
        (50000, 32, 32, 3)
    """
    if not 0 < test_fraction < 1:
        raise UsageError(f"test_fraction: found {test_fraction}; it must lie between 0 and 1")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    source = open_source(str(name), data_dir, size, image_channels)
    if min(source.image_shape[:2]) < MIN_IMAGE_SIZE:
        raise UsageError(
            f"data {name}: its images are {by(source.image_shape[:2])} pixels; at least "
            f"{MIN_IMAGE_SIZE}x{MIN_IMAGE_SIZE} are needed; enlarge them by data.image_size"
        )
    held_out = None
    if source.test is None:
        held_out = hold_out(source.train.labels(), test_fraction, seed)
        if not held_out.any():
            raise UsageError(
                f"data {name}: {test_fraction:g} of {source.train.count} images is not one test image; "
                "raise data.test_fraction"
            )
    train, test = (Split(*arrays) for arrays in read_source(source, held_out, cache_dir))
    for part in (train, test):
        wrong = np.flatnonzero((part.labels < 0) | (part.labels >= len(source.class_names)))
        if wrong.size:
            raise UsageError(
                f"data {name}: found the label {part.labels[wrong[0]]}; the {len(source.class_names)} "
                f"classes have the labels 0 … {len(source.class_names) - 1}"
            )
    if train_images is not None and train_images < len(train):
        train = train.take(some(train.labels, train_images, source.class_names, seed))
    mean, std = _statistics(train.images)
    draw = Draw(seed, test_fraction) if source.test is None else None
    return DataSet(source.name, source.class_names, train, test, mean, std, draw)


def search_halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides training images into D_T, which trains weights, and D_V, which trains the architecture.

    They are disjoint and together all images; each class is divided in halves, of which one may have one
    image more, and so are the images in all.

    Args:
        labels: int [n].
        seed: seed of the run.

    Returns:
        Positions in D_T and in D_V, int32, ascending.

    Raises:
        UsageError: there are fewer than two images.
    """
    if len(labels) < 2:
        raise UsageError(f"found {len(labels)} training images; a search needs at least two")
    in_second = stratified(labels, 0.5, generator(seed, "halves"))
    return tuple(np.flatnonzero(half).astype(np.int32) for half in (~in_second, in_second))


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Returns the number of batches in a pass over `examples` images.

    All batches of a training are full. The images that are left over are not used in that pass; in each pass
    they are other ones. When there are fewer images than `batch_size`, there is one batch of all images.
    """
    return examples // min(batch_size, examples)


def search_batches(
    data: DataSet,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    first_step: int,
    steps: int,
    balanced: bool = False,
) -> tf.data.Dataset:
    """Returns the batches of a search: one of D_T and one of D_V for every step.

    Batch number s depends on the seed and s alone. An epoch is `steps_per_epoch` of the smaller half; in it,
    no image is seen twice, unless classes are balanced.

    Args:
        data: the data set; its training images are divided by `search_halves`.
        batch_size: images of each half in a batch; if the smaller half has fewer, as many as it has.
        seed: seed of the run.
        augmentation: changes to the images of both halves.
        first_step: number of the first batch, as when a run is resumed.
        steps: number of batches.
        balanced: whether batches of both halves draw every class equally often (`balanced_order`).

    Returns:
        `((x_T, y_T), (x_V, y_V))`: x float32 [B, H, W, C] in [0, 1], y int32 [B].

    Raises:
        UsageError: the augmentation does not fit the images.
    """
    import tensorflow as tf

    augmentation.check(data.image_shape)
    halves = search_halves(data.train.labels, seed)
    smaller = min(map(len, halves))
    batch_size = min(batch_size, smaller)
    batches = [
        _batches(
            data.train, half, batch_size, smaller, (seed, name), augmentation, first_step, steps, balanced
        )
        for half, name in zip(halves, ("D_T", "D_V"), strict=True)
    ]
    return tf.data.Dataset.zip(tuple(batches)).prefetch(tf.data.AUTOTUNE)


def train_batches(
    split: Split,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    first_step: int,
    steps: int,
    positions: np.ndarray | None = None,
    mixup: float = 0.0,
    balanced: bool = False,
) -> tf.data.Dataset:
    """Returns the batches of a training on all images of a split, or on some of them.

    Batch number s depends on the seed and s alone. In an epoch, `steps_per_epoch` batches, no image is seen
    twice, unless classes are balanced.

    Args:
        split: training images.
        batch_size: images in a batch; if there are fewer, all of them.
        seed: seed of the run.
        augmentation: changes to the images.
        first_step: number of the first batch, as when a run is resumed.
        steps: number of batches.
        positions: the images to train on, int32 [n], ascending; None for all.
        mixup: alpha of `gdas_tf.data.mixup`; 0 mixes nothing.
        balanced: whether batches draw every class equally often (`balanced_order`).

    Returns:
        `(x, y)`: x float32 [B, H, W, C] in [0, 1], y int32 [B], or `MixedLabels` with mixup.

    Raises:
        UsageError: the augmentation does not fit the images.
    """
    import tensorflow as tf

    augmentation.check(split.images.shape[1:])
    if positions is None:
        positions = np.arange(len(split), dtype=np.int32)
    count = len(positions)
    batch_size = min(batch_size, count)
    batches = _batches(
        split,
        positions,
        batch_size,
        count,
        (seed, "retrain"),
        augmentation,
        first_step,
        steps,
        balanced,
        mixup,
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def eval_batches(split: Split, batch_size: int, positions: np.ndarray | None = None) -> tf.data.Dataset:
    """Returns all images of a split once, in order and unchanged; the last batch may be smaller.

    Args:
        split: the images.
        batch_size: images in a batch.
        positions: the images to take, int32 [n]; None for all.

    Returns:
        `(x, y)`: x float32 [b, H, W, C] in [0, 1], y int32 [b], b at most `batch_size`.
    """
    import tensorflow as tf

    from gdas_tf.data.augmentation import to_float

    gather = split.gather

    def batch(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = gather(positions)
        return to_float(images), labels

    return (
        (
            tf.data.Dataset.range(len(split), output_type=tf.int32)
            if positions is None
            else tf.data.Dataset.from_tensor_slices(positions.astype(np.int32))
        )
        .batch(batch_size)
        .map(_as_written(batch), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep AutoGraph, which takes half a second, from rewriting a function without control flow."""
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def _batches(
    split: Split,
    positions: np.ndarray,
    batch_size: int,
    examples: int,
    stream: tuple[int, str],
    augmentation: Augmentation,
    first_step: int,
    steps: int,
    balanced: bool,
    mixup: float = 0.0,
) -> tf.data.Dataset:
    """Returns augmented batches of some images of a split.

    Args:
        split: all images.
        positions: those to draw from, int32 [n].
        batch_size: images per batch.
        examples: images per epoch, at most n.
        stream: seed and name of the stream of random numbers.
        augmentation: changes to the images.
        first_step, steps: number of the first batch, and how many.
        balanced: whether every class is drawn equally often.
        mixup: alpha of mixup; 0 mixes nothing.
    """
    import tensorflow as tf

    in_epoch = steps_per_epoch(examples, batch_size)
    augmentation_key = key(*stream, "augmentation")
    mixup_key = key(*stream, "mixup")
    gather = split.gather
    order = (balanced_order if balanced else _shuffled_order)(split.labels, positions, stream)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        shuffled = order(number)
        batches = tf.reshape(shuffled[: in_epoch * batch_size], [in_epoch, batch_size])
        return tf.data.Dataset.from_tensor_slices(batches)

    def batch(step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | MixedLabels]:
        images, labels = gather(chosen)
        images = augmentation(images, [augmentation_key, step])
        return mix(images, labels, mixup, [mixup_key, step]) if mixup else (images, labels)

    chosen = (
        tf.data.Dataset.range(first_step // in_epoch, np.iinfo(np.int64).max)
        .flat_map(_as_written(epoch))
        .skip(first_step % in_epoch)
    )
    numbers = tf.data.Dataset.range(first_step, first_step + steps)
    batches = tf.data.Dataset.zip((numbers, chosen)).map(
        _as_written(batch), num_parallel_calls=tf.data.AUTOTUNE
    )
    return batches.apply(tf.data.experimental.assert_cardinality(steps))


def _shuffled_order(
    labels: np.ndarray, positions: np.ndarray, stream: tuple[int, str]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the order of plain epochs, with the arguments of `balanced_order`: every position once."""
    import tensorflow as tf

    # `stateless_shuffle` sorts by random keys. `index_shuffle` would give single positions without the rest,
    # but its permutations are poor: of 25,000 images, those of successive epochs correlate by 0.35.
    order_key = key(*stream, "order")
    with tf.device("CPU:0"):
        chosen = tf.constant(positions)
    return lambda epoch: tf.random.experimental.stateless_shuffle(chosen, [order_key, epoch])


def _statistics(images: np.ndarray | StoredImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel of images in [0, 1].

    They come from counts of the 256 pixel values, and so are exact and the same on every machine.
    """
    channels = images.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for chunk in chunks(images):
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ values
    deviation = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.maximum(deviation, _MIN_DEVIATION).tolist())
