"""Export of a trained network: SavedModel, ONNX, verification, benchmark, serving."""

import os

# onnxruntime 1.32 reports each start to Microsoft, and keeps a device id in the user's cache folder. Only
# modules of this package import onnxruntime, and this comes before them, in child processes as well.
# Who wants the reports sets 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
