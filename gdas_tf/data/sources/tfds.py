"""Image-classification sets of TensorFlow Datasets as sources."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import json
import logging
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.data.images import PictureError, open_picture, read_header, to_array
from gdas_tf.data.sources.base import Batches, Part, Picture, Source
from gdas_tf.data.wording import by, listing, one_line, seen_from
from gdas_tf.errors import RunError, UsageError
from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.user_files import user_path

if TYPE_CHECKING:
    import tensorflow as tf

_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\w.*]+)?")  # name/configuration:version
_BATCH = 256


def tfds_source(
    name: str,
    data_dir: str | Path | None,
    image_size: tuple[int, int] | None,
    image_channels: int | None,
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
    folder = user_path(data_dir, "data.data_dir") if data_dir else None
    start_tensorflow()
    with _quiet():
        builder = _builder(name, folder)
        image, label = _features(name, builder.info)
        classes = builder.info.features[label].num_classes
        names = tuple(builder.info.features[label].names or map(str, range(classes)))
        if len(names) < 2:
            raise UsageError(f"data set {name}: it has one class, {names[0]}; at least two are needed")
        reader = _Reader(name, builder, image, label)
        train, test = _splits(name, builder, reader)
        height, width, depth = builder.info.features[image].shape
        if None in (height, width, depth):
            (height, width), grey, _ = reader.first(train)
            depth = 1 if grey else 3
    size = image_size or (height, width)
    channels = image_channels or (1 if depth == 1 else 3)

    def part(split: str) -> Part:
        return Part(
            builder.info.splits[split].num_examples,
            lambda: reader.batches(split, size, channels, stretch=image_size is not None),
            lambda: reader.labels(split),
            lambda: reader.pictures(split),
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
    """Reads the splits of a prepared set.

    The files are read and parsed a batch at a time: `as_dataset`, which does it one example after the other,
    needs two and a half times as long for CIFAR-10, and much longer on a busy machine.
    """

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

        wanted = (*size, channels)
        examples = self._examples(split)
        if tuple(self.builder.info.features[self.image].shape) == wanted:

            def decode(encoded: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                images = tf.map_fn(
                    lambda image: tf.ensure_shape(tf.io.decode_image(image, channels), wanted),
                    encoded,
                    fn_output_signature=tf.uint8,
                )
                return images, labels

            yield from self._iterate(examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2))
            return

        count = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for encoded, labels in self._iterate(examples.prefetch(2)):
                images = list(
                    pool.map(lambda data: self._decode(data, size if stretch else None, channels), encoded)
                )
                for number, image in enumerate(images, count + 1):
                    if image.shape != wanted:
                        raise UsageError(
                            f"data set {self.name}: images of unequal size: the first one has {by(size)} "
                            f"pixels (height x width), number {number} of {split} has "
                            f"{by(image.shape[:2])}; resize all by data.image_size"
                        )
                count += len(images)
                yield np.stack(images), labels

    def pictures(self, split: str) -> Iterator[Picture]:
        """Gives each image of a split as it lies there, and those that cannot be read."""
        grey = self.builder.info.features[self.image].shape[-1] == 1
        count = 0
        for encoded, labels in self._iterate(self._examples(split)):
            for data, label in zip(encoded, labels, strict=True):
                show = functools.partial(self._decode, data, None, 1 if grey else 3)
                try:
                    yield Picture.of(f"{split} {count}", label, show(), 1 if grey else 3, show)
                except UsageError as error:
                    yield Picture(
                        f"{split} {count}", int(label), problem=one_line(error.__cause__ or error, 80)
                    )
                count += 1

    def labels(self, split: str) -> np.ndarray:
        """Returns all labels of a split, int32 [n], without decoding its images."""
        return np.concatenate([labels for _, labels in self._iterate(self._examples(split))])

    def first(self, split: str) -> tuple[tuple[int, int], bool, int]:
        """Returns height and width of the first image of a split, whether it is grey, and its label."""
        encoded, labels = next(self._iterate(self._examples(split)))
        with self._damage():
            size, grey = read_header(io.BytesIO(encoded[0]))
        return size, grey, int(labels[0])

    def _examples(self, split: str) -> tf.data.Dataset:
        """Returns batches of encoded images, string [n], and labels int32 [n]."""
        import tensorflow as tf

        features = {
            self.image: tf.io.FixedLenFeature((), tf.string),
            self.label: tf.io.FixedLenFeature((), tf.int64),
        }

        def parse(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            examples = tf.io.parse_example(records, features)
            return examples[self.image], tf.cast(examples[self.label], tf.int32)

        files = [str(path) for path in self.builder.info.splits[split].filepaths]
        return tf.data.TFRecordDataset(files).batch(_BATCH).map(parse)

    def _decode(self, data: bytes, size: tuple[int, int] | None, channels: int) -> np.ndarray:
        with self._damage(), open_picture(io.BytesIO(data)) as image:
            return to_array(image, size, channels)

    def _iterate(self, dataset: tf.data.Dataset) -> Iterator[Any]:
        with self._damage():
            yield from dataset.as_numpy_iterator()

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """Turns an error of reading or decoding into a `UsageError` that names the folder."""
        try:
            yield
        except (UsageError, GeneratorExit):
            raise
        except PictureError as error:
            raise UsageError(f"data set {self.name}: an image has {error}") from error
        except Exception as error:  # of TensorFlow or Pillow, of many kinds
            raise UsageError(
                f"data set {self.name}: the files in {self.builder.data_path} are damaged "
                f"({one_line(error)}); remove that folder and prepare the set again"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries below TFDS from logging what is no news to the user."""
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

    if not _NAME.fullmatch(name):
        raise UsageError(_unknown(name))
    options = {"data_dir": str(folder)} if folder else {}
    try:
        # Files come first: the code of the installed TFDS may want another version than the prepared one.
        return builder_from_files(name, **options)
    except tfds.core.DatasetNotFoundError:
        pass
    except Exception as error:  # damaged metadata: JSON, protocol buffers, missing keys
        raise UsageError(
            f"data set {name}: what is prepared under {folder or 'the default folder'} is damaged "
            f"({one_line(error)}); remove it and prepare the set again"
        ) from error
    try:
        builder = tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError as error:
        raise UsageError(_unknown(name)) from error
    except Exception as error:  # unknown configuration or version, or a package that the set needs
        base, _, configuration = name.partition(":")[0].partition("/")
        known = tfds.builder_cls(base).builder_configs
        if configuration and configuration not in known:
            raise UsageError(
                f"data set {base}: found the configuration {configuration!r}; accepted: "
                f"{listing(list(known), 10) or 'none'}"
            ) from error
        reason = re.sub('^Failed to construct dataset .*?}": ', "", one_line(error))
        raise UsageError(f"data set {name}: TFDS cannot make it: {reason}") from error
    _features(name, builder.info)  # before anything is downloaded
    _download(name, builder)
    return builder


