"""What the tests of serving share: small ONNX classifiers, pictures, and a running server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

CLASS_NAMES = ("plane", "car", "bird", "cat", "deer")

_ELEMENTS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def make_model(
    path: Path,
    image_shape: tuple[int, int, int] = (8, 8, 3),
    classes: int = len(CLASS_NAMES),
    *,
    layout: str = "nhwc",
    batch: int | str = "batch",
    softmax: bool = True,
    dtype: str = "float32",
    input_name: str = "image",
    output_name: str = "probabilities",
    width: int = 8,
    depth: int = 1,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a convolutional classifier.

    Args:
        path: the file.
        image_shape: height, width, channels.
        classes: number of classes.
        layout: axes of the input.
        batch: batch size of the file, or a name for any.
        softmax: probabilities rather than logits.
        dtype: of input and output (the output of uint8 models is float32).
        input_name, output_name: of the tensors.
        width, depth: channels and number of the convolutions.
        seed: of the weights.
        metadata: what to write besides what `gdas-tf export` does; {} for none at all.
    """
    height, width_, channels = image_shape
    random = np.random.default_rng(seed)
    nodes, weights = [], []
    shape = [height, width_, channels] if layout == "nhwc" else [channels, height, width_]
    source = helper.make_tensor_value_info(input_name, _ELEMENTS[dtype], [batch, *shape])
    out_dtype = "float16" if dtype == "float16" else "float32"
    target = helper.make_tensor_value_info(output_name, _ELEMENTS[out_dtype], [batch, classes])

    def weight(name: str, *axes: int) -> str:
        scale = 1.5 / np.sqrt(np.prod(axes[1:]))
        weights.append(numpy_helper.from_array((random.normal(size=axes) * scale).astype(np.float32), name))
        return name

    def add(kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    value = input_name
    if dtype != "float32":
        value = add("Cast", [value], to=TensorProto.FLOAT)
    if dtype == "uint8":
        weights.append(numpy_helper.from_array(np.float32(255), "scale"))
        value = add("Div", [value, "scale"])
    if layout == "nhwc":
        value = add("Transpose", [value], perm=[0, 3, 1, 2])
    weights.append(numpy_helper.from_array(np.float32(0.5), "grey"))
    value = add("Sub", [value, "grey"])
    for number in range(depth):
        kernel = weight(f"kernel_{number}", width, channels if number == 0 else width, 3, 3)
        value = add("Relu", [add("Conv", [value, kernel], pads=[1, 1, 1, 1])])
    window = [height // 2, width_ // 2]
    value = add("Flatten", [add("AveragePool", [value], kernel_shape=window, strides=window)])
    value = add("Gemm", [value, weight("dense", 4 * width, classes), weight("bias", classes)])
    weights.append(numpy_helper.from_array(np.float32(4), "gain"))
    value = add("Mul", [value, "gain"])
    if softmax:
        value = add("Softmax", [value], axis=-1)
    if dtype == "float16":
        value = add("Cast", [value], to=TensorProto.FLOAT16)
    nodes.append(helper.make_node("Identity", [value], [output_name]))
    graph = helper.make_graph(nodes, "classifier", [source], [target], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata is None or metadata:
        told = {
            "class_names": [*CLASS_NAMES, *map(str, range(classes))][:classes],
            "image_shape": list(image_shape),
            "input_range": "0..1",
            **(metadata or {}),
        }
        texts = {key: item if isinstance(item, str) else json.dumps(item) for key, item in told.items()}
        helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def picture(size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Returns a picture of random pixels; size is width and height."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], *channels), np.uint8))


def picture_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Returns a picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


class Server:
    """A running `gdas-tf serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.address = url.removeprefix("http://")
        self.host, port = self.address.split(":")
        self.port = int(port)


@contextlib.contextmanager
def serving(
    *arguments: str | int | Path, environment: Mapping[str, str] | None = None, ended: int = 0
) -> Iterator[Server]:
    """Runs `gdas-tf serve` on a free port, and checks that SIGTERM ends it well, or that it `ended` so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gdas_tf.cli", "serve", *map(str, arguments), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Server(process, json.loads(line)["url"])
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == ended, errors
        assert "Traceback" not in errors, errors
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], interval: float = 0.02) -> None:
    """Waits until something is so, a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "that did not come about"
        time.sleep(interval)
