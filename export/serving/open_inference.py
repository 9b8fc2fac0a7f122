"""The Open Inference Protocol, version 2 (KServe, Triton), with JSON and the binary tensor extension.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np
import orjson

from gdas_tf import __version__
from gdas_tf.export.inference import Tensor
from gdas_tf.export.serving.http import Call, HttpError, Reply, json_reply, parse_json
from gdas_tf.export.serving.served_model import ServedModel, array_from_json

HEADER_LENGTH = b"inference-header-content-length"
_LENGTH_DIGITS = 18

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")

_DATA_TYPES = {
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    np.dtype(np.uint8): "UINT8",
}


def data_type(tensor: Tensor) -> str:
    """Returns the protocol's name of a tensor's type."""
    return _DATA_TYPES[tensor.dtype]


async def infer(model: ServedModel, call: Call) -> Reply:
    """Answers POST v2/models/NAME[/versions/VERSION]/infer.

    Raises:
        HttpError: 400 for a bad request, else as `ServedModel.infer`.
    """
    text, binary = _split(call)
    request, batch, wanted = await model.parse(call, len(text), lambda: _read(model, text, binary))
    outputs = await model.infer(batch, call, _timeout(request))
    return _write(model, request.get("id"), wanted, outputs)


def _read(
    model: ServedModel, text: bytes | memoryview, binary: memoryview | None
) -> tuple[dict[str, Any], np.ndarray, _Output]:
    """Returns a request's JSON, its batch, and how its output is wanted."""
    model.check_json(text)
    request = parse_json(text)
    batch = _read_input(model, request, binary)
    model.check_values(batch)
    del request["inputs"]  # some ten times as large as the batch
    return request, batch, _read_outputs(model, request)


def _split(call: Call) -> tuple[bytes | memoryview, memoryview | None]:
    """Returns the JSON part of a body, and the binary part if there is one."""
    length = call.headers.get(HEADER_LENGTH)
    if length is None:
        return call.body, None
    # Python makes no number of over 4,300 digits.
    if not length.isdigit() or len(length) > _LENGTH_DIGITS or int(length) > len(call.body):
        raise HttpError(
            400,
            f"header Inference-Header-Content-Length: found {length[:20].decode('latin-1')!r}; "
            f"expected the length of the JSON part, at most the body's {len(call.body)} bytes",
        )
    view = memoryview(call.body)
    return view[: int(length)], view[int(length) :]


def _read_input(model: ServedModel, request: dict[str, Any], binary: memoryview | None) -> np.ndarray:
    source = model.classifier.input
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
        raise HttpError(400, "'inputs': expected an array of objects")
    names = [item.get("name") for item in inputs]
    if names != [source.name]:
        raise HttpError(400, f"model {model.name!r}: found inputs {names!s:.200}; expected ['{source.name}']")
    tensor = inputs[0]
    where = f"input {source.name!r} of model {model.name!r}"
    if tensor.get("datatype") != data_type(source):
        found = f"{tensor.get('datatype')!r:.40}"
        raise HttpError(400, f"{where}: found datatype {found}; expected '{data_type(source)}'")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(axis) is int and 0 <= axis < 2**31 for axis in shape):
        raise HttpError(400, f"{where}: 'shape' is not an array of whole numbers")
    model.check_shape(tuple(shape))
    parameters = _parameters(tensor)
    if "shared_memory_region" in parameters:
        raise HttpError(400, f"{where}: shared memory is not supported; send the data in the request")
    size = parameters.get("binary_data_size")
    if size is None:
        if binary:
            raise HttpError(
                400, f"{where}: {len(binary)} bytes follow the JSON part without binary_data_size"
            )
        return _from_data(tensor.get("data"), tuple(shape), source.dtype, where)
    expected = math.prod(shape) * source.dtype.itemsize
    found = 0 if binary is None else len(binary)
    if size != expected or found != expected:
        raise HttpError(
            400,
            f"{where}: binary_data_size is {size!r:.40} and {found} bytes follow the JSON part; "
            f"shape {shape} of {data_type(source)} has {expected} bytes",
        )
    if "data" in tensor:
        raise HttpError(400, f"{where}: found both 'data' and binary_data_size; send one")
    # Copied, as the JSON part before it has any length; by `bytes`, as NumPy lets another thread go first.
    return np.frombuffer(bytes(binary), source.dtype).reshape(shape)


def _from_data(data: Any, shape: tuple[int, ...], dtype: np.dtype, where: str) -> np.ndarray:
    array = array_from_json(data, dtype, where)
    if array.size != math.prod(shape) or array.shape not in (shape, (array.size,)):
        raise HttpError(
            400, f"{where}: 'data' has shape {list(array.shape)}; expected {list(shape)}, nested or flat"
        )
    return array.reshape(shape)


def _parameters(value: dict[str, Any]) -> dict[str, Any]:
    parameters = value.get("parameters", {})
    if not isinstance(parameters, dict):
        raise HttpError(400, "'parameters': expected an object")
    return parameters


