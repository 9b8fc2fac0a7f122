"""The resized crop and the random colours, against what one crop, and colorsys, give of one image."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.data.augmentation import Augmentation
from gdas_tf.data.photographs import AREA, ASPECT_RATIO, colour_jitter, resized_crop
from gdas_tf.errors import UsageError


def _ramps(count: int, height: int, width: int) -> np.ndarray:
    """Images whose two channels say the row and the column of each pixel."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.broadcast_to(np.stack([rows, columns], -1), (count, height, width, 2)).astype(np.float32)


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_resized_crops_are_parts_of_random_area_shape_and_place(size: tuple[int, int]) -> None:
    crops = resized_crop(_ramps(2000, *size), (3, 4)).numpy()
    top, bottom, left, right = crops[:, 0, 0, 0], crops[:, -1, 0, 0], crops[:, 0, 0, 1], crops[:, 0, -1, 1]
    assert min(top.min(), left.min()) >= -1e-4
    assert bottom.max() <= size[0] - 1 + 1e-3 and right.max() <= size[1] - 1 + 1e-3
    # Between both ends the part is interpolated evenly.
    np.testing.assert_allclose(crops[:, :, 0, 0], np.linspace(top, bottom, size[0], axis=1), atol=1e-3)
    np.testing.assert_allclose(crops[:, 0, :, 1], np.linspace(left, right, size[1], axis=1), atol=1e-3)
    heights, widths = bottom - top + 1, right - left + 1
    area, ratio = heights * widths / (size[0] * size[1]), widths / heights
    assert AREA[0] - 1e-3 < area.min() < 0.1 and (size[0] != size[1] or 0.95 < area.max() < 1 + 1e-3)
    assert ASPECT_RATIO[0] - 1e-3 < ratio.min() < 0.76 and 1.31 < ratio.max() < ASPECT_RATIO[1] + 1e-3
    if size[0] == size[1]:
        assert abs(np.log(ratio).mean()) < 0.02
        # Evenly drawn areas of which the largest do not fit in every shape.
        assert 0.45 < area.mean() < 0.54
    share = top / np.maximum(size[0] - heights, 1)
    assert 0.45 < share[heights < 0.8 * size[0]].mean() < 0.55


def test_an_image_in_which_no_shape_fits_gives_its_middle() -> None:
    """Of a strip of 8 x 500 every part of the least area is higher than the strip."""
    crops = resized_crop(_ramps(50, 8, 500), (0, 1)).numpy()
    width = 8 * ASPECT_RATIO[1]
    assert np.allclose(crops[:, 0, 0], [0, (500 - width) / 2], atol=1e-3)
    assert np.allclose(crops[:, -1, -1], [7, (500 + width) / 2 - 1], atol=1e-3)


@pytest.mark.parametrize("number", range(4))
def test_each_colour_changes_by_a_factor_within_its_strength(number: int) -> None:
    images = np.random.default_rng(0).uniform(0.2, 0.6, (300, 4, 4, 3)).astype(np.float32)
    strengths = tuple(0.3 if number == i else 0.0 for i in range(4))
    changed = colour_jitter(tf.constant(images), strengths, (5, 6)).numpy()
    grey = (images @ np.float32([0.299, 0.587, 0.114]))[..., None]
    other = (0.0, grey.mean((1, 2), keepdims=True), grey)
    if number < 3:
        factors = ((changed - other[number]) / (images - other[number] + 1e-12)).reshape(300, -1)
        factor = np.median(factors, 1)
        expected = other[number] + factor[:, None, None, None] * (images - other[number])
        np.testing.assert_allclose(changed, np.clip(expected, 0, 1), atol=1e-5)
        assert 0.7 <= factor.min() < 0.72 and 1.28 < factor.max() <= 1.3
    else:
        before, after = (
            np.array([colorsys.rgb_to_hsv(*pixel) for pixel in x[:, 0, 0].astype(float)])
            for x in (images, changed)
        )
        np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=1e-4)
        turn = (after[:, 0] - before[:, 0] + 0.5) % 1 - 0.5
        assert -0.3 <= turn.min() < -0.28 and 0.28 < turn.max() <= 0.3 + 1e-5


def test_photographs_depend_on_the_seed_alone_and_stay_in_range() -> None:
    images = np.random.default_rng(1).integers(0, 256, (16, 24, 24, 3), np.uint8)
    augment = Augmentation(
        padding=30,
        flip=True,
        cutout=6,
        mean=(0.2, 0.4, 0.6),
        crop="resized",
        colour_jitter=(0.4, 0.4, 0.4, 0.2),
    )
    first, again, other = (augment(images, seed).numpy() for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    assert first.min() >= 0 and first.max() <= 1
    assert (first == np.float32([0.2, 0.4, 0.6])).all(-1).any((1, 2)).all()  # colours leave CutOut alone


def test_colours_need_three_channels() -> None:
    with pytest.raises(UsageError, match="images of 1 channel; it needs three"):
        Augmentation(colour_jitter=(0.4, 0.4, 0.4)).check((32, 32, 1))
    Augmentation(colour_jitter=(0, 0, 0)).check((32, 32, 1))
