"""Serving of exported networks: the HTTP server around the classifier of `gdas_tf.export.inference`.

Nothing here imports TensorFlow; an ONNX file, onnxruntime, NumPy and Pillow are enough.

- images: a picture file to the array that a network takes
- repository: names and versions of the models to serve
- batching: requests to batches
- open_inference, tensorflow_serving, classification: the three protocols
- application, http, origins: ASGI, limits, who may ask
- server, workers: settings, and granian's processes
"""
