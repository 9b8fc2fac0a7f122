"""The images of a source as arrays: in memory or, when they are too many, decoded once into a cache.

Those in memory are kept on the disk, too, where decoding them takes long (`gdas_tf.data.decoded`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gdas_tf.data import decoded
from gdas_tf.data.sources.base import Part, Source
from gdas_tf.data.stored_images import ImageFile, StoredImages
from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import atomic_path, writing
from gdas_tf.user_files import user_path

MEMORY_LIMIT = 4 * 2**30
"""Bytes of images that are kept in memory; more are read from the cache on disk."""

_VERSION = 1  # of the decoding; another number makes older caches invisible
_CHUNK = 1024  # images
_MARGIN = 2**28  # bytes that a full cache must leave free on the disk

Arrays = tuple[np.ndarray | StoredImages, np.ndarray]
"""Images uint8 [n, H, W, C] and labels int32 [n]."""


def read_source(
    source: Source, held_out: np.ndarray | None, cache_dir: str | Path | None = None
) -> tuple[Arrays, Arrays]:
    """Reads the training and the test images of a source.

    Args:
        source: where the images are.
        held_out: bool, one per training image: which become test images; None if the source has test images.
        cache_dir: folder of the cache; None for `default_cache_dir()`.

    Returns:
        Training and test images. The images are a NumPy array, or `StoredImages` of the cache if they need
        more than `MEMORY_LIMIT`.

    Raises:
        UsageError: the images are damaged.
        RunError: the cache does not fit on the disk, or cannot be written.
    """
    if held_out is None:
        counts = (source.train.count, source.test.count)
    else:
        counts = (source.train.count - int(held_out.sum()), int(held_out.sum()))
    size = sum(counts) * math.prod(source.image_shape)
    folder = _cache_of(cache_dir, needed=size > MEMORY_LIMIT)
    if size > MEMORY_LIMIT:
        return _from_cache(source, held_out, counts, size, folder)
    train, test = (_MemorySink(count, source.image_shape) for count in counts)
    # Found out before anything is read: files that change meanwhile are not those that were read.
    place = decoded.place_of(source, folder) if folder and source.decodes else None
    found = decoded.kept(source, place) if place else None
    begun = time.monotonic()
    _read(found or source, held_out, train, test)
    if place and not found and time.monotonic() - begun > decoded.SLOW:
        decoded.keep(source, place, lambda part: _in_order(part, held_out, train.arrays(), test.arrays()))
    return train.arrays(), test.arrays()


def _in_order(
    part: str, held_out: np.ndarray | None, train: Arrays, test: Arrays
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Gives images and labels in the order of the source, those that were held out where they came from."""
    if held_out is None:
        yield train if part == "train" else test
        return
    of_train = of_test = 0
    for start in range(0, len(held_out), _CHUNK):
        out = held_out[start : start + _CHUNK]
        tested = int(out.sum())
        trained = len(out) - tested
        yield tuple(
            _merged(out, one[of_train : of_train + trained], other[of_test : of_test + tested])
            for one, other in zip(train, test, strict=True)
        )
        of_train, of_test = of_train + trained, of_test + tested


def _merged(out: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What `_read` has divided, as one again."""
    whole = np.empty((len(out), *train.shape[1:]), train.dtype)
    whole[~out], whole[out] = train, test
    return whole


def _cache_of(cache_dir: str | Path | None, needed: bool) -> Path | None:
    """The folder of the cache; None if nobody knows where, and it is not needed."""
    try:
        return user_path(cache_dir, "data.cache_dir") if cache_dir else default_cache_dir()
    except UsageError:
        if needed:
            raise
        return None


def default_cache_dir() -> Path:
    """Returns `$XDG_CACHE_HOME/gdas-tf`, by default `~/.cache/gdas-tf`.

    Raises:
        UsageError: the system does not know the user's home folder.
    """
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "data.cache_dir") / "gdas-tf"


class _MemorySink:
    """Collects batches of images in memory."""

    def __init__(self, count: int, image_shape: tuple[int, int, int]) -> None:
        self.images = np.empty((count, *image_shape), np.uint8)
        self.labels = np.empty(count, np.int32)
        self.filled = 0

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        end = self.filled + len(labels)
        self.images[self.filled : end] = images
        self.labels[self.filled : end] = labels
        self.filled = end

    def arrays(self) -> Arrays:
        return self.images, self.labels


def _read(
    source: Source,
    held_out: np.ndarray | None,
    train: _MemorySink | ImageFile,
    test: _MemorySink | ImageFile,
) -> None:
    """Reads all images once, each to where it belongs, with a progress bar."""
    total = source.train.count + (source.test.count if source.test else 0)
    with tqdm(total=total, desc=f"Reading {source.name}", unit=" images", delay=1, disable=None) as bar:

        def batches(part: Part):
            count = 0
            for images, labels in part.batches():
                yield count, images, labels
                count += len(labels)
                bar.update(len(labels))
            if count != part.count:
                raise UsageError(f"data {source.name}: found {count} images instead of {part.count}")

        for start, images, labels in batches(source.train):
            if held_out is None:
                train.add(images, labels)
            else:
                out = held_out[start : start + len(labels)]
                train.add(images[~out], labels[~out])
                test.add(images[out], labels[out])
        if source.test:
            for _, images, labels in batches(source.test):
                test.add(images, labels)


def _from_cache(
    source: Source, held_out: np.ndarray | None, counts: Sequence[int], size: int, cache: Path
) -> tuple[Arrays, Arrays]:
    import filelock

    # Whatever the arrays depend on is part of the key: an older cache is never mistaken for this one.
    split = hashlib.sha256(held_out).hexdigest() if held_out is not None else None
    key = json.dumps([_VERSION, source.fingerprint(), source.image_shape, counts, split])
    folder = cache / f"{source.name.replace('/', '-')}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    with writing(folder):
        cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_suffix(".lock")):  # a second process waits and finds it done
        if not folder.is_dir():
            for leftover in cache.glob(f".tmp-*-{folder.name}"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            _write_cache(source, held_out, counts, size, folder)
    return tuple(
        (StoredImages(folder / f"{part}_images.npy"), np.load(folder / f"{part}_labels.npy"))
        for part in ("train", "test")
    )


def _write_cache(
    source: Source, held_out: np.ndarray | None, counts: Sequence[int], size: int, folder: Path
) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < size + _MARGIN:
        raise RunError(
            f"data {source.name}: its images take {size / 2**30:.1f} GiB, but {folder.parent} has "
            f"{free / 2**30:.1f} GiB free; choose another folder by data.cache_dir or smaller images by "
            "data.image_size"
        )
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        with (
            open(temporary / "train_images.npy", "wb") as train_file,
            open(temporary / "test_images.npy", "wb") as test_file,
        ):
            train = ImageFile(train_file, counts[0], source.image_shape)
            test = ImageFile(test_file, counts[1], source.image_shape)
            _read(source, held_out, train, test)
        for part, sink in (("train", train), ("test", test)):
            np.save(temporary / f"{part}_labels.npy", np.concatenate(sink.labels))
