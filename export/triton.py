"""ONNX -> a model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from gdas_tf.export.onnx_model import INPUT, OUTPUT, save_onnx
from gdas_tf.files import writing

LARGEST_BATCH = 64
QUEUE_DELAY_MICROSECONDS = 1000

_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [
  {{
    name: "{input}"
    data_type: TYPE_FP32
    dims: [ {shape} ]
  }}
]
output [
  {{
    name: "{output}"
    data_type: TYPE_FP32
    dims: [ {classes} ]
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: {delay}
}}
"""


def save_triton(
    model: onnx.ModelProto, path: str | Path, class_names: Sequence[str], name: str = "model"
) -> None:
    """Writes a model repository: `path`/NAME/config.pbtxt, labels.txt and 1/model.onnx.

    Triton joins requests that come within a millisecond to batches of up to 64 images.

    Args:
        model: as `to_onnx` makes it.
        path: the repository, which `tritonserver --model-repository` takes.
        class_names: one per output.
        name: the model's name in the repository.

    Raises:
        RunError: the disk is full or read-only.
    """
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    config = _CONFIG.format(
        name=name,
        batch=LARGEST_BATCH,
        input=INPUT,
        shape=", ".join(map(str, shape)),
        output=OUTPUT,
        classes=len(class_names),
        preferred=", ".join(str(size) for size in (8, 16, 32, LARGEST_BATCH)),
        delay=QUEUE_DELAY_MICROSECONDS,
    )
    folder = Path(path) / name
    with writing(folder):
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
        labels = "".join(" ".join(label.split()) + "\n" for label in class_names)
        (folder / "labels.txt").write_text(labels, encoding="utf-8")
    save_onnx(model, folder / "1" / "model.onnx")
