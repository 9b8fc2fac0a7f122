"""Verification of exported files: their probabilities on held-out images beside those of the Keras model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.errors import RunError

if TYPE_CHECKING:
    import keras

    from gdas_tf.data.dataset import Split

BATCH = 64
TIE = 1e-6
"""Two classes with probabilities as near as this are a tie: rounding decides, and either one is right."""

Predictor = Callable[[np.ndarray], np.ndarray]
"""Takes pixels, uint8 [B, H, W, C], and returns probabilities, float32 [B, classes]."""


def held_out(split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `count` images (uint8 [n, H, W, C]) and labels (int [n]), spread over the split."""
    total = len(split.labels)
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
    return np.asarray(split.images[chosen]), np.asarray(split.labels[chosen])


def to_floats(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels, uint8, as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def keras_predictor(model: keras.Model) -> Predictor:
    """Returns the predictor of the model itself."""
    return lambda pixels: np.asarray(model.predict_on_batch(to_floats(pixels)))


def saved_model_predictors(path: str | Path) -> dict[str, Predictor]:
    """Returns the predictors of both signatures of a SavedModel, by signature."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def predictor(signature: str, prepare: Callable[[np.ndarray], np.ndarray]) -> Predictor:
        # The signature alone does not keep the variables of the loaded model alive; the closure does.
        return lambda pixels: loaded.signatures[signature](image=tf.constant(prepare(pixels)))[
            "probabilities"
        ].numpy()

    return {
        "serving_default": predictor("serving_default", to_floats),
        "serving_pixels": predictor("serving_pixels", lambda pixels: pixels),
    }


def onnx_predictor(path: str | Path) -> Predictor:
    """Returns the predictor of an ONNX file, by the classifier that predict and serve use, on the CPU."""
    from gdas_tf.export.inference import Classifier

    classifier = Classifier.open(path)
    return lambda pixels: classifier.run(classifier.encode(to_floats(pixels)))


def lite_predictor(path: str | Path) -> Predictor:
    """Returns the predictor of a LiteRT file."""
    from gdas_tf.export.lite import lite_runner

    run = lite_runner(path)
    return lambda pixels: run(image=to_floats(pixels))["probabilities"]


def predict(predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    """Returns the probabilities of all images, computed in batches of 64 and a last, smaller one.

    Args:
        predictor: of a model.
        pixels: uint8 [n, H, W, C].

    Returns:
        Probabilities, float32 [n, classes].
    """
    return np.concatenate([predictor(batch) for batch in _batches(pixels)]).astype(np.float32)


def _batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), BATCH):
        yield pixels[start : start + BATCH]


def compare(probabilities: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compares a model's probabilities with those of the Keras model.

    Args:
        probabilities, reference: float32 [n, classes].
        labels: int [n].

    Returns:
        `largest_difference` of a probability; `different_classes`, the images that get another class;
        `ties`, those of them whose two best classes are as good as equal in the reference (they don't count
        as different); `agreement`, the share of images with the same class; `accuracy` and
        `accuracy_change`, against the reference.
    """
    found, wanted = probabilities.argmax(1), reference.argmax(1)
    rows = np.arange(len(labels))
    differs = found != wanted
    ties = differs & (reference[rows, wanted] - reference[rows, found] <= TIE)
    accuracy, reference_accuracy = float((found == labels).mean()), float((wanted == labels).mean())
    difference = np.abs(probabilities - reference)
    return {
        "largest_difference": float(difference.max()) if np.isfinite(difference).all() else float("inf"),
        "different_classes": int((differs & ~ties).sum()),
        "ties": int(ties.sum()),
        "agreement": float(1 - (differs & ~ties).mean()),
        "accuracy": accuracy,
        "accuracy_change": accuracy - reference_accuracy,
    }


def check(name: str, comparison: Mapping[str, Any], tolerance: float, images: int) -> None:
    """Makes sure that a format that claims to be exact is.

    Raises:
        RunError: a probability differs by more than the tolerance, or a class differs.
    """
    difference, classes = comparison["largest_difference"], comparison["different_classes"]
    if difference > tolerance:
        raise RunError(
            f"export {name}: a probability differs from the Keras model's by {difference:.2g} on held-out "
            f"images; accepted is {tolerance:.2g} (export.tolerance); nothing was written"
        )
    if classes:
        raise RunError(
            f"export {name}: {classes} of {images} held-out images get another class than from the Keras "
            "model; none may; nothing was written"
        )
