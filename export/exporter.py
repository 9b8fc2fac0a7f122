"""The export stage: writes the formats asked for, verifies them, and only then puts them in place."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export import verification
from gdas_tf.export.formats import FORMATS, Format
from gdas_tf.export.material import Material
from gdas_tf.files import atomic_path, read_json, write_json

if TYPE_CHECKING:
    import keras

    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataIdentity
    from gdas_tf.spaces.genotype import Genotype


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
    trained_on: DataIdentity | None = None,
) -> dict[str, Any]:
    """Writes a network in the formats asked for, and compares each with the Keras model on held-out images.

    Nothing is written unless all formats are verified: files appear in `directory` at the end, all of them.
    The same network gives the same bytes. What `verification.json` says of other formats of the same network
    stays, as long as their files are there.

    Args:
        model: functional Keras model of float32 images in [0, 1], which returns probabilities.
        data: data set; the files are verified on its test images, and carry its class names.
        directory: where the files go, together with `verification.json`.
        formats: names of `FORMATS`.
        tolerance: largest accepted difference of a probability.
        images: number of test images to verify on, at most.
        calibration_images: number of training images to measure the ranges of int8 formats on, at most.
        genotype: of the network, for the metadata of the ONNX file.
        trained_on: of the data that the network was made on, for the ONNX file and the SavedModel to carry.

    Returns:
        What `verification.json` holds: the number of images, the tolerance, the accuracy of the Keras model,
        the digest of its weights as `network`, and for each format its file, size, comparison (see
        `verification.compare`) with the number of images and the tolerance of that comparison, operators and
        operator set as far as it has them, and a `warning` when it loses more than a point of accuracy.
        `files` holds the paths by name of what was written now.

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
        "network": network_digest(model),
        "formats": {},
    }
    written: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as places:
        scratch = Path(places.enter_context(tempfile.TemporaryDirectory()))
        material = Material(
            model, data, genotype, trained_on, report["accuracy"], calibration_images, scratch
        )
        for name in dict.fromkeys(formats):
            form = FORMATS[name]
            path = places.enter_context(atomic_path(directory / form.file))
            form.write(material, path)
            entry = {"file": form.file, "bytes": size_of(path), **form.describe(material, path)}
            entry |= {"images": len(labels), "tolerance": tolerance}
            entry |= _verify(name, form, path, pixels, labels, reference, tolerance)
            if entry["accuracy_change"] < -NOTEWORTHY_LOSS:
                loss = f"loses {-100 * entry['accuracy_change']:.1f} points of accuracy"
                entry["warning"] = loss + (" with the best calibration" if "calibration" in entry else "")
            written[name] = entry
        entries = _kept(directory, report["network"]) | written
        report["formats"] = {name: entries[name] for name in sorted(entries)}
        write_json(places.enter_context(atomic_path(directory / "verification.json")), report)
    files = {entry["file"]: str(directory / entry["file"]) for entry in written.values()}
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


def network_digest(model: keras.Model) -> str:
    """Returns a digest of a network: of the kinds of its layers and of all weights, in their order."""
    digest = hashlib.sha256()
    for layer in model.layers:
        digest.update(f"{type(layer).__name__} ".encode())
    for variable in model.weights:
        value = variable.numpy()
        digest.update(f"{value.dtype} {value.shape} ".encode())
        digest.update(value.tobytes())
    return f"sha256:{digest.hexdigest()}"


def _kept(directory: Path, network: str) -> dict[str, dict[str, Any]]:
    """Returns what an earlier report says of other formats of the same network whose files still exist."""
    path = directory / "verification.json"
    if not path.is_file():
        return {}
    try:
        report = read_json(path)
        same = report["network"] == network
        known = {
            name: entry
            for name, entry in report["formats"].items()
            if (directory / entry["file"]).exists() and size_of(directory / entry["file"]) == entry["bytes"]
        }
    except (UsageError, AttributeError, KeyError, TypeError):
        return {}  # damaged, or of a version that did not note the network: it is written anew
    return known if same else {}


def size_of(path: str | Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    path = Path(path)
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size


def _verify(
    name: str,
    form: Format,
    path: Path,
    pixels: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    tolerance: float,
) -> dict[str, Any]:
    """Returns the comparison of a format with the Keras model, by the signature that differs most."""
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
