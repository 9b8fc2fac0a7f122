"""Labelled images: in memory, or in a file on the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.data.identity import image_hashes
from gdas_tf.data.stored_images import StoredImages

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Args:
        images: uint8 [n, H, W, C]; a NumPy array, or `StoredImages` if they exceed memory.
        labels: int32 [n].
    """

    images: np.ndarray | StoredImages
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the images themselves, or the name of the file that they lie in."""
        return Split, (self.images, self.labels)

    @cached_property
    def hashes(self) -> np.ndarray:
        """A number for each image that tells its pixels from others, uint64 [n]; see `image_hashes`."""
        return image_hashes(self.images)

    def take(self, chosen: np.ndarray) -> Split:
        """Returns a part of the images: those where `chosen`, bool [n], is true."""
        return Split(self.images[chosen], self.labels[chosen])

    def joined(self, other: Split) -> Split:
        """Returns these images and then those of another split."""
        return Split(np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels]))

    @cached_property
    def gather(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """TensorFlow function: positions int32 [k] to images uint8 [k, H, W, C] and labels int32 [k].

        It must first be used outside of a graph, because its tensors would become part of that graph.
        """
        import tensorflow as tf

        shape = self.images.shape[1:]
        with tf.device("CPU:0"):  # the whole set stays in host memory; only batches travel to a GPU
            labels = tf.constant(self.labels)
            if not isinstance(self.images, StoredImages):
                images = tf.constant(self.images)
                return lambda positions: (tf.gather(images, positions), tf.gather(labels, positions))

        def from_disk(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = tf.numpy_function(self.images.__getitem__, [positions], tf.uint8, stateful=False)
            return tf.ensure_shape(batch, (*positions.shape, *shape)), tf.gather(labels, positions)

        return from_disk
