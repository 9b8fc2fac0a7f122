"""TensorFlow SavedModel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.export.formats import Format, register

if TYPE_CHECKING:
    from gdas_tf.export.material import Material
    from gdas_tf.export.verification import Predictor


def write(material: Material, path: Path) -> None:
    """Writes the folder."""
    from gdas_tf.files import writing

    with writing(path):
        shutil.copytree(material.saved_model, path)


def predictors(path: Path) -> dict[str, Predictor]:
    """Returns the predictors of both signatures."""
    from gdas_tf.export import verification

    return verification.saved_model_predictors(path)


register("saved_model", Format("saved_model", write, predictors))
