"""The user's surroundings: what is set for other projects, notebooks and terminals changes no command."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_SET = {
    "KERAS_BACKEND": "tensorflow",
    # Keras reads keras.json from here: no such file can be, so it is neither read nor made.
    "KERAS_HOME": os.devnull,
    # The command line only writes pictures to files. Notebooks hand down a backend of their own, which
    # matplotlib refuses where their packages are not installed.
    "MPLBACKEND": "agg",
}
# Keras would end each training early, or keep its variables in another way.
_REMOVED = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")


@contextlib.contextmanager
def own_surroundings(debug: bool) -> Iterator[None]:
    """Sets what libraries read from the environment, for the time of a command.

    Args:
        debug: leave TensorFlow's log as it is.
    """
    before = {name: os.environ.get(name) for name in (*_SET, *_REMOVED, "TF_CPP_MIN_LOG_LEVEL")}
    os.environ.update(_SET)
    for name in _REMOVED:
        os.environ.pop(name, None)
    if not debug:
        # Read by TensorFlow when it is imported: nothing but what the user can act on.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def printing_anything() -> Iterator[None]:
    """Lets stdout take any text: characters that its encoding lacks are printed as `\\xe9`, as on stderr."""
    stdout = sys.stdout
    if not hasattr(stdout, "reconfigure"):  # somebody put another object in its place
        yield
        return
    before = stdout.errors
    stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # it was closed
            stdout.reconfigure(errors=before)
