"""TensorFlow's start in a process."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow and sets it up (`gdas_tf.runtime.set_up`); before anything is computed.

    Where TF_CPP_MIN_LOG_LEVEL is 2 or more, what its libraries say of themselves on stderr is dropped, too:
    those lines come before TensorFlow reads that setting.
    """
    first = "tensorflow" not in sys.modules
    quiet = first and os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") >= "2"
    with _stderr_nowhere() if quiet else contextlib.nullcontext():
        from gdas_tf.runtime import set_up
    set_up()
    if first:
        # A million objects that stay: the garbage collector need not look through them while graphs are made.
        # Not later again: what is garbage by then would stay, too.
        gc.freeze()


@contextlib.contextmanager
def _stderr_nowhere() -> Iterator[None]:
    """Drops what is written to stderr, by C++ as well."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
