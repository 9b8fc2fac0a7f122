"""The ONNX files that are measured, ours or anybody's, as classifiers of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gdas_tf.export.inference import Classifier, InputOptions

OPEN_SHAPE = (224, 224, 3)
"""Height, width and channels of the images where a file leaves them open."""

_BATCH = 64  # images at once where accuracy is measured


def open_file(path: Path, threads: int = 0, provider: str = "CPUExecutionProvider") -> Classifier:
    """Loads a file.

    Args:
        path: the file.
        threads: threads within an operator; 0 leaves the choice to onnxruntime.
        provider: execution provider, by its full name.

    Raises:
        UsageError: the file is missing, damaged, or not an image classifier.
    """
    options = InputOptions(assumed_shape=OPEN_SHAPE)
    return Classifier.open(path, threads=threads, providers=[provider], options=options)


def encode_pixels(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Returns images, uint8 [n, H, W, C], as the input of a classifier takes them."""
    return classifier.encode(pixels / np.float32(255))


def predicted_classes(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Returns the class of each image.

    Args:
        classifier: the network.
        pixels: uint8 [n, H, W, C].

    Returns:
        int64 [n].
    """
    batches = (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
    return np.concatenate([classifier.run(encode_pixels(classifier, batch)).argmax(1) for batch in batches])
