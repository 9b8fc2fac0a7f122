"""Export of a trained network: SavedModel, ONNX, verification, benchmark, serving."""
