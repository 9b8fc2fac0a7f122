"""The export stage: writes the formats asked for, verifies them, and only then puts them in place."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export import verification
from gdas_tf.runs import atomic_path, write_json, writing

if TYPE_CHECKING:
    import keras
    import onnx

    from gdas_tf.data import DataSet
    from gdas_tf.export.quantization import Quantized
    from gdas_tf.genotype import Genotype


NOTEWORTHY_LOSS = 0.01
"""Loss of accuracy, as a fraction, from which on a format is reported with a warning."""


def export_model(
    model: keras.Model,
    data: DataSet,
    directory: str | Path,
    *,
    formats: Sequence[str] = ("saved_model", "onnx"),
    tolerance: float = 1e-4,
    images: int = 1000,
    calibration_images: int = 500,
    genotype: Genotype | None = None,
) -> dict[str, Any]:
    """Writes a network in the formats asked for, and compares each with the Keras model on held-out images.

    Nothing is written unless all formats are verified: files appear in `directory` at the end, all of them.

    Args:
        model: functional Keras model of float32 images in [0, 1], which returns probabilities.
        data: data set; the files are verified on its test images, and carry its class names.
        directory: where the files go, together with `verification.json`.
        formats: names of `FORMATS`.
        tolerance: largest accepted difference of a probability.
        images: number of test images to verify on, at most.
        calibration_images: number of training images to measure the ranges of int8 formats on, at most.
        genotype: of the network, for the metadata of the ONNX file.

    Returns:
        What `verification.json` holds: the number of images, the tolerance, the accuracy of the Keras model,
        and for each format its file, size, comparison (see `verification.compare`), operators and operator
        set as far as it has them, and a `warning` when it loses more than a point of accuracy. `files` holds
        the paths by name.

    Raises:
        UsageError: an unknown format, or images or classes that are not those of the model.
        RunError: a format differs from the Keras model, or the disk is full or read-only.

    Example:
        >>> export_model(model, load_dataset("digits"), "export", formats=("onnx",))["formats"]["onnx"]
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"export.formats: found {unknown or 'nothing'}; accepted: {', '.join(FORMATS)}")
    _check_fit(model, data)
    directory = Path(directory)
    pixels, labels = verification.held_out(data.test, images)
    reference = verification.predict(verification.keras_predictor(model), pixels)
    report: dict[str, Any] = {
        "images": len(labels),
        "tolerance": tolerance,
        "accuracy": float((reference.argmax(1) == labels).mean()),
        "formats": {},
    }
    with contextlib.ExitStack() as places:
        scratch = Path(places.enter_context(tempfile.TemporaryDirectory()))
        material = _Material(model, data, genotype, report["accuracy"], calibration_images, scratch)
        for name in dict.fromkeys(formats):
            form = FORMATS[name]
            path = places.enter_context(atomic_path(directory / form.file))
            form.write(material, path)
            entry = {"file": form.file, "bytes": size_of(path), **form.describe(material, path)}
            entry |= _verify(name, form, path, pixels, labels, reference, tolerance)
            if entry["accuracy_change"] < -NOTEWORTHY_LOSS:
                loss = f"loses {-100 * entry['accuracy_change']:.1f} points of accuracy"
                entry["warning"] = loss + (" with the best calibration" if "calibration" in entry else "")
            report["formats"][name] = entry
        write_json(places.enter_context(atomic_path(directory / "verification.json")), report)
    files = {entry["file"]: str(directory / entry["file"]) for entry in report["formats"].values()}
    return {**report, "files": {**files, "verification.json": str(directory / "verification.json")}}


