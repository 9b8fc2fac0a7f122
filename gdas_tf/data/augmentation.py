"""Random changes to batches of images, vectorised over the batch, and the schedule of drop-path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gdas_tf.data.photographs import check_colour_jitter, colour_jitter, resized_crop
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

Crop = Literal["padded", "resized"]


@dataclass(frozen=True)
class Augmentation:
    """Random crop, random colours, random horizontal flip and CutOut of a batch of images.

    The padded crop moves the image by up to `padding` pixels each way, and what comes in from outside is
    black (Krizhevsky, 2009). The resized crop enlarges a part of the image; it and the random colours stand
    in `gdas_tf.data.photographs`. CutOut (DeVries and Taylor, arXiv 1708.04552) fills a square, whose centre
    lies anywhere in the image, with the mean of the data, which is zero after normalisation; at the border
    the square is cut off.

    Each new pixel of padded crop, flip and CutOut is a copy: of an old pixel, of the mean, or of black. So
    all three changes are one gather from a table of the batch's pixels and two more rows, the mean and black.
    On a CPU that takes half the time of padding, gathering and masking one after the other.

    Args:
        padding: pixels of black padding on each side of the image, of the padded crop; 0 turns it off.
        flip: whether to mirror half of the images.
        cutout: side of CutOut's square in pixels; 0 turns it off.
        mean: mean of the training images per channel, in [0, 1]; needed by CutOut only.
        crop: "padded" or "resized".
        colour_jitter: strengths of the random changes of brightness, contrast and saturation, and perhaps of
            the hue; empty for none.

    Example:
        >>> augment = Augmentation(padding=4, flip=True, cutout=16, mean=data.mean)
        >>> augment(data.train.images[:64], seed=(0, 1))  # float32 [64, 32, 32, 3]
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0
    mean: tuple[float, ...] = ()
    crop: Crop = "padded"
    colour_jitter: tuple[float, ...] = ()

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Makes sure that images of a shape (height, width, channels) can be augmented.

        Raises:
            UsageError: the padding or CutOut's square is as big as the image, the mean is missing, or random
                colours are asked of images that have none.
        """
        height, width, channels = image_shape
        check_colour_jitter(self.colour_jitter, channels)
        padding = self.padding if self.crop == "padded" else 0
        for name, size in (("padding", padding), ("cutout", self.cutout)):
            side = min(height, width)
            if not 0 <= size < side:
                alike = f"; of 32x32 it is as much as {size * side // 32} here" if size > 0 else ""
                raise UsageError(
                    f"{name}: found {size} pixels for images {height}x{width}; it must be from 0 to "
                    f"{side - 1}{alike}"
                )
        if self.cutout and len(self.mean) != channels:
            raise UsageError(
                f"CutOut: found a mean of {len(self.mean)} values for images of {channels} channels"
            )

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments a batch.

        Args:
            images: uint8 [B, H, W, C], of static shape.
            seed: two integers; the same seed gives the same changes.

        Returns:
            float32 [B, H, W, C] in [0, 1].

        Raises:
            UsageError: see `check`.
        """
        import tensorflow as tf

        images = to_float(tf.convert_to_tensor(images))
        self.check(tuple(images.shape[1:]))

        def fold(number: int) -> tf.Tensor:
            return tf.random.experimental.stateless_fold_in(seed, tf.constant(number, tf.int64))

        if self.crop == "resized":
            images = resized_crop(images, fold(1))
        if any(self.colour_jitter):
            images = colour_jitter(images, self.colour_jitter, fold(2))
        return self._moved(images, seed)

    def _moved(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Padded crop, flip and CutOut."""
        import tensorflow as tf

        padding = self.padding if self.crop == "padded" else 0
        if not (padding or self.flip or self.cutout):
            return images
        batch, height, width, channels = images.shape
        # One draw for all: vertical and horizontal shift, flip, vertical and horizontal centre of the square.
        draws = tf.random.stateless_uniform([5, batch], seed)

        # [B, H] and [B, W]: the row and column that each row and column is taken from.
        rows = tf.range(height)[None] + self._shift(draws[0], padding)
        columns = tf.range(width)[None]
        if self.flip:
            columns = tf.where(draws[2][:, None] < 0.5, width - 1 - columns, columns)
        columns += self._shift(draws[1], padding)

        mean, black, first = 0, 1, 2  # rows of the table
        source = (tf.range(batch)[:, None, None] * height + rows[:, :, None]) * width + columns[:, None]
        source += first
        if padding:
            inside_row = (rows >= 0) & (rows < height)
            inside_column = (columns >= 0) & (columns < width)
            source = tf.where(inside_row[:, :, None] & inside_column[:, None], source, black)
        if self.cutout:
            cut = self._cut(draws[3], height)[:, :, None] & self._cut(draws[4], width)[:, None]
            source = tf.where(cut, mean, source)

        pixels = tf.reshape(images, [-1, channels])
        filling = tf.constant([self.mean or (0.0,) * channels, (0.0,) * channels])
        return tf.gather(tf.concat([filling, pixels], 0), source)

    @staticmethod
    def _shift(draw: tf.Tensor, padding: int) -> tf.Tensor:
        """Returns int32 [B, 1] in -padding … padding."""
        return _whole(draw, 2 * padding + 1)[:, None] - padding

    def _cut(self, draw: tf.Tensor, size: int) -> tf.Tensor:
        """Returns bool [B, size]: which rows, or columns, the square covers."""
        import tensorflow as tf

        offset = tf.range(size)[None] - _whole(draw, size)[:, None] + self.cutout // 2
        return (offset >= 0) & (offset < self.cutout)


def to_float(images: tf.Tensor) -> tf.Tensor:
    """Converts uint8 images to float32 in [0, 1]."""
    import tensorflow as tf

    return tf.cast(images, tf.float32) / 255.0


def drop_path_schedule(maximum: float, epoch: int, epochs: int) -> float:
    """Returns the probability of dropping a path in an epoch: it grows linearly from 0.

    Scheduled drop-path (Zoph et al., arXiv 1707.07012), `maximum * epoch / epochs` as in the code of DARTS
    and GDAS: `maximum` is what the probability has grown to when the training ends.

    Args:
        maximum: probability at the end.
        epoch: number of the epoch, counted from 0.
        epochs: number of epochs of the training.
    """
    return maximum * epoch / epochs


def _whole(draw: tf.Tensor, count: int) -> tf.Tensor:
    """Turns float32 in [0, 1) into int32 0 … count - 1."""
    import tensorflow as tf

    return tf.cast(draw * count, tf.int32)
