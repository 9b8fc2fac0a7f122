"""Images that are read from the disk, against the array that they were written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gdas_tf.data.stored_images import StoredImages, chunks

ARRAY = np.random.default_rng(0).integers(0, 256, (50, 3, 5, 2), np.uint8)


@pytest.fixture
def stored(tmp_path: Path) -> StoredImages:
    np.save(tmp_path / "images.npy", ARRAY)
    return StoredImages(tmp_path / "images.npy")


@pytest.mark.parametrize(
    "chosen",
    [
        slice(None),
        slice(40, 90),
        slice(None, None, -7),
        3,
        -1,
        np.array([7, 49, 7, -2]),
        np.arange(50) % 3 == 0,
    ],
    ids=str,
)
def test_what_is_chosen_is_what_an_array_gives(stored: StoredImages, chosen: object) -> None:
    np.testing.assert_array_equal(stored[chosen], ARRAY[chosen])
    assert stored.shape == ARRAY.shape and len(stored) == 50


def test_they_join_with_arrays_and_go_through_in_order(stored: StoredImages, monkeypatch) -> None:
    np.testing.assert_array_equal(np.concatenate([stored, ARRAY[:2]]), np.concatenate([ARRAY, ARRAY[:2]]))
    monkeypatch.setattr("gdas_tf.data.stored_images._CHUNK", 7 * 30 + 1)
    parts = list(chunks(stored))
    assert [len(part) for part in parts] == [7] * 7 + [1]
    np.testing.assert_array_equal(np.concatenate(parts), ARRAY)


def test_positions_beyond_the_end_and_a_shortened_file_are_refused(stored: StoredImages) -> None:
    with pytest.raises(IndexError, match="positions .* of 50 images"):
        stored[np.array([3, 50])]
    with open(stored.path, "r+b") as file:
        file.truncate(stored.path.stat().st_size - 1)
    stored[48]
    with pytest.raises(OSError, match="ends before image 49"):
        stored[49]
