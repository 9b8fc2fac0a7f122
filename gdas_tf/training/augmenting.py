"""The augmentation that a configuration says, the same for search, retraining and trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdas_tf.data.augmentation import Augmentation

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet


def augmentation_of(config: Config, data: DataSet, cutout: int) -> Augmentation:
    """Returns the augmentation of the section `data`, with the CutOut of a stage.

    Args:
        config: its section `data` counts here.
        data: the data set, whose mean fills what CutOut blanks.
        cutout: side of CutOut's square in pixels; 0 turns it off.
    """
    settings = config.data
    return Augmentation(
        padding=settings.padding,
        flip=settings.flip,
        cutout=cutout,
        mean=data.mean,
        crop=settings.crop,
        colour_jitter=settings.colour_jitter,
    )
