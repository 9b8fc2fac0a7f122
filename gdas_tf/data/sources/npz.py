"""An .npz file as a source."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gdas_tf.data.sources.base import Source, from_arrays
from gdas_tf.data.wording import by, listing, seen_from
from gdas_tf.errors import UsageError
from gdas_tf.user_files import read_npz

_SAVE_BOTH = (
    "write one by numpy.savez(file, images=…, labels=…), with images of one size and class_names of text"
)


def npz(path: Path, image_size: tuple[int, int] | None, image_channels: int | None) -> Source:
    """Returns the images of an .npz file.

    It holds `images` and `labels`, or `x_train`, `y_train` and perhaps `x_test`, `y_test`; and perhaps
    `class_names`. Images are [n, H, W] or [n, H, W, C], whole numbers 0 … 255 or floats in [0, 1]; labels [n]
    are whole numbers from 0.

    Raises:
        UsageError: the file is damaged or holds something else; the line names the array.
    """
    if not os.path.isfile(path):
        raise UsageError(f"data {path}: there is no such file{seen_from(path)}")
    arrays = read_npz(path, f"data {path}", _SAVE_BOTH)
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
    return from_arrays(path.stem, names, train, test, image_size, image_channels)


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
