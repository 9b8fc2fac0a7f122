"""Where images come from: the embedded digits, TFDS, a folder of images, an .npz file.

A source knows its classes, the shape of its images and their number, and reads the images only when asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gdas_tf.data.images import fit_array
from gdas_tf.errors import UsageError
from gdas_tf.notes import note
from gdas_tf.user_files import user_path

Batches = Iterator[tuple[np.ndarray, np.ndarray]]

_BATCH = 1024
_SAVE_BOTH = "write one by numpy.savez(file, images=…, labels=…)"


@dataclass(frozen=True)
class Part:
    """The training or the test images of a source, not read yet.

    Args:
        count: number of images.
        batches: gives the images in a fixed order, as pairs of uint8 [n, H, W, C] and int32 [n].
        labels: gives all labels, int32 [count], in the same order.
    """

    count: int
    batches: Callable[[], Batches]
    labels: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Source:
    """Labelled images that are not read yet.

    Args:
        name: the name to show.
        class_names: a name per label.
        image_shape: height, width, channels.
        train: training images.
        test: test images; None if the source has none apart.
        fingerprint: gives a text that changes whenever the images do.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Part
    test: Part | None
    fingerprint: Callable[[], str]


def open_source(
    name: str, data_dir: str | Path | None, image_size: int | None, image_channels: int | None
) -> Source:
    """Finds a source by what the user calls it.

    `digits` is the embedded set; then an existing path is a folder or an .npz file; anything else is a
    name in TFDS.

    Args:
        name: `digits`, a folder, an .npz file, or a TFDS name as `cifar10` or `emnist/letters`.
        data_dir: where TFDS sets are prepared.
        image_size: height and width in pixels to resize to; None keeps the images' own.
        image_channels: 1 or 3; None keeps the images' own.

    Raises:
        UsageError: there is no such source, or it is damaged.
        RunError: a TFDS set could not be downloaded.
    """
    path = user_path(name, "data")
    if name == "digits":
        if os.path.isdir(path):
            note("data digits: the embedded digits, not the folder of that name; the folder is ./digits")
        return digits(image_size, image_channels)
    # os.path, as pathlib raises an error about names that are too long to be one.
    if os.path.isdir(path):
        from gdas_tf.data.sources.image_folder import image_folder

        return image_folder(path, image_size, image_channels)
    if path.suffix.lower() == ".npz":
        return npz(path, image_size, image_channels)
    if os.path.exists(path):
        raise UsageError(f"data {name}: it is neither a folder of images nor an .npz file")
    if path.is_absolute() or name.startswith((".", "~")):
        raise UsageError(f"data {name}: there is no such folder{seen_from(path)}")
    from gdas_tf.data.sources.tfds import tfds_source

    return tfds_source(name, data_dir, image_size, image_channels)


