"""What TensorFlow Serving takes as --model_base_path: a folder for each version, a SavedModel in it."""

from __future__ import annotations

from gdas_tf.export.formats import Format, register, saved_model

register(
    "tf_serving",
    Format(
        "tf_serving/model",
        lambda material, path: saved_model.write(material, path / "1"),
        lambda path: saved_model.predictors(path / "1"),
    ),
)
