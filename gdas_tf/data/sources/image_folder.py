"""A folder of images, one subfolder per class, as a source."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gdas_tf.data.images import SUFFIXES, read_file, read_header
from gdas_tf.data.sources.opening import Batches, Part, Source, by, listing
from gdas_tf.errors import UsageError
from gdas_tf.machine import cores

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
"""Subfolders that hold the classes one level deeper; of several, the first in this order counts."""

_BATCH = 256


def image_folder(path: Path, image_size: int | None, image_channels: int | None) -> Source:
    """Returns the images of a folder with one subfolder per class.

    Classes are the subfolders in alphabetical order; images may lie deeper inside. When there is a subfolder
    `train` with subfolders, the classes lie in it and in `test` (or `val`), if there is one. Images are
    grey if all of them are, unless `image_channels` says otherwise.

    Args:
        path: the folder.
        image_size: height and width in pixels to resize to; None if all images have one size already.
        image_channels: 1 or 3; None decides by the images.

    Raises:
        UsageError: no or one class, an empty class, images of unequal size without `image_size`, or
            unreadable images; the line names the first few.
    """
    train_folder = _subfolder(path, TRAIN)
    if train_folder is None or not _subfolders(train_folder):
        train_folder, test_folder = path, None
    else:
        test_folder = _subfolder(path, TEST)
    class_names = tuple(_subfolders(train_folder))
    if len(class_names) == 1:
        raise UsageError(f"folder {train_folder}: found one class, {class_names[0]}; at least two are needed")
    if not class_names:
        raise UsageError(
            f"folder {train_folder}: it has no subfolders; put the images of each class into a subfolder of "
            "its own"
        )
    train = _labelled_files(train_folder, class_names)
    test = _labelled_files(test_folder, class_names) if test_folder else None

    files = [*train.files, *(test.files if test else ())]
    reader = _Reader(path)
    size = (image_size, image_size) if image_size else None
    channels = image_channels
    if size is None or channels is None:
        headers = reader.all(files, read_header, "Looking at")
        size = size or _common_size(path, files, [header[0] for header in headers])
        channels = channels or (1 if all(grey for _, grey in headers) else 3)

    def part(labelled: _Labelled) -> Part:
        def batches() -> Batches:
            for start, images in reader.batches(labelled.files, lambda file: read_file(file, size, channels)):
                yield np.stack(images), labelled.labels[start : start + len(images)]

        return Part(len(labelled.files), batches, lambda: labelled.labels)

    return Source(
        path.resolve().name,
        class_names,
        (*size, channels),
        part(train),
        part(test) if test else None,
        lambda: _fingerprint(path, files),
    )


@dataclass(frozen=True)
class _Labelled:
    files: list[Path]
    labels: np.ndarray


class _Reader:
    """Reads image files in parallel threads (Pillow decodes outside Python's lock)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self, files: Sequence[Path], read: Callable[[Path], Any], verb: str) -> list[Any]:
        """Returns what `read` gives for every file, with a progress bar."""
        results: list[Any] = []
        with tqdm(
            total=len(files), desc=f"{verb} {self.path.name}", unit=" images", delay=1, disable=None
        ) as bar:
            for _, values in self.batches(files, read):
                results += values
                bar.update(len(values))
        return results

    def batches(self, files: Sequence[Path], read: Callable[[Path], Any]) -> Iterator[tuple[int, list[Any]]]:
        """Gives what `read` returns, in order and in batches: (index of the first, values).

        Raises:
            UsageError: at the end, when files could not be read; the line counts them all.
        """

        def attempt(file: Path) -> Any:
            try:
                return read(file)
            except Exception as error:  # Pillow raises many kinds on damaged files
                return _Unreadable(file, error)

        unreadable: list[_Unreadable] = []
        with ThreadPoolExecutor(cores()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata and many pixels
            for start in range(0, len(files), _BATCH):
                values = list(pool.map(attempt, files[start : start + _BATCH]))
                unreadable += (value for value in values if isinstance(value, _Unreadable))
                if not unreadable:
                    yield start, values
        if unreadable:
            names = listing([f"{item.file.relative_to(self.path)} ({item.reason})" for item in unreadable])
            raise UsageError(
                f"folder {self.path}: {len(unreadable)} of {len(files)} images cannot be read: {names}; "
                "repair or remove "
                f"{'them' if len(unreadable) > 1 else 'it'}"
            )


@dataclass(frozen=True)
class _Unreadable:
    file: Path
    error: Exception

    @property
    def reason(self) -> str:
        """What is wrong, in a few words."""
        from PIL import UnidentifiedImageError

        if isinstance(self.error, UnidentifiedImageError):
            return "not an image" if self.file.stat().st_size else "empty file"
        text = getattr(self.error, "strerror", None) or str(self.error) or type(self.error).__name__
        return " ".join(text.split())


def _subfolders(path: Path) -> list[str]:
    return sorted(
        entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith((".", "__"))
    )


def _subfolder(path: Path, names: Sequence[str]) -> Path | None:
    """Returns the subfolder that has one of some names, in capitals or not; the first name found counts."""
    found = {name.lower(): path / name for name in _subfolders(path)}
    return next((found[name] for name in names if name in found), None)


def _labelled_files(path: Path, class_names: tuple[str, ...]) -> _Labelled:
    """Returns the image files below the classes' folders.

    Raises:
        UsageError: a class without images, or a folder that is no class.
    """
    found = _subfolders(path)
    strange = [name for name in found if name not in class_names]
    if strange:
        raise UsageError(
            f"folder {path}: {listing(strange)} is no class; the classes of the training images are "
            f"{listing(class_names, 10)}"
        )
    files = {name: _image_files(path / name) for name in class_names if name in found}
    empty = [name for name, items in files.items() if not items]
    if empty:
        raise UsageError(f"folder {path}: no image of class {listing(empty)}; every class needs some")
    labels = [np.full(len(files.get(name, ())), label) for label, name in enumerate(class_names)]
    return _Labelled(
        [file for items in files.values() for file in items], np.concatenate(labels).astype(np.int32)
    )


def _image_files(path: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += (
            Path(folder, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        )
    return sorted(found)


def _common_size(path: Path, files: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise UsageError(
                f"folder {path}: images of unequal size: {files[0].relative_to(path)} has {by(sizes[0])} "
                "pixels (height x "
                f"width), {file.relative_to(path)} has {by(size)}; resize all by --data-image-size"
            )
    return sizes[0]


def _fingerprint(path: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        about = file.stat()
        digest.update(f"{file.relative_to(path)}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()
