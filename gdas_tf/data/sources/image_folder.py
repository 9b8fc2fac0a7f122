"""A folder of images, one subfolder per class, as a source."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gdas_tf.data.images import read_file, read_header
from gdas_tf.data.picture_files import Found, PictureFinder, accepted, merged
from gdas_tf.data.sources.base import Batches, Part, Picture, Source
from gdas_tf.data.sources.folder_layout import Layout, check_beside, find_layout, meet_all
from gdas_tf.data.wording import by, listing
from gdas_tf.errors import UsageError
from gdas_tf.machine import cores
from gdas_tf.notes import note

_BATCH = 256


def image_folder(path: Path, image_size: tuple[int, int] | None, image_channels: int | None) -> Source:
    """Returns the images of a folder with one subfolder per class.

    Classes are the subfolders in alphabetical order; images may lie deeper inside. When there is a subfolder
    `train` with subfolders, the classes lie in it and in `test` (or `val`), if there is one with subfolders.
    Images are grey if all of them are, unless `image_channels` says otherwise.

    Folders of the system (see `gdas_tf.data.picture_files`) and run directories are no classes and are not
    looked into; a folder that links lead to is read once. A note counts what else is left alone.

    Args:
        path: the folder.
        image_size: height and width in pixels to resize to; None if all images have one size already.
        image_channels: 1 or 3; None decides by the images.

    Raises:
        UsageError: no or one class, an empty class, splits that could be classes or the other way round,
            two classes that are one folder, images of unequal size without `image_size`, or unreadable
            images; the line names the first few.
    """
    finder = PictureFinder(path)
    layout = find_layout(path, finder)
    train = _labelled_files(path, layout.train, None, finder)
    if not train.class_names:
        raise UsageError(
            f"folder {layout.train}: it has no subfolders; put the images of each class into a subfolder of "
            "its own"
        )
    if len(train.class_names) == 1:
        raise UsageError(
            f"folder {layout.train}: found one class, {train.class_names[0]}; at least two are needed"
        )
    test = _labelled_files(path, layout.test, train.class_names, finder) if layout.test else None
    check_beside(path, layout, finder)
    _note_left_alone(path, layout, finder, [part for part in (train, test) if part])

    files = [*train.files, *(test.files if test else ())]
    reader = _Reader(path)
    size, channels = image_size, image_channels
    if size is None or channels is None:
        headers = reader.all(files, read_header, "Looking at")
        size = size or _common_size(path, files, [header[0] for header in headers])
        channels = channels or (1 if all(grey for _, grey in headers) else 3)

    def part(labelled: _Labelled) -> Part:
        def batches() -> Batches:
            for start, images in reader.batches(labelled.files, lambda file: read_file(file, size, channels)):
                yield np.stack(images), labelled.labels[start : start + len(images)]

        def pictures() -> Iterator[Picture]:
            for start, values in reader.attempts(labelled.files, _look):
                for number, (value, file) in enumerate(
                    zip(values, labelled.files[start : start + len(values)], strict=True), start
                ):
                    place, label = str(file.relative_to(path)), int(labelled.labels[number])
                    if isinstance(value, _Unreadable):
                        yield Picture(place, label, problem=value.reason)
                    else:
                        yield replace(value, place=place, label=label)

        return Part(len(labelled.files), batches, lambda: labelled.labels, pictures)

    return Source(
        path.resolve().name,
        train.class_names,
        (*size, channels),
        part(train),
        part(test) if test else None,
        lambda: _fingerprint(path, files),
    )


@dataclass(frozen=True)
class _Labelled:
    """The image files of a split, their labels, int32 [n], and what else was found there."""

    class_names: tuple[str, ...]
    files: list[Path]
    labels: np.ndarray
    found: list[Found]


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

        unreadable: list[_Unreadable] = []
        for start, values in self.attempts(files, read):
            unreadable += (value for value in values if isinstance(value, _Unreadable))
            if not unreadable:
                yield start, values
        if unreadable:
            names = listing([f"{item.file.relative_to(self.path)} ({item.reason})" for item in unreadable])
            raise UsageError(
                f"folder {self.path}: {len(unreadable)} of {len(files)} images cannot be read: {names}; "
                f"repair or remove {'them' if len(unreadable) > 1 else 'it'}"
            )

    def attempts(self, files: Sequence[Path], read: Callable[[Path], Any]) -> Iterator[tuple[int, list[Any]]]:
        """Gives what `batches` does, with an `_Unreadable` in the place of what cannot be read."""

        def attempt(file: Path) -> Any:
            try:
                return read(file)
            except Exception as error:  # Pillow raises many kinds on damaged files
                return _Unreadable(file, error)

        with ThreadPoolExecutor(cores()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata and many pixels
            for start in range(0, len(files), _BATCH):
                yield start, list(pool.map(attempt, files[start : start + _BATCH]))


def _look(file: Path) -> Picture:
    """Reads a picture whole; its place and label are yet to be told."""
    _, grey = read_header(file)
    show = functools.partial(read_file, file, None, 1 if grey else 3)
    return Picture.of("", 0, show(), 1 if grey else 3, show)


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


def _labelled_files(
    root: Path, path: Path, class_names: tuple[str, ...] | None, finder: PictureFinder
) -> _Labelled:
    """Returns the image files below the classes' folders.

    Args:
        root: the data set's folder.
        path: the folder of the classes' folders.
        class_names: the classes; None takes them from the folders.
        finder: knows the folders that were found already.

    Raises:
        UsageError: a class without images, a folder that is no class, or two that are one.
    """
    names, runs = finder.subfolders(path)
    strange = [name for name in names if name not in class_names] if class_names else []
    if strange:
        raise UsageError(
            f"folder {path}: {listing(strange)} is no class; the classes of the training images are "
            f"{listing(class_names, 10)}; rename it, or move it elsewhere"
        )
    # All before the first is looked into: no link below one class may lead to another.
    meet_all(root, [path / name for name in names], finder)
    found = {name: finder.find(path / name) for name in names}
    # A folder of run directories, as the default one, is no class.
    runs += [run for name in names if not found[name].files for run in found[name].runs]
    found = {name: items for name, items in found.items() if items.files or not items.runs}
    empty = [name for name, items in found.items() if not items.files]
    if empty:
        left_alone = merged([found[name] for name in empty]).left_alone(root)
        hint = f"; left alone there: {', '.join(left_alone)}; accepted are {accepted()}" if left_alone else ""
        raise UsageError(f"folder {path}: no image of class {listing(empty)}; every class needs some{hint}")
    class_names = class_names or tuple(found)
    counts = [len(found[name].files) if name in found else 0 for name in class_names]
    return _Labelled(
        class_names,
        [file for items in found.values() for file in items.files],
        np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        [*found.values(), Found(runs=runs)],
    )


def _note_left_alone(path: Path, layout: Layout, finder: PictureFinder, parts: Sequence[_Labelled]) -> None:
    left_alone = merged([found for part in parts for found in part.found]).left_alone(path)
    loose = sum(finder.loose(folder) for folder in {path, layout.train, layout.test or path})
    if loose:
        left_alone.append(f"{loose:,} outside of the classes' folders")
    if left_alone:
        note(f"folder {path}: left alone: {', '.join(left_alone)}")


def _common_size(path: Path, files: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise UsageError(
                f"folder {path}: images of unequal size: {files[0].relative_to(path)} has {by(sizes[0])} "
                f"pixels (height x width), {file.relative_to(path)} has {by(size)}; resize all by "
                "data.image_size"
            )
    return sizes[0]


def _fingerprint(path: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(os.fsencode(path.resolve()))  # names may be no UTF-8
    for file in files:
        about = file.stat()
        changed = (about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        digest.update(os.fsencode(f"{file.relative_to(path)}\0{changed}\n"))
    return digest.hexdigest()
