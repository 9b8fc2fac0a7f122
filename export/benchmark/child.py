"""Program of a process that loads an ONNX file, runs it, and prints its own peak memory.

Usage:  python -m gdas_tf.export.benchmark.child FILE IMAGES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from gdas_tf.export.benchmark.files import encode_pixels, open_file
from gdas_tf.machine import own_peak_memory


def _print_peak_memory(path: str, size: str) -> None:
    """Loads a file, runs three batches and prints the peak of this process in MiB."""
    classifier = open_file(Path(path))
    images = encode_pixels(classifier, np.zeros((int(size), *classifier.image_shape), np.uint8))
    for _ in range(3):
        for call in classifier.calls(images):
            classifier.run(call)
    print(own_peak_memory())


if __name__ == "__main__":
    _print_peak_memory(*sys.argv[1:])
