"""Which source a name means: the embedded digits, a folder of images, an .npz file, or a set of TFDS."""

from __future__ import annotations

import os
from pathlib import Path

from gdas_tf.data.sources.base import Source
from gdas_tf.data.sources.digits import digits
from gdas_tf.data.sources.image_folder import image_folder
from gdas_tf.data.sources.npz import npz
from gdas_tf.data.sources.tfds import tfds_source
from gdas_tf.data.wording import seen_from
from gdas_tf.errors import UsageError
from gdas_tf.notes import note
from gdas_tf.user_files import user_path


def open_source(
    name: str,
    data_dir: str | Path | None,
    image_size: tuple[int, int] | None,
    image_channels: int | None,
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
        return image_folder(path, image_size, image_channels)
    if path.suffix.lower() == ".npz":
        return npz(path, image_size, image_channels)
    if os.path.exists(path):
        raise UsageError(f"data {name}: it is neither a folder of images nor an .npz file")
    if path.is_absolute() or name.startswith((".", "~")):
        raise UsageError(f"data {name}: there is no such folder{seen_from(path)}")
    return tfds_source(name, data_dir, image_size, image_channels)
