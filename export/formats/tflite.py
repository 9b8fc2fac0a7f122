"""LiteRT, float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.export.formats import Format, register

if TYPE_CHECKING:
    from gdas_tf.export.material import Material
    from gdas_tf.export.verification import Predictor


def write(material: Material, path: Path) -> None:
    """Writes the file."""
    from gdas_tf.export.lite import save_lite

    save_lite(material.saved_model, path)


def predictors(path: Path) -> dict[str, Predictor]:
    """Returns the predictor of a LiteRT file, whatever its precision."""
    from gdas_tf.export import verification

    return {"": verification.lite_predictor(path)}


def describe(material: Material, path: Path) -> dict[str, Any]:
    """Returns the operators of a LiteRT file and their number."""
    from gdas_tf.export.lite import count_lite_operators

    operators = count_lite_operators(path)
    return {"nodes": sum(operators.values()), "operators": operators}


register("tflite", Format("model.tflite", write, predictors, describe))
