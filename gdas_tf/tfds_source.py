"""Image-classification sets of TensorFlow Datasets as sources."""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.errors import RunError, UsageError
from gdas_tf.images import fit_array
from gdas_tf.sources import Batches, Part, Source, by, listing

_BATCH = 1024
_DECODED_BATCH = 256
_STORAGE = "storage.googleapis.com"


def tfds_source(
    name: str, data_dir: str | Path | None, image_size: int | None, image_channels: int | None
) -> Source:
    """Returns an image-classification set of TensorFlow Datasets.

    What is prepared under `data_dir` is used as it is, without any network; otherwise the set is downloaded
    and prepared there. Test images are those of the split `test`, or else of `validation`.

    Args:
        name: name of the set, perhaps with a configuration and a version: `cifar10`, `emnist/letters`,
            `cifar10:3.0.2`.
        data_dir: folder of prepared sets; None for TFDS' own default, `~/tensorflow_datasets`.
        image_size: height and width in pixels to resize to; None if all images have one size already.
        image_channels: 1 or 3; None keeps the set's own.

    Raises:
        UsageError: unknown name, no images with one label, images of unequal size, or damaged files.
        RunError: the set is not prepared and cannot be downloaded.
    """
    folder = Path(data_dir).expanduser() if data_dir else None
    with _quiet():
        builder = _builder(name, folder)
        image, label = _features(name, builder.info)
        classes = builder.info.features[label].num_classes
        names = tuple(builder.info.features[label].names or map(str, range(classes)))
        if len(names) < 2:
            raise UsageError(f"data set {name}: it has one class, {names[0]}; at least two are needed")
        reader = _Reader(name, builder, image, label)
        train, test = _splits(name, builder, reader)
        found = builder.info.features[image].shape
        if None in found:
            found = reader.first(train)[0].shape
    size = (image_size, image_size) if image_size else tuple(found[:2])
    channels = image_channels or (1 if found[2] == 1 else 3)

    def part(split: str) -> Part:
        return Part(
            builder.info.splits[split].num_examples,
            lambda: reader.batches(split, size, channels, stretch=image_size is not None),
            lambda: reader.labels(split),
        )

    return Source(
        name,
        names,
        (*size, channels),
        part(train),
        part(test) if test else None,
        lambda: _fingerprint(builder),
    )


