"""ONNX, float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.export.formats import Format, register

if TYPE_CHECKING:
    from gdas_tf.export.material import Material
    from gdas_tf.export.verification import Predictor


def write(material: Material, path: Path) -> None:
    """Writes the file."""
    from gdas_tf.export.onnx_model import save_onnx

    save_onnx(material.onnx, path)


def predictors(path: Path) -> dict[str, Predictor]:
    """Returns the predictor of an ONNX file, whatever its precision."""
    from gdas_tf.export import verification

    return {"": verification.onnx_predictor(path)}


def describe(material: Material, path: Path) -> dict[str, Any]:
    """Returns the operators of an ONNX file, their number and the operator set."""
    import onnx

    from gdas_tf.export.onnx_passes import count_operators

    model = onnx.load(path)
    operators = count_operators(model)
    opsets = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    return {"nodes": sum(operators.values()), "operators": operators, "opset": opsets["ai.onnx"]}


register("onnx", Format("model.onnx", write, predictors, describe))
