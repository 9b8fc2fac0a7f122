"""ONNX that computes in int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.export.formats import Format, onnx, register

if TYPE_CHECKING:
    from gdas_tf.export.material import Material


def write(material: Material, path: Path) -> None:
    """Writes the file."""
    from gdas_tf.export.onnx_model import save_onnx

    save_onnx(material.quantized.model, path)


def describe(material: Material, path: Path) -> dict[str, Any]:
    """Returns the operators and the calibration."""
    quantized = material.quantized
    calibration = {"method": quantized.method, "images": len(material.calibration)}
    return onnx.describe(material, path) | {"calibration": calibration | {"agreement": quantized.agreement}}


register("onnx_int8", Format("model_int8.onnx", write, onnx.predictors, describe, exact=False))