class _Reader:
    """Reads the splits of a prepared set."""

    def __init__(self, name: str, builder: Any, image: str, label: str) -> None:
        self.name = name
        self.builder = builder
        self.image = image
        self.label = label

    def batches(self, split: str, size: tuple[int, int], channels: int, stretch: bool) -> Batches:
        """Gives the images uint8 [n, H, W, C] and labels int32 [n] of a split, in a fixed order.

        Args:
            split: name of the split.
            size: height and width in pixels.
            channels: 1 or 3.
            stretch: resize images of another size, rather than take them for an error.
        """
        import tensorflow as tf

        dataset = self._examples(split)
        wanted = (*size, channels)
        if tuple(self.builder.info.features[self.image].shape) == wanted:
            for batch in self._iterate(dataset.batch(_BATCH).prefetch(tf.data.AUTOTUNE)):
                yield batch[self.image], batch[self.label].astype(np.int32)
            return

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pending: list[tuple[np.ndarray, np.integer]] = []

            def fitted() -> tuple[np.ndarray, np.ndarray]:
                images = pool.map(lambda pair: fit_array(pair[0], size, channels), pending)
                return np.stack(list(images)), np.array([label for _, label in pending], np.int32)

            for number, example in enumerate(self._iterate(dataset.prefetch(tf.data.AUTOTUNE)), 1):
                pixels = example[self.image]
                if not stretch and pixels.shape[:2] != size:
                    raise UsageError(
                        f"data set {self.name}: images of unequal size: the first one has {by(size)} pixels "
                        "(height x "
                        f"width), number {number} of {split} has {by(pixels.shape[:2])}; resize all by "
                        "--data-image-size"
                    )
                pending.append((pixels, example[self.label]))
                if len(pending) == _DECODED_BATCH:
                    yield fitted()
                    pending = []
            if pending:
                yield fitted()

    def labels(self, split: str) -> np.ndarray:
        """Returns all labels of a split, int32 [n], without decoding its images."""
        import tensorflow_datasets as tfds

        with _quiet():
            dataset = self.builder.as_dataset(
                split=split, decoders=tfds.decode.PartialDecoding({self.label: True})
            )
        batches = self._iterate(dataset.batch(_BATCH))
        return np.concatenate([batch[self.label] for batch in batches]).astype(np.int32)

    def first(self, split: str) -> tuple[np.ndarray, int]:
        """Returns the first image and label of a split."""
        example = next(self._iterate(self._examples(f"{split}[:1]")))
        return example[self.image], int(example[self.label])

    def _examples(self, split: str) -> Any:
        import tensorflow_datasets as tfds

        with _quiet():
            return self.builder.as_dataset(
                split=split, decoders=tfds.decode.PartialDecoding({self.image: True, self.label: True})
            )

    def _iterate(self, dataset: Any) -> Iterator[Any]:
        import tensorflow as tf

        try:
            yield from dataset.as_numpy_iterator()
        except tf.errors.OpError as error:
            raise UsageError(
                f"data set {self.name}: the files in {self.builder.data_path} are damaged ({_line(error)}); "
                "remove that folder "
                "and prepare the set again"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries below TFDS from logging what is no news to the user."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from absl import logging as absl_logging

    loggers = (absl_logging.get_absl_logger(), logging.getLogger("urllib3"))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _builder(name: str, folder: Path | None) -> Any:
    """Returns the builder of a prepared set; prepares the set if need be."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    options = {"data_dir": str(folder)} if folder else {}
    try:
        # Files come first: the code of the installed TFDS may want another version than the prepared one.
        return builder_from_files(name, **options)
    except tfds.core.DatasetNotFoundError:
        pass
    except Exception as error:  # damaged metadata: JSON, protocol buffers, missing keys
        raise UsageError(
            f"data set {name}: what is prepared under {folder or 'the default folder'} is damaged "
            f"({_line(error)}); remove it "
            "and prepare the set again"
        ) from error
    try:
        builder = tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError as error:
        raise UsageError(_unknown(name)) from error
    except Exception as error:  # unknown configuration or version, or a package that the set needs
        raise UsageError(f"data set {name}: TFDS cannot make it: {_line(error)}") from error
    _features(name, builder.info)  # before anything is downloaded
    _download(name, builder)
    return builder


def _unknown(name: str) -> str:
    import tensorflow_datasets as tfds

    # The community's sets would be looked up on the network, which takes minutes without one.
    names = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.lower(), ["digits", *names], n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}?" if near else "TFDS lists its sets at tensorflow.org/datasets"
    return f"data {name}: there is no such folder or file, and no data set of that name; {hint}"


def _features(name: str, info: Any) -> tuple[str, str]:
    """Returns the names of the image and the label.

    Raises:
        UsageError: there is not exactly one image with one label, or its pixels are not 8-bit.
    """
    import tensorflow_datasets as tfds

    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    keys = info.supervised_keys
    if keys and len(keys) == 2 and keys[0] in images and keys[1] in labels:
        images, labels = [keys[0]], [keys[1]]
    if len(images) != 1 or len(labels) != 1:
        found = listing([f"{key}: {type(feature).__name__}" for key, feature in features.items()], 6)
        raise UsageError(
            f"data set {name}: found {found or type(info.features).__name__}; an image-classification set "
            "has one Image and "
            "one ClassLabel"
        )
    if features[images[0]].np_dtype != np.uint8:
        raise UsageError(
            f"data set {name}: its images are {np.dtype(features[images[0]].np_dtype)}; only uint8 is "
            "accepted"
        )
    return images[0], labels[0]


def _splits(name: str, builder: Any, reader: _Reader) -> tuple[str, str | None]:
    """Returns the names of the training split and of the test split, if there is one with labels."""
    splits = [key for key, split in builder.info.splits.items() if split.num_examples]
    if "train" not in splits and len(splits) != 1:
        raise UsageError(
            f"data set {name}: found the splits {listing(splits, 6) or 'none'}; one must be train"
        )
    train = "train" if "train" in splits else splits[0]
    for split in ("test", "validation", "val", "valid"):
        # A set that is a competition hides the labels of its test images, which are then -1.
        if split in splits and split != train and reader.first(split)[1] >= 0:
            return train, split
    return train, None


def _download(name: str, builder: Any) -> None:
    import tensorflow_datasets as tfds

    place = f"{builder.data_path.parent}"
    hint = "prepare it on a machine that can, and name its folder by --data-dir"
    unreachable = _unreachable_hosts(builder)
    if unreachable:
        raise RunError(
            f"data set {name}: it is not prepared under {place} and cannot be downloaded: no connection to "
            f"{listing(unreachable)}; {hint}"
        )
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=_resolves(_STORAGE))
        )
    except Exception as error:  # network, checksum, disk, files to fetch by hand: each has its own
        raise RunError(
            f"data set {name}: it is not prepared under {place} and could not be prepared: {_line(error)}; "
            f"{hint}"
        ) from error


def _unreachable_hosts(builder: Any) -> list[str]:
    """Returns the hosts of a set's downloads if none of them is known to the network.

    TFDS would try each for minutes before it gives up.
    """
    with contextlib.suppress(Exception):  # a set without a list of its downloads
        hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos}
        hosts.discard(None)
        if hosts and not any(map(_resolves, hosts)):
            return sorted(hosts)
    return []


def _resolves(host: str) -> bool:
    if urllib.request.getproxies():  # the proxy resolves names
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _fingerprint(builder: Any) -> str:
    """Returns the name, the version, and the files with their sizes and times."""
    files = sorted(path for path in Path(builder.data_path).iterdir() if path.is_file())
    about = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return json.dumps([builder.info.full_name, about])


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
