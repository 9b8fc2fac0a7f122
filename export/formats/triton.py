"""A model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.export.formats import Format, onnx, register

if TYPE_CHECKING:
    from gdas_tf.export.material import Material


def write(material: Material, path: Path) -> None:
    """Writes the repository."""
    from gdas_tf.export.triton import save_triton

    save_triton(material.onnx, path, material.data.class_names)


def _file(path: Path) -> Path:
    return path / "model" / "1" / "model.onnx"


register(
    "triton",
    Format(
        "triton",
        write,
        lambda path: onnx.predictors(_file(path)),
        lambda material, path: onnx.describe(material, _file(path)),
    ),
)
