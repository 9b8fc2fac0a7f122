"""What a run was made with: programs and machine."""

from __future__ import annotations

import platform
from typing import Any

from gdas_tf.machine import cores, processor

_PACKAGES = (
    "gdas-tf",
    "tensorflow",
    "keras",
    "numpy",
    "tensorflow-datasets",
    "tf2onnx",
    "onnx",
    "onnxruntime",
)


def versions() -> dict[str, Any]:
    """Returns the versions of Python and the packages that a run depends on, and the machine."""
    import importlib.metadata

    found: dict[str, Any] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["machine"] = {
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
    }
    return found
