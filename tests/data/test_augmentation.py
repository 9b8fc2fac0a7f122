"""Augmentation against a plain loop over the images, and the schedule of drop-path."""

from __future__ import annotations

import numpy as np
import pytest

from gdas_tf.data.augmentation import Augmentation, drop_path_schedule, to_float
from gdas_tf.errors import UsageError

MEAN = (0.25, 0.5, 0.75)


def pictures(count: int = 64, height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray:
    """Random images without black pixels, so that black can come from the padding only."""
    return np.random.default_rng(0).integers(1, 256, (count, height, width, channels), np.uint8)


def crops(image: np.ndarray, padding: int, flip: bool) -> dict[tuple[int, int, bool], np.ndarray]:
    """All that a crop of one image can give, by shift and flip."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    found = {}
    for flipped in (False, True) if flip else (False,):
        for y in range(2 * padding + 1):
            for x in range(2 * padding + 1):
                crop = padded[y : y + height, x : x + width]
                found[y, x, flipped] = crop[:, ::-1] if flipped else crop
    return found


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_a_crop_of_itself(padding: int, flip: bool, channels: int) -> None:
    images = pictures(channels=channels)
    result = Augmentation(padding=padding, flip=flip)(images, (3, 7)).numpy()
    assert result.dtype == np.float32 and result.shape == images.shape
    seen = set()
    for image, changed in zip(images, result, strict=True):
        matches = [
            key
            for key, crop in crops(image, padding, flip).items()
            if np.array_equal(np.round(changed * 255), crop)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    # 64 draws: both sides of the flip, and shifts all over the range.
    assert {key[2] for key in seen} == ({False, True} if flip else {False})
    assert {key[0] for key in seen} == set(range(2 * padding + 1))
    assert {key[1] for key in seen} == set(range(2 * padding + 1))


@pytest.mark.parametrize("cutout", [4, 5])
def test_cutout_fills_one_square_with_the_mean(cutout: int) -> None:
    images = np.zeros((400, 12, 16, 3), np.uint8)
    result = Augmentation(cutout=cutout, mean=MEAN)(images, (1, 2)).numpy()
    cut = (result == np.float32(MEAN)).all(-1)
    assert (result[~cut] == 0).all()
    rows, columns = cut.any(2), cut.any(1)
    assert (cut == rows[:, :, None] & columns[:, None]).all()  # a rectangle …
    for lines, size in ((rows, 12), (columns, 16)):
        assert (np.abs(np.diff(lines.astype(int), axis=1)).sum(1) <= 2).all()  # … in one piece
        lengths = lines.sum(1)
        assert lengths.max() == cutout and lengths.min() == cutout - cutout // 2  # cut off at the border
        # The centre lies anywhere in the image: every row and column is covered by some square.
        assert lines.any(0).all() and np.isclose(
            (lengths == cutout).mean(), 1 - (cutout - 1) / size, atol=0.1
        )


def test_cutout_is_zero_after_normalisation_and_lies_over_the_crop() -> None:
    images = pictures()
    plain = Augmentation(padding=4, flip=True)(images, (3, 7)).numpy()
    both = Augmentation(padding=4, flip=True, cutout=6, mean=MEAN)(images, (3, 7)).numpy()
    cut = (both == np.float32(MEAN)).all(-1)
    assert cut.any((1, 2)).all()
    np.testing.assert_array_equal(both[~cut], plain[~cut])


def test_seed_alone_decides() -> None:
    augment = Augmentation(padding=2, flip=True, cutout=4, mean=MEAN)
    images = pictures()
    first, again, other = (augment(images, seed).numpy() for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any((1, 2, 3)).mean() > 0.9


def test_nothing_to_do_gives_the_images() -> None:
    images = pictures()
    np.testing.assert_array_equal(Augmentation()(images, (0, 0)), images.astype(np.float32) / np.float32(255))
    assert to_float(np.uint8([0, 255])).numpy().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        (
            {"cutout": 16, "mean": (0.5,)},
            (8, 8, 1),
            "cutout: found 16 pixels for images 8x8; it must be from 0 to 7; "
            "of 32x32 it is as much as 4 here",
        ),
        ({"padding": 8}, (8, 12, 1), "padding: found 8 pixels for images 8x12; it must be from 0 to 7"),
        ({"padding": -1}, (8, 8, 1), "padding: found -1"),
        ({"cutout": 4, "mean": (0.5,)}, (8, 8, 3), "mean of 1 values for images of 3 channels"),
    ],
)
def test_unfit_for_the_images(options: dict, shape: tuple[int, int, int], words: str) -> None:
    augmentation = Augmentation(**options)
    with pytest.raises(UsageError, match=words):
        augmentation.check(shape)
    with pytest.raises(UsageError, match=words):
        augmentation(np.zeros((2, *shape), np.uint8), (0, 0))


def test_drop_path_grows_linearly() -> None:
    values = [drop_path_schedule(0.2, epoch, 4) for epoch in range(4)]
    np.testing.assert_allclose(values, [0, 0.05, 0.1, 0.15])
