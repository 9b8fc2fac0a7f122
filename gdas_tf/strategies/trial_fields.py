"""Fields of the strategies that train candidates for a short time: how long, how wide, how many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gdas_tf.config.fields import Free, IfAny, Number, Section, Whole
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet

ONE_BY_ONE = "it trains its candidates one by one, each on one device"
"""Why replicas cannot share the batches of a strategy (`Strategy.undivided`)."""


def after_failures(section: str) -> str:
    """What to do where all trainings of the candidates of a strategy, of that section, have failed."""
    return (
        f"of a loss that is no number, lower {section}.learning_rate; of a process that died, give it more "
        "memory or other sizes; remove the files of search/trials to train them again"
    )


_Size = Annotated[Annotated[Whole, Field(ge=1)] | None, IfAny]


class TrialFields(Section):
    """What the short trainings of a strategy's candidates have in common.

    What is not named here is as in the section `retrain`, but for drop-path, the auxiliary head, label
    smoothing, mixup and averaged weights: those help trainings of hundreds of epochs, and hold up short ones.
    """

    channels: Annotated[Annotated[Whole, Field(ge=2)] | None, IfAny] = Field(
        None, description="channels C of a candidate's network; none: those of the retraining"
    )
    cells: Annotated[Annotated[Whole, Field(ge=1, le=64)] | None, IfAny] = Field(
        None, description="normal cells N per block of a candidate's network; none: those of the retraining"
    )
    batch_size: Annotated[Annotated[Whole, Field(ge=2)] | None, IfAny] = Field(
        None, description="images per batch; none: those of the retraining"
    )
    learning_rate: Annotated[Annotated[Number, Field(gt=0)] | None, IfAny] = Field(
        None, description="learning rate at the start, then a whole cosine; none: that of the retraining"
    )
    cutout: Whole = Field(
        0, ge=0, description="side of the square that CutOut blanks, in pixels; 0 turns it off"
    )
    images: _Size = Field(None, description="images of D_T to train on, at most; none: all")
    validation_images: _Size = Field(None, description="images of D_V to judge by, at most; none: all")
    jobs: Annotated[Whole, Free()] = Field(
        1, ge=1, le=256, description="trainings side by side; what comes out does not depend on it"
    )


def check_trials(config: Config, data: DataSet) -> None:
    """Find out before the first training what would fail in it.

    Raises:
        UsageError: CutOut's square is as big as an image, or `retrain.network` is a network that is the same
            for every genotype; the message names the field.
    """
    from gdas_tf.data.augmentation import Augmentation
    from gdas_tf.networks.registry import NETWORKS

    network = config.retrain.network
    if not NETWORKS.get(network).takes_genotype:
        raise UsageError(
            f"retrain.network: found {network}, which is the same whatever the genotype, and "
            f"{config.search.strategy} compares networks of genotypes; accepted is one that takes a "
            "genotype, as derived"
        )
    name, cutout = f"{config.search.strategy}.cutout", config.strategy.cutout
    try:
        Augmentation(cutout=cutout, mean=data.mean).check(data.image_shape)
    except UsageError as error:
        raise UsageError(f"{name}: {str(error).partition(': ')[2]}") from error
