"""Program of a process that loads an ONNX file, runs it, and prints its own peak memory.

Usage:  python -m gdas_tf.export.benchmark.child FILE IMAGES
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np

from gdas_tf.export.benchmark.files import encode_pixels, open_file


def _print_peak_memory(path: str, size: str) -> None:
    """Loads a file, runs three batches and prints the peak of this process in MiB."""
    classifier = open_file(Path(path))
    images = encode_pixels(classifier, np.zeros((int(size), *classifier.image_shape), np.uint8))
    for _ in range(3):
        for call in classifier.calls(images):
            classifier.run(call)
    print(_own_peak_mib())


def _own_peak_mib() -> float:
    # The figure of getrusage is inherited from the process that started this one; that of /proc is not.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import psutil

    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 2**20


if __name__ == "__main__":
    _print_peak_memory(*sys.argv[1:])
