"""ONNX that computes in float16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.export.formats import Format, onnx, register

if TYPE_CHECKING:
    from gdas_tf.export.material import Material


def write(material: Material, path: Path) -> None:
    """Writes the file."""
    from gdas_tf.export.float16 import to_float16
    from gdas_tf.export.onnx_model import save_onnx

    save_onnx(to_float16(material.onnx), path)


register("onnx_float16", Format("model_float16.onnx", write, onnx.predictors, onnx.describe, exact=False))