def _timeout(request: dict[str, Any]) -> float | None:
    """Returns the client's timeout in seconds; in the request it is in microseconds."""
    timeout = _parameters(request).get("timeout")
    if timeout is None or timeout == 0:
        return None
    if type(timeout) is not int or timeout < 0:
        raise HttpError(400, "parameter 'timeout': expected a whole number of microseconds")
    return timeout / 1e6


class _Output(NamedTuple):
    """How an output is wanted: in the binary part or not, as it is or as the `classes` best classes."""

    binary: bool
    classes: int


def _read_outputs(model: ServedModel, request: dict[str, Any]) -> _Output:
    name = model.classifier.output.name
    default = _parameters(request).get("binary_data_output", False)
    outputs = request.get("outputs") or [{"name": name}]
    if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
        raise HttpError(400, "'outputs': expected an array of objects")
    names = [item.get("name") for item in outputs]
    if names != [name]:
        raise HttpError(400, f"model {model.name!r}: found outputs {names!s:.200}; it has ['{name}']")
    parameters = _parameters(outputs[0])
    if "shared_memory_region" in parameters:
        raise HttpError(
            400, f"output {name!r}: shared memory is not supported; take the data from the answer"
        )
    binary, classes = parameters.get("binary_data", default), parameters.get("classification", 0)
    if not isinstance(binary, bool):
        raise HttpError(400, f"output {name!r}: binary_data is neither true nor false")
    if type(classes) is not int or classes < 0:
        raise HttpError(400, f"output {name!r}: parameter 'classification' is not a number of classes")
    return _Output(binary, min(classes, len(model.classifier.class_names)))


def _write(model: ServedModel, request_id: Any, wanted: _Output, outputs: np.ndarray) -> Reply:
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if isinstance(request_id, str):
        answer["id"] = request_id
    tensor: dict[str, Any] = {"name": model.classifier.output.name}
    if wanted.classes:
        texts = _best_classes(outputs, wanted.classes, model.classifier.class_names)
        tensor |= {"datatype": "BYTES", "shape": [len(outputs), wanted.classes]}
        data: Any = texts
        binary = b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts))
    else:
        tensor |= {"datatype": data_type(model.classifier.output), "shape": list(outputs.shape)}
        # orjson writes no float16.
        data = outputs.ravel() if outputs.dtype.itemsize > 2 else outputs.ravel().astype(np.float32)
        binary = outputs.tobytes() if wanted.binary else b""
    answer["outputs"] = [tensor]
    if not wanted.binary:
        tensor["data"] = data
        return json_reply(answer)
    tensor["parameters"] = {"binary_data_size": len(binary)}
    header = orjson.dumps(answer)
    length = (b"inference-header-content-length", str(len(header)).encode())
    return Reply(header + binary, 200, b"application/octet-stream", (length,))


def _best_classes(outputs: np.ndarray, count: int, class_names: tuple[str, ...]) -> list[str]:
    """Returns `value:index:name` of the best classes of each row, one row after the other."""
    order = np.argsort(-outputs.astype(np.float32), axis=-1, kind="stable")[:, :count]
    return [
        f"{row[index]:f}:{index}:{class_names[index]}"
        for row, indices in zip(outputs, order, strict=True)
        for index in indices
    ]


def server_metadata() -> dict[str, Any]:
    """Returns the answer to GET v2."""
    return {"name": "gdas-tf", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(model: ServedModel, versions: list[str]) -> dict[str, Any]:
    """Returns the answer to GET v2/models/NAME."""

    def describe(tensor: Tensor) -> dict[str, Any]:
        return {"name": tensor.name, "datatype": data_type(tensor), "shape": [-1, *tensor.shape]}

    return {
        "name": model.name,
        "versions": versions,
        "platform": "onnxruntime_onnx",
        "inputs": [describe(model.classifier.input)],
        "outputs": [describe(model.classifier.output)],
    }


def model_configuration(model: ServedModel) -> dict[str, Any]:
    """Returns the answer to GET v2/models/NAME/config, in the form of Triton."""

    def describe(tensor: Tensor) -> dict[str, Any]:
        return {"name": tensor.name, "data_type": f"TYPE_{data_type(tensor)}", "dims": list(tensor.shape)}

    return {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": model.max_images,
        "input": [describe(model.classifier.input)],
        "output": [describe(model.classifier.output)],
        "dynamic_batching": {
            "preferred_batch_size": [model.batcher.max_batch_size],
            "max_queue_delay_microseconds": round(model.batcher.max_delay * 1e6),
        },
    }


def model_statistics(model: ServedModel) -> dict[str, Any]:
    """Returns a model's entry in the answer to GET v2/models/stats, in the form of Triton."""
    counts = model.statistics

    def span(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(seconds * 1e9)}

    return {
        "name": model.name,
        "version": model.version,
        "last_inference": round(counts.last * 1000),
        "inference_count": counts.images,
        "execution_count": counts.batches,
        "inference_stats": {
            "success": span(counts.requests, counts.seconds + counts.waited),
            "fail": span(counts.failures, 0.0),
            "queue": span(counts.requests, counts.waited),
            "compute_infer": span(counts.batches, counts.seconds),
        },
    }
