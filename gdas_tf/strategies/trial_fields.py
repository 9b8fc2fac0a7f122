"""Fields of the strategies that train candidates for a short time: how long, how wide, how many at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gdas_tf.config.fields import Free, IfAny, Number, Section, Whole

_Size = Annotated[Annotated[Whole, Field(ge=1)] | None, IfAny]


class TrialFields(Section):
    """What the short trainings of a strategy's candidates have in common.

    What is not named here is as in the section `retrain`, but for drop-path and the auxiliary head: those
    help trainings of hundreds of epochs, and hold up short ones.
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