def format_verification(report: dict[str, Any]) -> str:
    """Returns the result of `export_model` as a table for the terminal."""
    header = (
        "format",
        "file",
        "MiB",
        "accuracy",
        "largest difference",
        "same class",
        "nodes",
        "operator set",
    )
    rows = [header]
    for name, entry in report["formats"].items():
        rows.append(
            (
                name,
                entry["file"],
                f"{entry['bytes'] / 2**20:.2f}",
                f"{entry['accuracy']:.2%} ({100 * entry['accuracy_change']:+.2f})",
                f"{entry['largest_difference']:.1e}",
                f"{entry['agreement']:.2%}",
                str(entry.get("nodes", "-")),
                str(entry.get("opset", "-")),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    first = f"Keras: {report['accuracy']:.2%} on {report['images']} held-out images"
    warnings = [f"{name}: {item['warning']}" for name, item in report["formats"].items() if "warning" in item]
    return "\n".join([first, *(line.rstrip() for line in lines), *warnings])


def size_of(path: str | Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    path = Path(path)
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size


@dataclass
class _Material:
    """What the formats are made of, each part made once."""

    model: keras.Model
    data: DataSet
    genotype: Genotype | None
    accuracy: float
    calibration_images: int
    scratch: Path

    @cached_property
    def onnx(self) -> onnx.ModelProto:
        from gdas_tf.export.onnx_model import describe, to_onnx

        return to_onnx(self.model, describe(self.model, self.data.class_names, self.genotype, self.accuracy))

    @cached_property
    def saved_model(self) -> Path:
        from gdas_tf.export.saved_model import save_saved_model

        save_saved_model(self.model, self.scratch / "saved_model")
        return self.scratch / "saved_model"

    @cached_property
    def calibration(self) -> np.ndarray:
        """Training images, float32 [n, H, W, C] in [0, 1]."""
        return verification.to_floats(verification.held_out(self.data.train, self.calibration_images)[0])

    @cached_property
    def quantized(self) -> Quantized:
        from gdas_tf.export.quantization import quantize

        return quantize(self.onnx, self.calibration)


@dataclass(frozen=True)
class Format:
    """A format: its file name, and how it is written, read back and described.

    Args:
        file: name of its file or folder.
        write: writes it to a path.
        predictors: returns its predictors, by name of the signature.
        describe: returns what the report says of the file.
        exact: whether it must give the Keras model's outputs.
    """

    file: str
    write: Callable[[_Material, Path], None]
    predictors: Callable[[Path], dict[str, verification.Predictor]]
    describe: Callable[[_Material, Path], dict[str, Any]] = lambda material, path: {}
    exact: bool = True


def _verify(
    name: str,
    form: Format,
    path: Path,
    pixels: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    tolerance: float,
) -> dict[str, Any]:
    """Returns the comparison of a format; of several signatures, that of the one which is farthest off."""
    comparisons = []
    for signature, predictor in form.predictors(path).items():
        comparison = verification.compare(verification.predict(predictor, pixels), reference, labels)
        if not np.isfinite(comparison["largest_difference"]):
            raise RunError(f"export {name}: it gives probabilities that are no numbers; nothing was written")
        if form.exact:
            label = f"{name} ({signature})" if signature else name
            verification.check(label, comparison, tolerance, len(labels))
        comparisons.append(comparison)
    return max(comparisons, key=lambda item: item["largest_difference"])


def _check_fit(model: keras.Model, data: DataSet) -> None:
    found = (list(data.image_shape), data.classes)
    wanted = (list(model.input_shape[1:]), model.output_shape[-1])
    if found != wanted:
        raise UsageError(
            f"data set {data.name}: images {found[0]} of {found[1]} classes; the network takes {wanted[0]} "
            f"of {wanted[1]} classes; export with the data set it was trained on"
        )


def _write_saved_model(material: _Material, path: Path) -> None:
    with writing(path):
        shutil.copytree(material.saved_model, path)


def _write_onnx(material: _Material, path: Path) -> None:
    from gdas_tf.export.onnx_model import save_onnx

    save_onnx(material.onnx, path)


def _write_onnx_float16(material: _Material, path: Path) -> None:
    from gdas_tf.export.float16 import to_float16
    from gdas_tf.export.onnx_model import save_onnx

    save_onnx(to_float16(material.onnx), path)


def _write_onnx_int8(material: _Material, path: Path) -> None:
    from gdas_tf.export.onnx_model import save_onnx

    save_onnx(material.quantized.model, path)


def _write_tflite(material: _Material, path: Path) -> None:
    from gdas_tf.export.lite import save_lite

    save_lite(material.saved_model, path)


def _write_tflite_int8(material: _Material, path: Path) -> None:
    from gdas_tf.export.lite import save_lite

    save_lite(material.saved_model, path, material.calibration)


def _write_triton(material: _Material, path: Path) -> None:
    from gdas_tf.export.triton import save_triton

    save_triton(material.onnx, path, material.data.class_names)


def _describe_onnx(material: _Material, path: Path) -> dict[str, Any]:
    import onnx

    from gdas_tf.export.onnx_passes import count_operators

    model = onnx.load(path)
    operators = count_operators(model)
    opsets = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    return {"nodes": sum(operators.values()), "operators": operators, "opset": opsets["ai.onnx"]}


def _describe_onnx_int8(material: _Material, path: Path) -> dict[str, Any]:
    quantized = material.quantized
    calibration = {"method": quantized.method, "images": len(material.calibration)}
    return _describe_onnx(material, path) | {"calibration": calibration | {"agreement": quantized.agreement}}


def _describe_tflite(material: _Material, path: Path) -> dict[str, Any]:
    from gdas_tf.export.lite import count_lite_operators

    operators = count_lite_operators(path)
    return {"nodes": sum(operators.values()), "operators": operators}


def _onnx_predictors(path: Path) -> dict[str, verification.Predictor]:
    return {"": verification.onnx_predictor(path)}


def _tflite_predictors(path: Path) -> dict[str, verification.Predictor]:
    return {"": verification.lite_predictor(path)}


FORMATS: dict[str, Format] = {
    "saved_model": Format("saved_model", _write_saved_model, verification.saved_model_predictors),
    # The layout that TensorFlow Serving takes as --model_base_path: a folder for each version.
    "tf_serving": Format(
        "tf_serving/model",
        lambda material, path: _write_saved_model(material, path / "1"),
        lambda path: verification.saved_model_predictors(path / "1"),
    ),
    "onnx": Format("model.onnx", _write_onnx, _onnx_predictors, _describe_onnx),
    "onnx_float16": Format(
        "model_float16.onnx", _write_onnx_float16, _onnx_predictors, _describe_onnx, exact=False
    ),
    "onnx_int8": Format(
        "model_int8.onnx", _write_onnx_int8, _onnx_predictors, _describe_onnx_int8, exact=False
    ),
    "tflite": Format("model.tflite", _write_tflite, _tflite_predictors, _describe_tflite),
    "tflite_int8": Format(
        "model_int8.tflite", _write_tflite_int8, _tflite_predictors, _describe_tflite, exact=False
    ),
    "triton": Format(
        "triton",
        _write_triton,
        lambda path: _onnx_predictors(path / "model" / "1" / "model.onnx"),
        lambda material, path: _describe_onnx(material, path / "model" / "1" / "model.onnx"),
    ),
}
"""The formats that can be exported, by the name they have in `export.formats`."""