def digits(image_size: int | None, image_channels: int | None) -> Source:
    """Returns scikit-learn's embedded set: 1,797 handwritten digits of 8 x 8 pixels, grey."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return _from_arrays("digits", names, (images, labels), None, image_size, image_channels)


def npz(path: Path, image_size: int | None, image_channels: int | None) -> Source:
    """Returns the images of an .npz file.

    It holds `images` and `labels`, or `x_train`, `y_train` and perhaps `x_test`, `y_test`; and perhaps
    `class_names`. Images are [n, H, W] or [n, H, W, C], whole numbers 0 … 255 or floats in [0, 1]; labels [n]
    are whole numbers from 0.

    Raises:
        UsageError: the file is damaged or holds something else; the line names the array.
    """
    arrays = _read_npz(path)
    keys = ("images", "labels") if "images" in arrays else ("x_train", "y_train")
    if not all(key in arrays for key in keys):
        found = ", ".join(arrays) or "nothing"
        raise UsageError(
            f"data {path}: found {found}; it must hold images and labels, or x_train and y_train"
        )
    train = _checked(path, keys, arrays)
    test = None
    if "x_test" in arrays or "y_test" in arrays:
        if "images" in arrays or not ("x_test" in arrays and "y_test" in arrays):
            raise UsageError(f"data {path}: test images need all of x_train, y_train, x_test and y_test")
        test = _checked(path, ("x_test", "y_test"), arrays)
        if test[0].shape[1:] != train[0].shape[1:] and not (image_size and image_channels):
            raise UsageError(
                f"data {path}: images in x_train are {by(train[0].shape[1:])}, in x_test "
                f"{by(test[0].shape[1:])}; they must be equal"
            )
    names = _class_names(path, arrays.get("class_names"), keys[1], train[1])
    for key, labels in ((keys[1], train[1]), ("y_test", test[1] if test else None)):
        if labels is not None and labels.max() >= len(names):
            raise UsageError(
                f"data {path}: {key} has the label {labels.max()}, but there are {len(names)} classes; "
                f"labels must be 0 … {len(names) - 1}"
            )
    counts = np.bincount(train[1], minlength=len(names))
    if len(names) < 2:
        raise UsageError(f"data {path}: found one class, {names[0]}; at least two are needed")
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        raise UsageError(f"data {path}: no training image of class {listing(empty)}; every class needs some")
    return _from_arrays(path.stem, names, train, test, image_size, image_channels)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file by name.

    Raises:
        UsageError: there is none, or it is damaged or another kind of file.
    """
    where = f"data {path}: cannot read it as an .npz file: "
    try:
        with open(path, "rb") as file:
            begin = file.read(8)
        if begin.startswith(b"\x93NUMPY"):
            raise UsageError(f"{where}it is a single array, an .npy file by another name; {_SAVE_BOTH}")
        if not begin.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # NumPy would take it for a pickle
            raise UsageError(f"{where}it is no archive of arrays; {_SAVE_BOTH}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {}
            for name in file.files:
                try:
                    value = file[name]
                except ValueError as error:
                    # NumPy advises a switch that would let the file run code of its own.
                    if "allow_pickle" in str(error):
                        raise UsageError(
                            f"{where}{name} holds Python objects, not numbers; images must all have one "
                            "size, and class_names must be texts"
                        ) from error
                    raise
                if isinstance(value, np.ndarray):  # else another file in the archive
                    arrays[name] = value
            return arrays
    except FileNotFoundError as error:
        raise UsageError(f"data {path}: there is no such file{seen_from(path)}") from error
    except UsageError:
        raise
    except MemoryError as error:
        raise UsageError(f"data {path}: its arrays need more memory than there is; use a folder") from error
    except Exception as error:  # of the zip archive, its compression, or NumPy, each of many kinds
        raise UsageError(f"{where}{_line(error)}") from error


def seen_from(path: str | Path) -> str:
    """Returns what to add to "there is no such file" of a relative path, as of a run made from elsewhere."""
    if Path(path).is_absolute():
        return ""
    with contextlib.suppress(OSError):  # the folder is gone
        return f"; a relative path counts from the current folder, {Path.cwd()}"
    return ""


def listing(items: Sequence[object], most: int = 3) -> str:
    """Returns the first few items and how many more there are."""
    shown = ", ".join(map(str, items[:most]))
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown


def by(shape: Sequence[int]) -> str:
    """Returns a shape as text: 32x32x3."""
    return "x".join(map(str, shape))


def _from_arrays(
    name: str,
    class_names: tuple[str, ...],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    image_size: int | None,
    image_channels: int | None,
) -> Source:
    size = (image_size, image_size) if image_size else None
    channels = image_channels or train[0].shape[3]
    if channels == 4:
        channels = 3

    def part(images: np.ndarray, labels: np.ndarray) -> Part:
        labels = labels.astype(np.int32)

        def batches() -> Batches:
            for start in range(0, len(labels), _BATCH):
                chunk = images[start : start + _BATCH]
                yield (
                    np.stack([fit_array(image, size, channels) for image in chunk]),
                    labels[start : start + _BATCH],
                )

        return Part(len(labels), batches, lambda: labels)

    def fingerprint() -> str:
        import hashlib

        digest = hashlib.sha256()
        for array in (*train, *(test or ())):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    height, width = size or train[0].shape[1:3]
    return Source(
        name,
        class_names,
        (height, width, channels),
        part(*train),
        part(*test) if test else None,
        fingerprint,
    )


def _checked(
    path: Path, keys: tuple[str, str], arrays: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [n, H, W, C] and labels int64 [n] of an .npz file."""
    images, labels = (arrays[key] for key in keys)
    where = f"data {path}: {keys[0]}"
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape:
        raise UsageError(
            f"{where} has the shape {by(arrays[keys[0]].shape)}; it must be [n, height, width] or "
            "[n, height, width, channels] with 1, 3 or 4 channels"
        )
    if images.dtype.kind == "f":
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):  # NaN too
            raise UsageError(f"{where} has values {low:g} … {high:g}; floats must lie in [0, 1]")
        images = np.round(images * 255).astype(np.uint8)
    elif images.dtype.kind in "iu":
        if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 255):
            raise UsageError(
                f"{where} has values {images.min()} … {images.max()}; whole numbers must lie in 0 … 255"
            )
        images = images.astype(np.uint8, copy=False)
    else:
        raise UsageError(f"{where} has the type {images.dtype}; it must be uint8, or floats in [0, 1]")

    where = f"data {path}: {keys[1]}"
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras has them
        labels = labels[:, 0]
    if labels.shape != (len(images),):
        raise UsageError(
            f"{where} has the shape {by(labels.shape) or 'of a single number'}; it must be [{len(images)}], "
            f"one label for each of {keys[0]}"
        )
    odd = ~np.isfinite(labels) | (labels != np.floor(labels)) if labels.dtype.kind == "f" else None
    if labels.dtype.kind not in "iuf" or (odd is not None and odd.any()):
        value = labels[0 if odd is None else int(odd.argmax())]
        raise UsageError(f"{where} has the value {value}; labels must be whole numbers from 0")
    if labels.min() < 0 or float(labels.max()) >= 2.0**63:
        beyond = labels.min() if labels.min() < 0 else labels.max()
        raise UsageError(f"{where} has the label {beyond:g}; labels must be whole numbers from 0")
    return images, labels.astype(np.int64)


def _class_names(path: Path, names: np.ndarray | None, key: str, labels: np.ndarray) -> tuple[str, ...]:
    if names is None:
        found = np.unique(labels)
        if found[-1] >= len(found):
            raise UsageError(
                f"data {path}: {key} has {len(found)} different labels, {listing(found)}; they must be "
                f"0 … {len(found) - 1}, as numpy.unique(labels, return_inverse=True)[1] makes them"
            )
        return tuple(map(str, found.tolist()))
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise UsageError(
            f"data {path}: class_names must be a list of different texts, one per class; found the shape "
            f"{by(names.shape)} and type {names.dtype}"
        )
    return tuple(names.tolist())


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
