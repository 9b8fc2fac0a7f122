"""Every kind of source, good and bad, and the batches made of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gdas_tf.data.store as image_store
from gdas_tf.data.augmentation import Augmentation
from gdas_tf.data.dataset import (
    DataSet,
    Split,
    eval_batches,
    load_dataset,
    search_batches,
    search_halves,
    steps_per_epoch,
    train_batches,
)
from gdas_tf.data.images import PictureError, open_picture, read_file, read_header, to_array
from gdas_tf.data.inspection import inspect
from gdas_tf.data.stored_images import StoredImages
from gdas_tf.errors import RunError, UsageError

AUGMENTATION = Augmentation(padding=2, flip=True, cutout=3, mean=(0.5,))


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_dataset("digits")


def numbered(count: int, classes: int = 5) -> DataSet:
    """Images that tell their number: pixel 0 its low byte, pixel 1 its high byte."""
    images = np.zeros((count, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(count) % 256, np.arange(count) // 256
    split = Split(images, (np.arange(count) % classes).astype(np.int32))
    return DataSet("numbered", tuple("abcdefghij"[:classes]), split, split, (0.5,), (0.25,))


def numbers(images: np.ndarray) -> np.ndarray:
    return np.round(images[:, 0, 0, 0] * 255 + images[:, 0, 1, 0] * 255 * 256).astype(int)


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (12, 10), color=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = color if color is not None else {"RGB": (200, 30, 10), "L": 77, "RGBA": (9, 9, 9, 0)}[mode]
    Image.new(mode, size, color).save(path)
    return path


def folder_of(root: Path, classes: dict[str, int], **options) -> Path:
    for name, count in classes.items():
        for number in range(count):
            picture(root / name / f"{number}.png", **options)
    return root


def error_of(name: str | Path, kind: type[Exception] = UsageError, **options) -> str:
    """The line that a user sees when the data cannot be loaded."""
    with pytest.raises(kind) as caught:
        load_dataset(str(name), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- digits, and what holds for every set


def test_digits(digits: DataSet) -> None:
    assert (digits.name, digits.image_shape, digits.classes) == ("digits", (8, 8, 1), 10)
    assert digits.class_names == tuple("0123456789")
    assert len(digits.train) + len(digits.test) == 1797 and len(digits.test) >= 350
    for split in (digits.train, digits.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        assert split.images.max() == 255 and split.images.min() == 0
    share = np.bincount(digits.test.labels) / np.bincount(
        np.concatenate([digits.test.labels, digits.train.labels])
    )
    np.testing.assert_allclose(share, 0.2, atol=0.01)


def test_mean_and_deviation_are_those_of_the_training_images(digits: DataSet) -> None:
    images = digits.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(digits.mean, images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(digits.std, images.std((0, 1, 2)), rtol=1e-12)


def test_held_out_images_follow_the_seed(digits: DataSet) -> None:
    same, other = load_dataset("digits"), load_dataset("digits", seed=1)
    np.testing.assert_array_equal(digits.test.images, same.test.images)
    assert (digits.test.images != other.test.images).any()
    as_rows = [{image.tobytes() for image in split.images} for split in (digits.train, digits.test)]
    assert not as_rows[0] & as_rows[1]  # no digit occurs twice in the set


def test_size_and_channels_are_changed_on_request(digits: DataSet) -> None:
    data = load_dataset("digits", image_size=16, image_channels=3)
    assert data.image_shape == (16, 16, 3) and len(data.mean) == 3
    assert (data.train.images[..., 0] == data.train.images[..., 2]).all()
    small = data.train.images[:, ::2, ::2, 0].astype(int)
    assert np.abs(small - digits.train.images[..., 0]).mean() < 40
    wide = load_dataset("digits", image_size=(8, 24))
    assert wide.image_shape == (8, 24, 1)
    np.testing.assert_allclose(wide.train.images[:, :, 1::3], digits.train.images, atol=1)


def test_test_fraction(digits: DataSet) -> None:
    assert len(load_dataset("digits", test_fraction=0.5).test) == 898
    assert "raise data.test_fraction" in error_of("digits", test_fraction=1e-4)
    assert "between 0 and 1" in error_of("digits", test_fraction=1.0)


def test_what_programs_use_is_found_in_the_package() -> None:
    import gdas_tf.data

    assert gdas_tf.data.load_dataset is load_dataset
    assert (gdas_tf.data.DataSet, gdas_tf.data.Split) == (DataSet, Split)
    with pytest.raises(ImportError, match="cannot import name 'read_dataset'"):
        from gdas_tf.data import read_dataset  # noqa: F401


def test_importing_is_light() -> None:
    code = (
        "import sys, gdas_tf.data.dataset, gdas_tf.data.augmentation\n"
        "print([name for name in ('tensorflow', 'tensorflow_datasets', 'sklearn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- .npz


def npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def grey(count: int = 20, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size), np.uint8)


LABELS = np.arange(20) % 2


def test_npz_with_own_test_images(tmp_path: Path) -> None:
    x_test = grey(6)[:, :, :, None]
    path = npz(
        tmp_path / "a.npz",
        x_train=grey()[:, :, :, None],
        y_train=LABELS[:, None],  # as Keras has them
        x_test=x_test,
        y_test=[0, 1, 0, 1, 0, 1],
        class_names=["cat", "dog"],
    )
    data = load_dataset(str(path))
    assert (data.name, data.class_names, data.image_shape) == ("a", ("cat", "dog"), (8, 8, 1))
    np.testing.assert_array_equal(data.test.images, x_test)
    np.testing.assert_array_equal(data.train.images[..., 0], grey())
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8])
def test_npz_kinds_of_numbers(tmp_path: Path, kind: type) -> None:
    pixels = grey().astype(kind) / kind(255) if np.issubdtype(kind, np.floating) else grey().astype(kind)
    data = load_dataset(str(npz(tmp_path / "a.npz", images=pixels, labels=LABELS.astype(np.float32))))
    assert len(data.train) == 16 and len(data.test) == 4
    found = {image.tobytes() for split in (data.train, data.test) for image in split.images}
    assert found == {image.tobytes() for image in grey()}


def test_npz_with_opacity_lies_on_white(tmp_path: Path) -> None:
    clear = np.zeros((20, 8, 8, 4), np.uint8)
    data = load_dataset(str(npz(tmp_path / "a.npz", images=clear, labels=LABELS)))
    assert data.image_shape == (8, 8, 3) and (data.train.images == 255).all()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pixels": grey()}, "found pixels; it must hold images and labels, or x_train and y_train"),
        ({"images": grey(), "labels": LABELS - 1}, "labels has the label -1"),
        ({"images": grey(), "labels": LABELS + 1}, "labels has 2 different labels, 1, 2; they must be 0 … 1"),
        (
            {"images": grey(), "labels": LABELS + 0.5},
            "labels has the value 0.5; labels must be whole numbers",
        ),
        ({"images": grey(), "labels": LABELS.astype(str)}, "labels has the value 0; labels must be whole"),
        ({"images": grey(), "labels": LABELS * np.nan}, "whole numbers"),
        (
            {"images": grey(), "labels": np.where(LABELS, np.inf, 0)},
            "labels has the value inf; labels must be",
        ),
        (
            {"images": grey(), "labels": np.where(LABELS, 1e300, 0)},
            r"labels has the label 1e\+300; labels must be",
        ),
        (
            {"images": grey(), "labels": LABELS + 4_000_000_000},
            r"2 different labels, 4000000000, 4000000001; they must be 0 … 1, as numpy.unique\(",
        ),
        (
            {"images": grey(), "labels": LABELS.astype(np.uint64) + np.uint64(2**63)},
            r"labels has the label 9\.\S*e\+18; labels must be whole numbers",
        ),
        (
            {"x_train": grey(), "y_train": LABELS, "x_test": grey(), "y_test": LABELS + 4_000_000_000},
            "y_test has the label 4000000001, but there are 2 classes",
        ),
        ({"images": grey(), "labels": LABELS[:5]}, r"labels has the shape 5; it must be \[20\]"),
        ({"images": grey(), "labels": np.eye(20)}, r"labels has the shape 20x20; it must be \[20\]"),
        ({"images": grey(), "labels": 3}, "shape of a single number"),
        ({"images": grey(), "labels": LABELS * 0}, "found one class"),
        (
            {"images": grey(), "labels": LABELS, "class_names": ["a"]},
            "found one class|label 1, but there are 1",
        ),
        (
            {"images": grey(), "labels": LABELS, "class_names": ["a", "b", "c"]},
            "no training image of class c",
        ),
        ({"images": grey(), "labels": LABELS, "class_names": ["a", "a"]}, "class_names must be"),
        ({"images": grey()[0], "labels": LABELS}, "images has the shape 8x8; it must be"),
        ({"images": grey(0), "labels": LABELS[:0]}, "images has the shape 0x8x8"),
        ({"images": np.zeros((20, 8, 8, 2)), "labels": LABELS}, "with 1, 3 or 4 channels"),
        ({"images": grey() * 1.0, "labels": LABELS}, r"floats must lie in \[0, 1\]"),
        ({"images": grey() * np.nan, "labels": LABELS}, r"values nan … nan; floats must lie in \[0, 1\]"),
        ({"images": grey().astype(int) - 1, "labels": LABELS}, "whole numbers must lie in 0 … 255"),
        ({"images": grey() > 9, "labels": LABELS}, "images has the type bool"),
        ({"images": grey(20, 4), "labels": LABELS}, "4x4 pixels; at least 8x8 are needed"),
        ({"images": grey(), "labels": LABELS, "x_test": grey()}, "test images need all of"),
        (
            {"x_train": grey(), "y_train": LABELS, "x_test": grey(20, 9), "y_test": LABELS},
            "images in x_train are 8x8x1, in x_test 9x9x1",
        ),
        (
            {"x_train": grey(), "y_train": LABELS, "x_test": grey(), "y_test": LABELS + 1},
            "y_test has the label 2, but there are 2 classes",
        ),
        (
            {"images": np.array([{}] * 20), "labels": LABELS},
            "cannot read it as an .npz file: images holds Python objects, not numbers",
        ),
    ],
)
def test_npz_that_is_wrong(tmp_path: Path, arrays: dict, words: str) -> None:
    import re

    assert re.search(words, error_of(npz(tmp_path / "a.npz", **arrays)))


def test_npz_that_is_damaged_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path / "a.npz", images=grey(), labels=LABELS)
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot read it as an .npz file" in error_of(path)
    np.savez_compressed(path, images=grey(), labels=LABELS)
    whole = bytearray(path.read_bytes())
    whole[200:300] = bytes(100)
    path.write_bytes(whole)
    assert "cannot read it as an .npz file" in error_of(path)
    path.write_bytes(b"")
    assert "cannot read it as an .npz file" in error_of(path)
    assert error_of(tmp_path / "b.npz").endswith("there is no such file")
    monkeypatch.chdir(tmp_path)
    assert f"no such file; a relative path counts from the current folder, {tmp_path}" in error_of("b.npz")


def test_files_by_the_name_of_npz(tmp_path: Path) -> None:
    """NumPy would advise to load them with a switch that runs what code they hold."""
    import pickle

    np.save(tmp_path / "x.npy", grey())
    (tmp_path / "x.npy").rename(tmp_path / "npy.npz")
    assert "it is a single array, an .npy file by another name; write one by" in error_of(
        tmp_path / "npy.npz"
    )
    for content in (pickle.dumps({"images": 1}), b"text", b"PK\x03\x04"):
        (tmp_path / "other.npz").write_bytes(content)
        line = error_of(tmp_path / "other.npz")
        assert "cannot read it as an .npz file" in line and "pickle" not in line


# --- folders


def test_folder(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", {"dog": 10, "cat": 5})
    picture(root / "dog" / "deeper" / "more.jpg")
    (root / "dog" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    data = load_dataset(str(root))
    assert (data.name, data.class_names, data.image_shape) == ("pets", ("cat", "dog"), (10, 12, 3))
    assert (len(data.train), len(data.test)) == (13, 3)
    assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).tolist() == [5, 11]
    assert np.abs(data.train.images.astype(int) - (200, 30, 10)).max() <= 2


def test_folder_with_test_images(tmp_path: Path) -> None:
    for part, level, counts in (("Train", 0, {"a": 3, "b": 2}), ("val", 1, {"b": 4}), ("test", 2, {"b": 1})):
        folder_of(tmp_path / part, counts, mode="L", color=level)
    (tmp_path / "annotations").mkdir()
    data = load_dataset(str(tmp_path))
    assert data.image_shape == (10, 12, 1) and data.class_names == ("a", "b")
    assert (len(data.train), len(data.test)) == (5, 1)
    assert (
        (data.train.images == 0).all() and (data.test.images == 2).all() and data.test.labels.tolist() == [1]
    )


def test_folder_with_validation_images_only(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", {"a": 3, "b": 2})
    folder_of(tmp_path / "val", {"a": 1, "b": 4})
    assert len(load_dataset(str(tmp_path)).test) == 5


def test_folder_of_unequal_sizes(tmp_path: Path) -> None:
    root = folder_of(tmp_path, {"a": 3, "b": 2})
    picture(root / "b" / "big.png", size=(40, 30))
    line = error_of(root)
    assert (
        "a/0.png has 10x12 pixels (height x width), b/big.png has 30x40; resize all by data.image_size"
        in line
    )
    assert load_dataset(str(root), image_size=(8, 16), test_fraction=0.4).image_shape == (8, 16, 3)
    data = load_dataset(str(root), image_size=16, test_fraction=0.4)
    assert data.image_shape == (16, 16, 3) and (data.train.images == (200, 30, 10)).all()


def test_folder_is_grey_if_all_images_are(tmp_path: Path) -> None:
    root = folder_of(tmp_path, {"a": 3, "b": 2}, mode="L")
    assert load_dataset(str(root), test_fraction=0.4).image_shape == (10, 12, 1)
    picture(root / "a" / "colour.png")
    assert load_dataset(str(root), test_fraction=0.4).image_shape == (10, 12, 3)
    assert load_dataset(str(root), test_fraction=0.4, image_channels=1).image_shape == (10, 12, 1)


def test_folder_with_unreadable_images(tmp_path: Path) -> None:
    root = folder_of(tmp_path, {"a": 8, "b": 8})
    whole = (root / "a" / "0.png").read_bytes()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(root / "a" / "1.png")
    (root / "a" / "1.png").write_bytes((root / "a" / "1.png").read_bytes()[:3000])
    (root / "b" / "2.png").write_bytes(b"")
    (root / "b" / "3.png").write_text("no image")
    (root / "b" / "4.jpg").symlink_to("nowhere.jpg")
    line = error_of(root, image_size=16, image_channels=3)
    assert "4 of 17 images cannot be read" in line and "and 1 more" in line
    assert "a/1.png (" in line and "b/2.png (empty file)" in line and "b/3.png (not an image)" in line
    assert "3 of 17 images cannot be read" in error_of(root)  # found by a look at the headers
    for name in ("a/1.png", "b/2.png", "b/3.png"):
        (root / name).write_bytes(whole)
    (root / "b" / "4.jpg").unlink()
    assert len(load_dataset(str(root)).train) == 13


def test_folder_that_is_wrong(tmp_path: Path) -> None:
    assert "no subfolders" in error_of(tmp_path)
    folder_of(tmp_path, {"a": 2})
    assert "found one class, a" in error_of(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("")
    (tmp_path / "c").mkdir()
    assert "no image of class b, c;" in error_of(tmp_path)
    other = tmp_path / "other"
    folder_of(other / "train", {"a": 2, "b": 2})
    folder_of(other / "test", {"a": 2, "d": 2})
    assert "d is no class; the classes of the training images are a, b" in error_of(other)


def test_paths_that_are_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no such folder" in error_of(tmp_path / "nowhere")
    file = tmp_path / "a.txt"
    file.write_text("")
    assert "neither a folder of images nor an .npz file" in error_of(file)
    monkeypatch.chdir(tmp_path)  # as of a run that was made elsewhere
    line = error_of("./photos")
    assert f"there is no such folder; a relative path counts from the current folder, {tmp_path}" in line
    assert "the home folder ~nobody-of-that-name is not known here" in error_of("~nobody-of-that-name/a")


def test_own_folder_called_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    folder_of(tmp_path / "digits", {"one": 5, "two": 5})
    monkeypatch.chdir(tmp_path)
    assert load_dataset("digits").classes == 10
    assert [record.message for record in caplog.records] == [
        "data digits: the embedded digits, not the folder of that name; the folder is ./digits"
    ]
    caplog.clear()
    assert load_dataset("./digits").classes == load_dataset("digits/").classes == 2
    assert not caplog.records


# --- single pictures


def halves(mode: str = "RGB") -> Image.Image:
    """40 wide, 20 high; the left half dark, the right half light."""
    image = Image.new("RGB", (40, 20), (20, 20, 20))
    image.paste((220, 220, 220), (20, 0, 40, 20))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"),
        ("RGB", "jpg"),
        ("L", "png"),
        ("P", "gif"),
        ("CMYK", "jpg"),
        ("RGBA", "webp"),
        ("LA", "png"),
    ],
)
def test_modes(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    halves(mode).save(path)
    assert read_header(path) == ((20, 40), mode in ("L", "LA"))
    for channels in (1, 3):
        pixels = read_file(path, None, channels)
        assert pixels.shape == (20, 40, channels) and pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels[:, :18].mean((0, 1)), 20, atol=4)
        np.testing.assert_allclose(pixels[:, 22:].mean((0, 1)), 220, atol=4)


@pytest.mark.parametrize(("orientation", "light"), [(1, "right"), (3, "left"), (6, "bottom"), (8, "top")])
def test_orientation(tmp_path: Path, orientation: int, light: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    halves().save(path, exif=exif)
    height, width = (20, 40) if orientation < 5 else (40, 20)
    assert read_header(path)[0] == (height, width)
    pixels = read_file(path, None, 1)[..., 0].astype(int)
    assert pixels.shape == (height, width)
    sides = {
        "left": pixels[:, : width // 2],
        "right": pixels[:, width // 2 :],
        "top": pixels[: height // 2],
        "bottom": pixels[height // 2 :],
    }
    assert max(sides, key=lambda side: sides[side].mean()) == light


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    assert (read_file(picture(tmp_path / "a.png", "RGBA"), (8, 8), 3) == 255).all()
    half = Image.new("LA", (8, 8), (0, 128))
    assert np.abs(to_array(half, None, 1).astype(int) - 127).max() <= 1
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(tmp_path / "b.png", transparency=1)
    assert (read_file(tmp_path / "b.png", None, 3) == 255).all()


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_sixteen_bits_are_scaled(tmp_path: Path, kind: type) -> None:
    levels = np.linspace(0, 65535, 64).astype(kind).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "a.tif")
    pixels = read_file(tmp_path / "a.tif", None, 1)[..., 0]
    np.testing.assert_allclose(pixels, levels / 257, atol=0.51)


def test_floating_point_is_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path, {"a": 4, "b": 4})
    Image.fromarray(np.ones((10, 12), np.float32)).save(root / "a" / "f.tif")
    assert "a/f.tif (floating-point pixels; save it with 8 or 16 bits)" in error_of(root)


def test_pictures_of_too_many_pixels(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path, {"a": 4, "b": 4})
    picture(root / "a" / "big.png", size=(40, 30))
    monkeypatch.setattr("gdas_tf.data.images.MAX_PIXELS", 1199)
    for options in ({}, {"image_size": 8, "image_channels": 3}):
        line = error_of(root, **options)
        assert "a/big.png (40 x 30 pixels; accepted are 1,199 at most, so save it smaller)" in line
    monkeypatch.setattr("gdas_tf.data.images.MAX_PIXELS", 119)
    line = error_of("sizes", data_dir=prepared, image_size=8)
    assert "data set sizes: an image has 12 x 1" in line and "; accepted are 119 at most" in line


def test_pillow_keeps_its_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is for the whole process: it is lifted for larger pictures only while they are open."""
    from concurrent.futures import ThreadPoolExecutor

    path = picture(tmp_path / "a.png", size=(40, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(lambda _: read_file(path, (8, 8), 3), range(64)):
            assert pixels.shape == (8, 8, 3)
    with pytest.raises(PictureError, match="40 x 30 pixels; accepted are 501"), open_picture(path, 501):
        pass
    assert Image.MAX_IMAGE_PIXELS == 500
    with pytest.raises(Image.DecompressionBombError), open_picture(path, 400):
        pass


def test_big_photographs_are_decoded_reduced_and_look_the_same(tmp_path: Path) -> None:
    across = np.linspace(0, 255, 640)
    photo = np.stack(
        [np.tile(across, (480, 1)), np.tile(across[::-1], (480, 1)), np.full((480, 640), 99)], -1
    )
    Image.fromarray(photo.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(photo.astype(np.uint8)).save(tmp_path / "a.png")
    from_jpeg, from_png = (read_file(tmp_path / f"a.{suffix}", (32, 32), 3) for suffix in ("jpg", "png"))
    assert np.abs(from_jpeg.astype(int) - from_png).max() <= 3


# --- TFDS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared TFDS sets, made on the spot."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    picture_of = tfds.features.Image

    def write(name: str, features: dict, splits: dict[str, list], version="1.0.0") -> None:
        class Handmade(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version(version)

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, _):
                return {split: iter(enumerate(examples)) for split, examples in splits.items()}

            def _generate_examples(self, _):
                raise NotImplementedError

        Handmade.name = name
        Handmade(data_dir=folder).download_and_prepare()

    def examples(count: int, label=lambda number: number % 3, size=lambda number: (10, 12), level: int = 0):
        return [
            {"image": np.full((*size(number), 3), number + level, np.uint8), "label": label(number)}
            for number in range(count)
        ]

    two = {"image": picture_of(shape=(10, 12, 3)), "label": tfds.features.ClassLabel(names=["a", "b", "c"])}
    any_size = {"image": picture_of(), "label": tfds.features.ClassLabel(num_classes=3)}
    write("whole", two, {"train": examples(30), "test": examples(6, level=100)})
    write("whole", two, {"train": examples(31), "test": examples(6, level=100)}, version="1.2.0")
    write("lonely", two, {"train": examples(30)})
    write(
        "hidden", two, {"train": examples(30), "test": examples(6, lambda _: -1), "validation": examples(3)}
    )
    write("sizes", any_size, {"train": examples(30, size=lambda number: (10 + number // 20, 12))})
    blank = np.zeros((8, 8, 3), np.uint8)
    write(
        "pairs",
        {"left": picture_of(), "right": picture_of(), "label": tfds.features.ClassLabel(num_classes=2)},
        {"train": [{"left": blank, "right": blank, "label": 0}]},
    )
    write(
        "one_class",
        {"image": picture_of(shape=(10, 12, 3)), "label": tfds.features.ClassLabel(names=["a"])},
        {"train": examples(3, lambda _: 0)},
    )
    write("parts", two, {"day": examples(3), "night": examples(3)})
    return folder


def test_prepared_set(prepared: Path) -> None:
    data = load_dataset("whole", data_dir=prepared)  # the newest version
    assert (data.name, data.class_names, data.image_shape) == ("whole", ("a", "b", "c"), (10, 12, 3))
    assert sorted(data.train.images[:, 0, 0, 0].tolist()) == list(range(31))
    assert sorted(data.test.images[:, 9, 11, 2].tolist()) == list(range(100, 106))
    assert (data.train.labels == data.train.images[:, 0, 0, 0] % 3).all()
    assert len(load_dataset("whole:1.0.0", data_dir=prepared).train) == 30


def test_prepared_set_without_test_split(prepared: Path) -> None:
    data = load_dataset("lonely", data_dir=prepared)
    assert (len(data.train), len(data.test)) == (24, 6)
    found = np.concatenate([data.train.images, data.test.images])[:, 0, 0, 0]
    assert sorted(found.tolist()) == list(range(30))
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert (data.test.labels == data.test.images[:, 0, 0, 0] % 3).all()


def test_prepared_set_whose_test_labels_are_secret(prepared: Path) -> None:
    assert len(load_dataset("hidden", data_dir=prepared).test) == 3


def test_prepared_set_of_other_size(prepared: Path) -> None:
    data = load_dataset("whole", data_dir=prepared, image_size=8, image_channels=1)
    assert data.image_shape == (8, 8, 1)
    assert sorted(data.train.images[:, 0, 0, 0].tolist()) == list(range(31))


def test_prepared_set_of_unequal_sizes(prepared: Path) -> None:
    line = error_of("sizes", data_dir=prepared)
    assert "pixels (height x width), number" in line and "10x12" in line and "11x12" in line
    assert "resize all by data.image_size" in line
    data = load_dataset("sizes", data_dir=prepared, image_size=8)
    assert data.image_shape == (8, 8, 3) and data.class_names == ("0", "1", "2")
    found = np.concatenate([data.train.images, data.test.images])[:, 3, 3, 1]
    assert sorted(found.tolist()) == list(range(30))
    assert load_dataset("sizes", data_dir=prepared, image_size=(8, 12)).image_shape == (8, 12, 3)
    looked = inspect("sizes", prepared)
    assert len(looked.sizes) > 1 and looked.sizes.total() == 30 and not looked.unreadable


def test_prepared_sets_that_are_wrong(prepared: Path, tmp_path: Path) -> None:
    line = error_of("pairs", data_dir=prepared)
    assert all(text in line for text in ("left: Image", "right: Image", "label: ClassLabel"))
    assert "an image-classification set has one Image and one ClassLabel" in line
    assert "it has one class, a" in error_of("one_class", data_dir=prepared)
    assert "found the splits day, night; one must be train" in error_of("parts", data_dir=prepared)
    import shutil

    shutil.copytree(prepared / "whole" / "1.0.0", tmp_path / "whole" / "1.0.0")
    records = next((tmp_path / "whole" / "1.0.0").glob("*train*"))
    records.write_bytes(records.read_bytes()[:-50])
    assert "1.0.0 are damaged (" in error_of("whole", data_dir=tmp_path)
    (tmp_path / "whole" / "1.0.0" / "dataset_info.json").write_text("{")
    assert "is damaged (" in error_of("whole", data_dir=tmp_path)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_):
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    monkeypatch.setattr("urllib.request.getproxies", dict)


def test_names_that_tfds_does_not_have(prepared: Path, no_network: None) -> None:
    assert "did you mean cifar10" in error_of("cifar1o", data_dir=prepared)
    assert "did you mean digits?" in error_of("digit")
    line = error_of("no such thing")
    assert f"; a relative path counts from the current folder, {Path.cwd()}" in line
    assert "no data set of that name; TFDS lists its sets" in line
    line = error_of("emnist/letterz", data_dir=prepared)
    assert "found the configuration 'letterz'; accepted: " in line and "letters" in line
    assert "cannot be loaded at version 9.9.9" in error_of("cifar10:9.9.9", data_dir=prepared)
    assert "an image-classification set has one Image" in error_of("imdb_reviews", data_dir=prepared)


def test_set_that_cannot_be_downloaded(tmp_path: Path, no_network: None) -> None:
    line = error_of("mnist", RunError, data_dir=tmp_path)
    assert f"not prepared under {tmp_path}/mnist and cannot be downloaded: no connection to" in line
    assert "data.data_dir" in line and not list(tmp_path.iterdir())


def test_cifar10(shared: Path, no_network: None) -> None:
    if not (shared / "data/tfds/cifar10").is_dir():
        pytest.skip("needs ../shared/data/tfds/cifar10")
    data = load_dataset("cifar10", data_dir=shared / "data/tfds")
    assert (len(data.train), len(data.test), data.image_shape) == (50000, 10000, (32, 32, 3))
    assert data.class_names[:2] == ("airplane", "automobile")
    np.testing.assert_allclose(data.mean, (0.4914, 0.4822, 0.4465), atol=0.01)  # JPEG changes them a little
    np.testing.assert_allclose(data.std, (0.247, 0.2435, 0.2616), atol=0.01)


# --- sets too big for memory


def test_big_sets_are_decoded_once_into_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "pets"
    for number in range(30):
        picture(root / "ab"[number % 2] / f"{number}.png", color=(number, 2 * number, 3))
    expected = load_dataset(str(root))
    monkeypatch.setattr(image_store, "MEMORY_LIMIT", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = load_dataset(str(root))
    assert isinstance(data.train.images, StoredImages) and isinstance(data.test.images, StoredImages)
    for got, wanted in ((data.train, expected.train), (data.test, expected.test)):
        np.testing.assert_array_equal(got.images, wanted.images)
        np.testing.assert_array_equal(got.labels, wanted.labels)
    assert (data.mean, data.std) == (expected.mean, expected.std)
    augmentation = Augmentation(padding=2, flip=True)
    for got, wanted in zip(
        train_batches(data.train, 8, 3, augmentation, 0, 5),
        train_batches(expected.train, 8, 3, augmentation, 0, 5),
        strict=True,
    ):
        assert got[0].shape == (8, 10, 12, 3)
        np.testing.assert_array_equal(got[0], wanted[0])
        np.testing.assert_array_equal(got[1], wanted[1])
    for got, wanted in zip(eval_batches(data.test, 4), eval_batches(expected.test, 4), strict=True):
        np.testing.assert_array_equal(got[0], wanted[0])

    (folder,) = (path for path in (tmp_path / "cache" / "gdas-tf").iterdir() if path.is_dir())
    monkeypatch.setattr(
        "gdas_tf.data.sources.image_folder.read_file", lambda *_: pytest.fail("decoded again")
    )
    load_dataset(str(root))
    monkeypatch.undo()


def test_cache_is_renewed_when_the_images_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = folder_of(tmp_path / "pets", {"a": 5, "b": 5}), tmp_path / "cache"
    monkeypatch.setattr(image_store, "MEMORY_LIMIT", 1000)
    load_dataset(str(root), cache_dir=cache)
    picture(root / "a" / "0.png", color=(1, 2, 3))
    os.utime(root / "a" / "0.png", (1, 1))
    data = load_dataset(str(root), cache_dir=cache)
    images = np.concatenate([data.train.images, data.test.images])
    assert (images == (1, 2, 3)).all((1, 2, 3)).sum() == 1
    load_dataset(str(root), cache_dir=cache, seed=1)
    load_dataset(str(root), cache_dir=cache, image_size=8)
    assert sum(path.is_dir() for path in cache.iterdir()) == 4


def test_cache_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = folder_of(tmp_path / "pets", {"a": 5, "b": 5}), tmp_path / "cache"
    (root / "b" / "4.png").write_bytes(b"")
    monkeypatch.setattr(image_store, "MEMORY_LIMIT", 1000)
    error_of(root, cache_dir=cache, image_size=12, image_channels=3)
    assert not [path for path in cache.iterdir() if not path.name.endswith(".lock")]
    (root / "b" / "4.png").unlink()
    monkeypatch.setattr(image_store, "_MARGIN", 2**62)
    line = error_of(root, RunError, cache_dir=cache)
    assert "GiB free; choose another folder by data.cache_dir" in line
    (tmp_path / "file").write_text("")
    assert "cannot write" in error_of(root, RunError, cache_dir=tmp_path / "file")


# --- halves


@pytest.mark.parametrize("count", [50, 51, 1437])
def test_halves_are_disjoint_complete_and_stratified(count: int) -> None:
    labels = np.random.default_rng(0).integers(0, 7, count)
    first, second = search_halves(labels, 3)
    assert sorted([*first, *second]) == list(range(count))
    assert 0 <= len(first) - len(second) <= 1
    difference = np.bincount(labels[first], minlength=7) - np.bincount(labels[second], minlength=7)
    assert np.abs(difference).max() <= 1
    np.testing.assert_array_equal(first, search_halves(labels, 3)[0])
    assert len(np.intersect1d(first, search_halves(labels, 4)[0])) < 0.7 * count / 2


def test_halves_need_two_images() -> None:
    with pytest.raises(UsageError, match="needs at least two"):
        search_halves(np.zeros(1, int), 0)


# --- batches


def test_steps_per_epoch() -> None:
    assert [steps_per_epoch(n, 64) for n in (640, 703, 64, 63, 1)] == [10, 10, 1, 1, 1]


def test_training_epochs_are_permutations() -> None:
    data = numbered(300)
    steps = steps_per_epoch(300, 40)
    batches = list(train_batches(data.train, 40, 5, Augmentation(), 0, 3 * steps))
    assert len(batches) == 21 and all(x.shape == (40, 8, 8, 1) and y.shape == (40,) for x, y in batches)
    epochs = np.array([numbers(x.numpy()) for x, _ in batches]).reshape(3, -1)
    for seen in epochs:
        assert len(set(seen)) == 280 and set(seen) <= set(range(300))
    assert (epochs[0] != epochs[1]).mean() > 0.9 and (epochs[1] != epochs[2]).mean() > 0.9
    assert len(set(epochs.ravel())) >= 298  # who sits out one epoch comes in another
    labels = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(labels, epochs.ravel() % 5)


def test_order_is_random() -> None:
    """Neither neighbours nor successive epochs go together, as they do with TensorFlow's `index_shuffle`."""
    data = numbered(4000)
    seen = np.array([numbers(x.numpy()) for x, _ in train_batches(data.train, 4000, 0, Augmentation(), 0, 8)])
    assert abs(np.corrcoef(seen[:, 1:].ravel(), seen[:, :-1].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(seen[1:].ravel(), seen[:-1].ravel())[0, 1]) < 0.03


def test_search_epochs_are_permutations_of_the_halves() -> None:
    data = numbered(301)
    weight, architecture = search_halves(data.train.labels, 5)
    steps = steps_per_epoch(150, 32)
    batches = list(search_batches(data, 32, 5, Augmentation(), 0, 2 * steps))
    for part, half in ((0, weight), (1, architecture)):
        seen = np.array([numbers(pair[part][0].numpy()) for pair in batches]).reshape(2, -1)
        assert set(seen.ravel()) <= set(half)
        assert [len(set(epoch)) for epoch in seen] == [128, 128]
        labels = np.array([pair[part][1] for pair in batches]).reshape(2, -1)
        np.testing.assert_array_equal(labels, seen % 5)
    dataset = search_batches(data, 32, 5, Augmentation(), 0, 7)
    assert int(dataset.cardinality()) == 7
    (x_t, y_t), (x_v, y_v) = dataset.element_spec
    assert x_t.shape == x_v.shape == (32, 8, 8, 1) and y_t.shape == y_v.shape == (32,)
    assert x_t.dtype == "float32" and y_v.dtype == "int32"


@pytest.mark.parametrize("make", [search_batches, train_batches])
def test_resumed_batches_are_the_very_same(digits: DataSet, make) -> None:
    small = Split(digits.train.images[:200], digits.train.labels[:200])
    data = DataSet("small", digits.class_names, small, digits.test, digits.mean, digits.std)
    source = data if make is search_batches else small
    whole = list(make(source, 40, 9, AUGMENTATION, 0, 15).as_numpy_iterator())
    for first in (4, 13):  # at the begin of an epoch, and inside
        rest = list(make(source, 40, 9, AUGMENTATION, first, 15 - first).as_numpy_iterator())
        for got, wanted in zip(flat(rest), flat(whole[first:]), strict=True):
            np.testing.assert_array_equal(got, wanted)
    other = next(make(source, 40, 10, AUGMENTATION, 0, 1).as_numpy_iterator())
    assert (flat([other])[0] != flat(whole[:1])[0]).any()


def flat(batches) -> list[np.ndarray]:
    import tensorflow as tf

    return tf.nest.flatten(batches)


def test_the_two_halves_and_the_training_have_streams_of_their_own(digits: DataSet) -> None:
    images = np.full((400, 8, 8, 1), 255, np.uint8)
    split = Split(images, np.zeros(400, np.int32))
    data = DataSet("white", ("a", "b"), split, split, (0.5,), (0.25,))
    augmentation = Augmentation(padding=3)
    (x_t, _), (x_v, _) = next(search_batches(data, 200, 0, augmentation, 0, 1).as_numpy_iterator())
    x, _ = next(train_batches(split, 200, 0, augmentation, 0, 1).as_numpy_iterator())
    for one, other in ((x_t, x_v), (x_t, x), (x_v, x)):
        assert (one != other).any((1, 2, 3)).mean() > 0.8


def test_batches_bigger_than_the_data_are_all_of_it() -> None:
    data = numbered(21)
    (x_t, _), (x_v, _) = next(iter(search_batches(data, 64, 0, Augmentation(), 0, 1)))
    assert x_t.shape[0] == x_v.shape[0] == 10
    x, _ = next(iter(train_batches(data.train, 64, 0, Augmentation(), 0, 1)))
    assert sorted(numbers(x.numpy())) == list(range(21))


def test_augmentation_must_fit(digits: DataSet) -> None:
    too_big = Augmentation(cutout=16, mean=digits.mean)
    with pytest.raises(UsageError, match="cutout: found 16 pixels for images 8x8"):
        search_batches(digits, 64, 0, too_big, 0, 1)
    with pytest.raises(UsageError, match="cutout: found 16 pixels for images 8x8"):
        train_batches(digits.train, 64, 0, too_big, 0, 1)


def test_evaluation_sees_every_image_once_in_order(digits: DataSet) -> None:
    batches = list(eval_batches(digits.test, 100))
    assert [len(y) for _, y in batches] == [100, 100, 100, 59]
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), digits.test.labels)
    np.testing.assert_array_equal(
        np.concatenate([x for x, _ in batches]), digits.test.images.astype(np.float32) / np.float32(255)
    )
    assert eval_batches(digits.test, 100).element_spec[0].shape.as_list() == [None, 8, 8, 1]


def test_some_of_the_training_images(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    images = np.arange(1000, dtype=np.uint16).view(np.uint8).reshape(1000, 1, 2)
    np.savez(tmp_path / "a.npz", images=np.tile(images, (1, 8, 4)), labels=labels)
    path = tmp_path / "a.npz"
    whole = load_dataset(path, seed=3)
    part = load_dataset(path, train_images=80, seed=3)
    assert np.bincount(part.train.labels).tolist() == [48, 24, 8]
    assert set(part.train.hashes) < set(whole.train.hashes)
    np.testing.assert_array_equal(part.test.images, whole.test.images)
    np.testing.assert_array_equal(part.train.images, load_dataset(path, train_images=80, seed=3).train.images)
    assert set(part.train.hashes) != set(load_dataset(path, train_images=80, seed=4).train.hashes)
    assert len(load_dataset(path, train_images=5000, seed=3).train) == 800
    with pytest.raises(UsageError, match="leave none of class 1; raise data.train_images"):
        load_dataset(path, train_images=2, seed=3)
