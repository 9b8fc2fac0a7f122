"""Keras as the networks need it. Every module takes `keras` from here, where it is checked.

Which backend Keras computes with is decided once in a process, when it is imported: by KERAS_BACKEND, or by
the keras.json of the user, who may have set it for another project.
"""

from __future__ import annotations

from gdas_tf.errors import UsageError

_ADVICE = (
    "set the environment variable KERAS_BACKEND to tensorflow before anything imports Keras (it goes over "
    "the file keras.json), and start Python anew"
)

try:
    import keras
except Exception as error:  # of the backend's packages, which may be missing, or of a name that is no backend
    if isinstance(error, ModuleNotFoundError) and error.name in ("keras", "tensorflow"):
        raise
    raise UsageError(
        f"Keras cannot be imported as it is set up ({' '.join(str(error).split()):.120}); gdas_tf needs it "
        f"with TensorFlow: {_ADVICE}"
    ) from error

if keras.backend.backend() != "tensorflow":
    raise UsageError(
        f"Keras computes with {keras.backend.backend()}; gdas_tf needs it with TensorFlow: {_ADVICE}"
    )

_SETTINGS = {"image_data_format": "channels_last", "floatx": "float32"}


def check_settings() -> None:
    """Makes sure that Keras' settings are those that the networks are written for.

    Raises:
        UsageError: another image data format, or another type of floating-point numbers.
    """
    for name, wanted in _SETTINGS.items():
        found = getattr(keras.config, name)()
        if found != wanted:
            raise UsageError(
                f"keras.config.{name}() is {found}, perhaps by the file keras.json; gdas_tf needs {wanted}: "
                f"call keras.config.set_{name}({wanted!r})"
            )
