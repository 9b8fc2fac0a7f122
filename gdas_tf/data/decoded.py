"""Images that took long to decode, kept on the disk for the next command.

Every stage reads the data set: so do all runs of a study, and all trials. Decoding 60,000 JPEG files takes
20 s of each. What is kept is no more than a shortcut: where it cannot be written or read, images are decoded
again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from gdas_tf.data.sources.base import Batches, Part, Source
from gdas_tf.data.stored_images import ImageFile, StoredImages
from gdas_tf.errors import RunError
from gdas_tf.files import atomic_path, writing

SLOW = 4.0
"""Seconds of reading from which on images are kept."""

LIMIT = 8 * 2**30
"""Bytes of all that is kept in a folder; what was not used for longest goes first."""

_PREFIX = "decoded-"
_VERSION = 1
_BATCH = 1024
_MARGIN = 2**28  # bytes that stay free on the disk
_DECODERS = ("pillow", "tensorflow")  # another version of them may decode to other pixels

_FAILURES = (OSError, RunError, ValueError, EOFError)
"""What reading and writing of kept images ends in on a full or read-only disk, and of a damaged file."""


def place_of(source: Source, cache: Path) -> Path | None:
    """Returns where the images of a source are kept; its name tells all that they depend on.

    None where that cannot be found out, as of a file that has gone.
    """
    try:
        fingerprint = source.fingerprint()
    except OSError:
        return None
    decoders = [metadata.version(name) for name in _DECODERS]
    counts = [part.count for part in _parts(source).values()]
    key = json.dumps([_VERSION, decoders, fingerprint, source.image_shape, counts])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache / f"{_PREFIX}{source.name.replace('/', '-')[-60:]}-{digest}"


def kept(source: Source, folder: Path) -> Source | None:
    """Returns the same source, its images read from what is kept of them; None if nothing is."""
    with contextlib.suppress(*_FAILURES):
        parts = {name: _read_part(folder, name, part, source) for name, part in _parts(source).items()}
        os.utime(folder)
        return dataclasses.replace(source, **parts)
    return None


def keep(
    source: Source, folder: Path, batches: Callable[[str], Iterator[tuple[np.ndarray, np.ndarray]]]
) -> None:
    """Keeps the images of a source, if there is room for them.

    Args:
        source: Where they are from.
        folder: `place_of` them.
        batches: Gives images and labels of "train" or "test", in the order of the source.
    """
    import filelock

    parts, cache = _parts(source), folder.parent
    size = sum(part.count for part in parts.values()) * math.prod(source.image_shape)
    with contextlib.suppress(*_FAILURES, filelock.Timeout):
        cache.mkdir(parents=True, exist_ok=True)
        if size > LIMIT or shutil.disk_usage(cache).free < size + _MARGIN:
            return
        with filelock.FileLock(cache / f"{_PREFIX[:-1]}.lock", timeout=0):  # else another process is at it
            with atomic_path(folder) as temporary, writing(folder):
                temporary.mkdir()
                for name, part in parts.items():
                    _write_part(temporary, name, part.count, source.image_shape, batches(name))
            _make_room(cache, folder)


def _parts(source: Source) -> dict[str, Part]:
    return {"train": source.train} | ({} if source.test is None else {"test": source.test})


def _read_part(folder: Path, name: str, part: Part, source: Source) -> Part:
    images, labels = StoredImages(folder / f"{name}_images.npy"), np.load(folder / f"{name}_labels.npy")
    if images.shape != (part.count, *source.image_shape) or len(labels) != part.count:
        raise ValueError(f"{folder}: damaged")

    def batches() -> Batches:
        for start in range(0, part.count, _BATCH):
            yield images[start : start + _BATCH], labels[start : start + _BATCH]

    images[part.count - 1 :]  # a file that was cut short ends here, and not amid the reading
    return dataclasses.replace(part, batches=batches, labels=lambda: labels)


def _write_part(
    folder: Path,
    name: str,
    count: int,
    image_shape: tuple[int, int, int],
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
) -> None:
    with open(folder / f"{name}_images.npy", "wb") as file:
        written = ImageFile(file, count, image_shape)
        for images, labels in batches:
            written.add(images, labels)
    np.save(folder / f"{name}_labels.npy", np.concatenate(written.labels))


def _make_room(cache: Path, newest: Path) -> None:
    """Removes what was not used for longest, until what is kept is no more than `LIMIT`."""
    found = sorted(
        (path for path in cache.glob(f"{_PREFIX}*") if path.is_dir() and path != newest),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    total = _bytes(newest)
    for folder in found:
        total += _bytes(folder)
        if total > LIMIT:
            shutil.rmtree(folder, ignore_errors=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
