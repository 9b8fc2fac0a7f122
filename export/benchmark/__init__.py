"""Latency, throughput, memory and accuracy of ONNX image classifiers, measured with onnxruntime.

Needs NumPy, SciPy and onnxruntime (matplotlib for the picture), and never TensorFlow.

- measuring: rounds in which all files are measured in turn
- files: the files as classifiers of pixels
- memory, child: the peak memory of a file, in a process of its own
- report: the table and the CSV file
- picture: the curves
"""

from gdas_tf.export.benchmark.measuring import benchmark_models
from gdas_tf.export.benchmark.picture import draw_benchmark
from gdas_tf.export.benchmark.report import format_table, write_csv

__all__ = ["benchmark_models", "draw_benchmark", "format_table", "write_csv"]