def _unknown(name: str) -> str:
    import tensorflow_datasets as tfds

    # The community's sets would be looked up on the network, which takes minutes without one.
    names = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.lower(), ["digits", *names], n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}?" if near else "TFDS lists its sets at tensorflow.org/datasets"
    return (
        f"data {name}: there is no such folder or file, and no data set of that name; {hint}{seen_from(name)}"
    )


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
            "has one Image and one ClassLabel"
        )
    if features[images[0]].np_dtype != np.uint8:
        raise UsageError(
            f"data set {name}: its images are {np.dtype(features[images[0]].np_dtype)}; only uint8 is "
            "accepted"
        )
    return images[0], labels[0]


def _splits(name: str, builder: Any, reader: _Reader) -> tuple[str, str | None]:
    """Returns the names of the training split and of the test split, if there is one with labels."""
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise UsageError(
            f"data set {name}: it is prepared as {file_format}; prepare it as tfrecord, TFDS' default"
        )
    splits = [key for key, split in builder.info.splits.items() if split.num_examples]
    if "train" not in splits and len(splits) != 1:
        raise UsageError(
            f"data set {name}: found the splits {listing(splits, 6) or 'none'}; one must be train"
        )
    train = "train" if "train" in splits else splits[0]
    for split in ("test", "validation", "val", "valid"):
        # A set that is a competition hides the labels of its test images, which are then -1.
        if split in splits and split != train and reader.first(split)[-1] >= 0:
            return train, split
    return train, None


def _download(name: str, builder: Any) -> None:
    place = f"{builder.data_path.parent}"
    hint = "prepare it on a machine that can, and name its folder by data.data_dir"
    unreachable = _unreachable_hosts(builder)
    if unreachable:
        raise RunError(
            f"data set {name}: it is not prepared under {place} and cannot be downloaded: no connection to "
            f"{listing(unreachable)}; {hint}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # network, checksum, disk, files to fetch by hand: each has its own
        raise RunError(
            f"data set {name}: it is not prepared under {place} and could not be prepared: "
            f"{one_line(error)}; {hint}"
        ) from error


def _unreachable_hosts(builder: Any) -> list[str]:
    """Returns the hosts of a set's downloads if none of them is known to the network.

    TFDS would try each for minutes before it gives up. Sets whose files are fetched by hand may need none.
    """
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return []
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
