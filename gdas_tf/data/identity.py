"""Which data a network was made on, and whether the data of today are the same.

A run directory keeps a `DataRecord` of the data that its search and its retraining saw (`data.json`,
`data.npz`), and the files of the network carry it: `model.keras` has the whole record in its metadata, ONNX
files and SavedModels have its `DataIdentity`. With it, a later command finds out whether classes, images, the
seed or the part that was held out have changed, and which images the network was trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.data.stored_images import StoredImages, chunks
from gdas_tf.data.wording import by, listing
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    from gdas_tf.data.dataset import DataSet

_HASH_BYTES = 8
_LARGEST_SIZE = 1024  # that data.image_size takes


@dataclass(frozen=True)
class Draw:
    """How test images were drawn from the images of a data set that has no test images of its own.

    Args:
        seed: seed of the run.
        fraction: part of the images that was drawn.
    """

    seed: int
    fraction: float

    def __str__(self) -> str:
        return f"seed {self.seed} and data.test_fraction {self.fraction:g}"


@dataclass(frozen=True)
class DataIdentity:
    """What tells one labelled data set, divided into training and test images, from another.

    Args:
        name: name to show; two names do not make two data sets.
        class_names: a name per label, in the order of the network's outputs.
        image_shape: height, width, channels.
        train_images: number of training images.
        train_digest: digest of the pixels and labels of the training images, whatever their order.
        test_images: number of test images.
        test_digest: digest of the pixels and labels of the test images, whatever their order.
        draw: how the test images were drawn; None if the data set had test images of its own.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_images: int
    train_digest: str
    test_images: int
    test_digest: str
    draw: Draw | None

    @property
    def options(self) -> dict[str, Any]:
        """The values of the configuration with which the same data are read and divided in the same way."""
        height, width, channels = self.image_shape
        values: dict[str, Any] = {"data.image_channels": channels}
        if max(height, width) <= _LARGEST_SIZE:  # others were not resized
            values["data.image_size"] = height if height == width else (height, width)
        if self.draw:
            values |= {"seed": self.draw.seed, "data.test_fraction": self.draw.fraction}
        return values

    def same_images(self, other: DataIdentity) -> bool:
        """Returns whether training and test images, with their labels, are those of `other`."""
        return (self.train_digest, self.test_digest) == (other.train_digest, other.test_digest)

    def to_json(self) -> dict[str, Any]:
        """Returns the identity in plain JSON types."""
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
            "train": {"images": self.train_images, "digest": self.train_digest},
            "test": {"images": self.test_images, "digest": self.test_digest},
            "drawn_with": {"seed": self.draw.seed, "test_fraction": self.draw.fraction}
            if self.draw
            else None,
        }

    @classmethod
    def from_json(cls, values: Any) -> DataIdentity:
        """Returns the identity that `to_json` wrote.

        Raises:
            ValueError: these are other values.
        """
        try:
            train, test, draw = values["train"], values["test"], values["drawn_with"]
            height, width, channels = map(int, values["image_shape"])
            return cls(
                str(values["name"]),
                tuple(map(str, values["class_names"])),
                (height, width, channels),
                int(train["images"]),
                str(train["digest"]),
                int(test["images"]),
                str(test["digest"]),
                Draw(int(draw["seed"]), float(draw["test_fraction"])) if draw else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError("not the identity of a data set") from error


@dataclass(frozen=True, eq=False)
class DataRecord:
    """The identity of the data that a network was made on and, where they are kept, the single images.

    Args:
        identity: the identity.
        train_hashes: `image_hashes` of the training images, uint64 [n] in any order; None if not kept.
        test_hashes: those of the test images, likewise.
    """

    identity: DataIdentity
    train_hashes: np.ndarray | None = None
    test_hashes: np.ndarray | None = None

    @classmethod
    def of(cls, data: DataSet) -> DataRecord:
        """Returns the record of a data set."""
        return cls(data.identity, data.train.hashes, data.test.hashes)


def image_hashes(images: np.ndarray) -> np.ndarray:
    """Returns a number for each image that tells its pixels from others: the first 8 bytes of their SHA-256.

    Args:
        images: uint8 [n, H, W, C].

    Returns:
        uint64 [n].
    """
    digests = []
    for chunk in chunks(images):
        rows = np.ascontiguousarray(chunk).reshape(len(chunk), -1)
        digests += [hashlib.sha256(row).digest()[:_HASH_BYTES] for row in rows]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def images_digest(hashes: np.ndarray, labels: np.ndarray) -> str:
    """Returns a text that tells these images and labels from others, whatever their order.

    Args:
        hashes: `image_hashes` of the images, uint64 [n].
        labels: a label for each image, int [n].
    """
    order = np.lexsort((labels, hashes))
    digest = hashlib.sha256(hashes[order].astype("<u8").tobytes())
    digest.update(labels[order].astype("<i4").tobytes())
    return digest.hexdigest()[:32]


def check_network_fits(record: DataRecord, data: DataSet, owner: str) -> None:
    """Makes sure that a network's outputs mean the classes of a data set, and its inputs are such images.

    Args:
        record: the record of the data that the network was made on.
        data: the data set.
        owner: what the record belongs to, for the message: `run directory runs/a`.

    Raises:
        UsageError: other classes, another order of them, or images of another shape.
    """
    old, new = record.identity, data.identity
    if old.class_names != new.class_names:
        gone = [name for name in old.class_names if name not in new.class_names]
        added = [name for name in new.class_names if name not in old.class_names]
        changes = [
            f"class {names[0]} is {what}" if len(names) == 1 else f"classes {listing(names)} are {what}"
            for names, what in ((gone, "gone"), (added, "new"))
            if names
        ]
        if len(old.class_names) != len(new.class_names):
            changes.append(f"found {len(new.class_names)} classes instead of {len(old.class_names)}")
        raise UsageError(
            f"data {data.name}: its classes are not those that {owner} was made on: "
            f"{', '.join(changes) or 'they are in another order'}; give the classes the names and the order "
            "that they had, or train a network on the data as they are"
        )
    if old.image_shape != new.image_shape:
        raise UsageError(
            f"data {data.name}: its images are {by(new.image_shape)}; {owner} was made on images of "
            f"{by(old.image_shape)}; read them with the same data.image_size and data.image_channels"
        )


def describe_change(record: DataRecord, data: DataSet) -> str | None:
    """Returns what is different about the images of a data set, or None if it is the one of the record.

    Args:
        record: the record of the data that a network was made on.
        data: the data of today, with the same classes.
    """
    old, new = record.identity, data.identity
    if old.same_images(new):
        return None
    parts = []
    if old.draw and not new.draw:
        parts.append("it has test images of its own now, which it had not")
    elif new.draw and not old.draw:
        parts.append("it had test images of its own, and has none now")
    if record.train_hashes is not None and record.test_hashes is not None:
        then = Counter(np.concatenate([record.train_hashes, record.test_hashes]).tolist())
        now = Counter(np.concatenate([data.train.hashes, data.test.hashes]).tolist())
        for count, what in (((now - then).total(), "new"), ((then - now).total(), "gone")):
            if count:
                parts.append(f"{count} image{' is' if count == 1 else 's are'} {what}")
    elif (old.train_images, old.test_images) != (new.train_images, new.test_images):
        parts.append(
            f"it has {new.train_images} training and {new.test_images} test images, it had "
            f"{old.train_images} and {old.test_images}"
        )
    if not parts:
        parts.append("it has as many images as it had, but pixels, labels or test images are others")
    if record.train_hashes is not None:
        known = int(np.isin(data.test.hashes, record.train_hashes).sum())
        if known:
            parts.append(f"{known} of the {len(data.test)} images that are test images now were trained on")
    return ", ".join(parts)


def check_same_draw(record: DataRecord, data: DataSet, owner: str) -> None:
    """Makes sure that no other seed or fraction was asked for than the test images were drawn with.

    Raises:
        UsageError: they were drawn with others.
    """
    old, new = record.identity, data.identity
    if old.draw and new.draw and old.draw != new.draw and not old.same_images(new):
        raise UsageError(
            f"data {data.name}: {new.draw} hold out other test images than those of {owner}, which were "
            f"drawn with {old.draw}; leave both out, or give the same"
        )


def check_same_data(record: DataRecord, data: DataSet, owner: str) -> None:
    """Makes sure that data are those of a record, as before a training goes on.

    Args:
        record: the record of the data that the training began on.
        data: the data of today.
        owner: what the record belongs to, for the message: `run directory runs/a`.

    Raises:
        UsageError: they are others; the line says what has changed.
    """
    check_network_fits(record, data, owner)
    check_same_draw(record, data, owner)
    change = describe_change(record, data)
    if change:
        raise UsageError(
            f"data {data.name}: it is not what {owner} was made on: {change}; bring the data back as they "
            "were, or begin another run directory"
        )


def untrained_part(record: DataRecord, data: DataSet) -> DataSet:
    """Returns data that have changed with other test images: all that the network was not trained on.

    Where test images are drawn, these are all images that are not among the training images of the record:
    the old test images and the new images. Where the data have test images of their own, it is these without
    those that were trained on. An image counts as the same if its pixels are, whatever its name and label.

    Args:
        record: the record of the data that the network was made on, with `train_hashes`.
        data: the data of today, with the same classes.

    Raises:
        UsageError: no image is left.
    """
    trained_on = np.isin(data.train.hashes, record.train_hashes)
    test = data.test.take(~np.isin(data.test.hashes, record.train_hashes))
    train = data.train
    if data.draw:
        test = test.joined(data.train.take(~trained_on))
        if trained_on.any() and not isinstance(
            train.images, StoredImages
        ):  # not into memory if they exceed it
            train = train.take(trained_on)
    if not len(test):
        raise UsageError(f"data {data.name}: the network was trained on all of its images; none can test it")
    return replace(data, train=train, test=test)


def identity_from_metadata(metadata: Mapping[str, str]) -> DataIdentity | None:
    """Returns the identity in the metadata of an ONNX file; None if there is none, or no readable one."""
    import json

    try:
        return DataIdentity.from_json(json.loads(metadata["data"]))
    except (KeyError, ValueError):
        return None


def onnx_identity(path: str | Path) -> DataIdentity | None:
    """Returns the identity of the data that the network of an ONNX file was made on; None if it says nothing.

    A file that is missing or damaged says nothing; whoever opens the network reports that.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # protobuf and the operating system each have errors of their own
        return None
    return identity_from_metadata({item.key: item.value for item in model.metadata_props})
