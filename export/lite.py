"""Keras network -> LiteRT (.tflite), float32 and int8."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdas_tf.files import writing

if TYPE_CHECKING:
    import tensorflow as tf

_SIGNATURE = "serving_default"


def save_lite(saved_model: str | Path, path: str | Path, calibration: np.ndarray | None = None) -> None:
    """Writes a LiteRT file of a SavedModel, with its signature `serving_default` of any batch size.

    Args:
        saved_model: folder, as `save_saved_model` makes it.
        path: the file to write.
        calibration: float32 [n, H, W, C] in [0, 1]; given, weights and activations are int8, by the ranges
            that these images lead to. Input and output stay float32.

    Raises:
        RunError: the disk is full or read-only.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[_SIGNATURE])
    if calibration is not None:

        def examples() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            for image in calibration:
                yield _SIGNATURE, {"image": image[None]}

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with _silence():
        content = converter.convert()
    with writing(Path(path)):
        Path(path).write_bytes(content)


def lite_runner(path: str | Path) -> Any:
    """Returns a function of `image`, float32 [B, H, W, C], that returns {"probabilities": float32}."""
    return interpreter(path).get_signature_runner(_SIGNATURE)


def count_lite_operators(path: str | Path) -> dict[str, int]:
    """Returns how many nodes of each operator a file has, most frequent first."""
    details = interpreter(path)._get_ops_details()
    counts = collections.Counter(item["op_name"] for item in details)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def interpreter(path: str | Path) -> tf.lite.Interpreter:
    """Returns LiteRT's interpreter of a file: of the package ai-edge-litert, or TensorFlow's own."""
    with _silence():
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            import warnings

            import tensorflow as tf

            Interpreter = tf.lite.Interpreter  # noqa: N806
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        return Interpreter(str(path))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what the converter's C++ code writes to stderr on every conversion."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
