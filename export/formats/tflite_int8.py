"""LiteRT that computes in int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.export.formats import Format, register, tflite

if TYPE_CHECKING:
    from gdas_tf.export.material import Material


def write(material: Material, path: Path) -> None:
    """Writes the file."""
    from gdas_tf.export.lite import save_lite

    save_lite(material.saved_model, path, material.calibration)


register("tflite_int8", Format("model_int8.tflite", write, tflite.predictors, tflite.describe, exact=False))
