"""The REST API of TensorFlow Serving: predict, status and metadata.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gdas_tf.export.inference import Tensor
from gdas_tf.export.serving.http import Call, HttpError, Reply, json_reply, parse_json
from gdas_tf.export.serving.served_model import ServedModel, array_from_json

SIGNATURE = "serving_default"

_DATA_TYPES = {"float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE", "uint8": "DT_UINT8"}


async def predict(model: ServedModel, call: Call) -> Reply:
    """Answers POST v1/models/NAME[/versions/VERSION]:predict.

    Raises:
        HttpError: 400 for a bad request, else as `ServedModel.infer`.
    """
    form, batch = await model.parse(call, len(call.body), lambda: _read(model, call.body))
    outputs = await model.infer(batch, call)
    if outputs.dtype == np.float16:  # orjson writes no float16
        outputs = outputs.astype(np.float32)
    return json_reply({"predictions" if form == "instances" else "outputs": np.ascontiguousarray(outputs)})


def _read(model: ServedModel, body: bytes) -> tuple[str, np.ndarray]:
    """Returns the form of a request, `instances` or `inputs`, and its batch."""
    model.check_json(body)
    request = parse_json(body)
    signature = request.get("signature_name", SIGNATURE)
    if signature not in (SIGNATURE, ""):
        raise HttpError(400, f"model {model.name!r}: no signature {signature!r:.80}; it has {SIGNATURE!r}")
    forms = [form for form in ("instances", "inputs") if form in request]
    if len(forms) != 1:
        found = "both" if forms else "neither"
        raise HttpError(400, f"found {found} of 'instances' and 'inputs'; expected one")
    value = request[forms[0]]
    tensor = _row_format(model, value) if forms == ["instances"] else _column_format(model, value)
    where = f"input {model.classifier.input.name!r} of model {model.name!r}"
    if _holds_base64(tensor):
        raise HttpError(
            400, f"{where}: b64 values are not supported; send numbers here, or the picture file to /classify"
        )
    batch = array_from_json(tensor, model.classifier.input.dtype, where)
    model.check_shape(batch.shape)
    model.check_values(batch)
    return forms[0], batch


def _row_format(model: ServedModel, instances: Any) -> Any:
    """Returns the tensor in `instances`: a list with each image's array, or of {NAME: array}."""
    if not isinstance(instances, list) or not instances:
        raise HttpError(400, "'instances': expected an array with at least one image")
    name = model.classifier.input.name
    if isinstance(instances[0], dict) and "b64" not in instances[0]:
        if not all(isinstance(item, dict) and list(item) == [name] for item in instances):
            raise HttpError(400, f"'instances': expected of each image its array, or {{'{name}': array}}")
        return [item[name] for item in instances]
    return instances


def _column_format(model: ServedModel, inputs: Any) -> Any:
    """Returns the tensor in `inputs`: the array of the batch, or {NAME: array}."""
    name = model.classifier.input.name
    if isinstance(inputs, dict) and "b64" not in inputs:
        if list(inputs) != [name]:
            raise HttpError(
                400, f"model {model.name!r}: found inputs {list(inputs)!s:.200}; expected ['{name}']"
            )
        return inputs[name]
    return inputs


def _holds_base64(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, dict) and "b64" in value


def status(models: list[ServedModel]) -> dict[str, Any]:
    """Returns the answer to GET v1/models/NAME, of the versions asked for."""
    return {
        "model_version_status": [
            {
                "version": model.version,
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for model in models
        ]
    }


def metadata(model: ServedModel) -> dict[str, Any]:
    """Returns the answer to GET v1/models/NAME/metadata."""

    def describe(tensor: Tensor) -> dict[str, Any]:
        axes = [{"size": str(size), "name": ""} for size in (-1, *tensor.shape)]
        return {
            tensor.name: {
                "name": tensor.name,
                "dtype": _DATA_TYPES[tensor.dtype.name],
                "tensor_shape": {"dim": axes, "unknown_rank": False},
            }
        }

    signature = {
        "inputs": describe(model.classifier.input),
        "outputs": describe(model.classifier.output),
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }
