"""What photographs of large sets are augmented by: a crop of random size and shape, and random colours.

Both are those of the recipes for ImageNet (Liu, Simonyan & Yang, ICLR 2019; Dong & Yang, CVPR 2019), as
torchvision's RandomResizedCrop and ColorJitter describe them, for a whole batch at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

AREA = (0.08, 1.0)
"""Least and largest share of an image's area that a crop has (Szegedy et al., CVPR 2015)."""

ASPECT_RATIO = (3 / 4, 4 / 3)
"""Least and largest width of a crop, as a share of its height."""

_ATTEMPTS = 10
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def resized_crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Cuts a random part out of each image, and enlarges it to the size of the image.

    The part's area is drawn evenly from `AREA`, its aspect ratio evenly on a logarithmic scale from
    `ASPECT_RATIO`, its place evenly. Of ten such draws the first that lies within the image is taken, and if
    none does, the largest part in the middle that has an accepted aspect ratio.

    Args:
        images: float32 [B, H, W, C], of static shape.
        seed: two integers.

    Returns:
        float32 [B, H, W, C], by bilinear interpolation.
    """
    import tensorflow as tf

    batch, height, width, _ = images.shape
    draws = tf.unstack(tf.random.stateless_uniform([4, _ATTEMPTS, batch], seed))
    area = height * width * (AREA[0] + draws[0] * (AREA[1] - AREA[0]))
    least, most = map(math.log, ASPECT_RATIO)
    ratio = tf.exp(least + draws[1] * (most - least))
    heights, widths = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
    fits = (heights <= height) & (widths <= width)
    # The first attempt that fits; its index is 0 also where none does, and then the middle is taken.
    first = tf.stack([tf.argmax(tf.cast(fits, tf.int32), 0, tf.int32), tf.range(batch)], 1)
    found = tf.reduce_any(fits, 0)
    middle = min(height, width / ASPECT_RATIO[0]), min(width, height * ASPECT_RATIO[1])
    bounds = []
    for size, sizes, place, whole in zip((height, width), (heights, widths), draws[2:], middle, strict=True):
        length = tf.where(found, tf.gather_nd(sizes, first), whole)
        begin = (size - length) * tf.where(found, tf.gather_nd(place, first), 0.5)
        bounds.append((begin, begin + length))
    (top, bottom), (left, right) = bounds
    # `crop_and_resize` takes the centres of the corner pixels, as shares of the way between the image's.
    boxes = tf.stack(
        [
            top / (height - 1),
            left / (width - 1),
            (bottom - 1) / (height - 1),
            (right - 1) / (width - 1),
        ],
        1,
    )
    return tf.image.crop_and_resize(images, boxes, tf.range(batch), [height, width])


def check_colour_jitter(strengths: tuple[float, ...], channels: int) -> None:
    """Makes sure that images can be changed in colour by `strengths`.

    Raises:
        UsageError: there are not three channels.
    """
    if any(strengths) and channels != 3:
        raise UsageError(
            f"colour jitter: found images of {channels} channel{'s'[: channels != 1]}; it needs three, red, "
            "green and blue; 0,0,0 turns it off"
        )


def colour_jitter(images: tf.Tensor, strengths: tuple[float, ...], seed: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue of each image at random, in this order.

    A strength s of the first three gives a factor drawn evenly from 1 - s (at least 0) to 1 + s: of the
    image and black, of the image and its mean grey, of the image and its grey. That of the hue turns the
    colour circle by -s … s of a whole turn.

    Args:
        images: float32 [B, H, W, 3] in [0, 1].
        strengths: of brightness, contrast and saturation, and perhaps of the hue.
        seed: two integers.

    Returns:
        float32 [B, H, W, 3] in [0, 1].
    """
    import tensorflow as tf

    draws = 2 * tf.random.stateless_uniform([4, images.shape[0], 1, 1, 1], seed) - 1
    brightness, contrast, saturation, *hue = strengths

    def factor(number: int, strength: float) -> tf.Tensor:
        return tf.maximum(0.0, 1 + strength * draws[number])

    def blended(images: tf.Tensor, other: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(other + factor * (images - other), 0.0, 1.0)

    if brightness:
        images = tf.clip_by_value(images * factor(0, brightness), 0.0, 1.0)
    if contrast:
        mean = tf.reduce_mean(_grey(images), [1, 2], keepdims=True)
        images = blended(images, mean, factor(1, contrast))
    if saturation:
        images = blended(images, _grey(images), factor(2, saturation))
    if any(hue):
        colours = tf.image.rgb_to_hsv(images)
        turned = tf.math.floormod(colours[..., :1] + hue[0] * draws[3], 1.0)
        images = tf.image.hsv_to_rgb(tf.concat([turned, colours[..., 1:]], -1))
    return images


def _grey(images: tf.Tensor) -> tf.Tensor:
    """float32 [B, H, W, 1] of [B, H, W, 3]."""
    import tensorflow as tf

    return tf.reduce_sum(images * tf.constant(_GREY), -1, keepdims=True)
