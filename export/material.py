"""What the formats of an export are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gdas_tf.export import verification

if TYPE_CHECKING:
    import keras
    import onnx

    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataIdentity
    from gdas_tf.export.quantization import Quantized
    from gdas_tf.spaces.genotype import Genotype


@dataclass
class Material:
    """What the formats are made of, each part made once.

    Args:
        model: the network.
        data: of which the training images calibrate, and the class names are written into the files.
        genotype: of the network.
        trained_on: identity of the data that the network was made on, for the files to carry.
        accuracy: of the network on held-out images, as a fraction.
        calibration_images: number of training images to calibrate on, at most.
        scratch: folder for files that are needed meanwhile.
    """

    model: keras.Model
    data: DataSet
    genotype: Genotype | None
    trained_on: DataIdentity | None
    accuracy: float
    calibration_images: int
    scratch: Path

    @cached_property
    def onnx(self) -> onnx.ModelProto:
        from gdas_tf.export.onnx_model import describe, to_onnx

        names = self.data.class_names
        metadata = describe(self.model, names, self.genotype, self.accuracy, self.trained_on)
        return to_onnx(self.model, metadata)

    @cached_property
    def saved_model(self) -> Path:
        from gdas_tf.export.saved_model import save_saved_model

        save_saved_model(self.model, self.scratch / "saved_model", self.trained_on)
        return self.scratch / "saved_model"

    @cached_property
    def calibration(self) -> np.ndarray:
        """Training images, float32 [n, H, W, C] in [0, 1]."""
        return verification.to_floats(verification.held_out(self.data.train, self.calibration_images)[0])

    @cached_property
    def quantized(self) -> Quantized:
        from gdas_tf.export.quantization import quantize

        return quantize(self.onnx, self.calibration)
