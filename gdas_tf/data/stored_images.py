"""Images in a file on the disk, of which only those that are asked for are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_CHUNK = 2**24  # bytes; NumPy makes eight times as many of them where it counts pixels


class StoredImages:
    """The images of an .npy file, as a read-only array uint8 [n, H, W, C].

    They are read, not mapped: the pages of a mapped file count as memory of the process, and those of a set
    that is gone through in random order would soon be all of it. The system keeps what it read for as long as
    nobody else needs the memory.

    Args:
        path: of the file, in C order. Another process that gets the images opens it anew.

    Example:
        >>> images = StoredImages("train_images.npy")
        >>> images.shape
        (100000, 224, 224, 3)
        >>> images[np.array([7, 99_999, 12])].shape
        (3, 224, 224, 3)
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - it is read for as long as this lives
        np.lib.format.read_magic(self._file)
        self.shape, _, dtype = np.lib.format.read_array_header_1_0(self._file)
        if dtype != self.dtype:
            raise ValueError(f"{path}: found {dtype}; images are uint8")
        self._begin, self._bytes = self._file.tell(), math.prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredImages, (self.path,)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, chosen: slice | int | np.ndarray) -> np.ndarray:
        """Reads images.

        Args:
            chosen: a slice, a position, or an array: positions int [k], or bool [n].

        Returns:
            uint8 [k, H, W, C]; of one position [H, W, C].

        Raises:
            IndexError: there is no such image.
            OSError: the file cannot be read, or ends too early.
        """
        if isinstance(chosen, slice):
            chosen = np.arange(*chosen.indices(len(self)))
        positions = np.asarray(chosen)
        if positions.dtype == bool:
            positions = np.flatnonzero(positions)
        if positions.size and not -len(self) <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"{self.path}: positions {positions} of {len(self)} images")
        images = np.empty((*positions.shape, *self.shape[1:]), np.uint8)
        for row, position in zip(
            images.reshape(-1, self._bytes), positions.reshape(-1) % len(self), strict=True
        ):
            self._read(row, self._begin + int(position) * self._bytes)
        return images

    def _read(self, row: np.ndarray, begin: int) -> None:
        done = 0
        while done < self._bytes:
            count = os.preadv(self._file.fileno(), [memoryview(row)[done:]], begin + done)
            if not count:
                raise OSError(f"{self.path} ends before image {(begin - self._begin) // self._bytes}")
            done += count


class ImageFile:
    """Appends batches of images to an .npy file, which `StoredImages` reads, and keeps their labels.

    The file is written from begin to end, because filling a memory map on a full disk kills the process.

    Args:
        file: to write to.
        count: images in all.
        image_shape: of each.
    """

    def __init__(self, file: BinaryIO, count: int, image_shape: tuple[int, int, int]) -> None:
        self.file = file
        self.labels: list[np.ndarray] = []
        header = {
            "descr": np.lib.format.dtype_to_descr(StoredImages.dtype),
            "fortran_order": False,
            "shape": (count, *image_shape),
        }
        np.lib.format.write_array_header_1_0(file, header)

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(images).data)
        self.labels.append(labels)


def chunks(images: np.ndarray | StoredImages) -> Iterator[np.ndarray]:
    """Yields all images in order, few at a time: they may lie on a disk, and exceed memory."""
    size = max(1, _CHUNK // math.prod(images.shape[1:]))
    for start in range(0, len(images), size):
        yield images[start : start + size]
