"""What a process that `gdas_tf.training.workers` begins does: it answers the requests that it is sent."""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from gdas_tf.errors import RunError, UsageError
from gdas_tf.numerics.starting import start_tensorflow


def serve(descriptor: int, prepare: Callable[[Any], Callable[[Any], Any]]) -> None:
    """Answers requests until the other end of the connection is closed.

    Args:
        descriptor: The connection's number. First comes the set-up, then one request after the other.
        prepare: Makes of the set-up what answers a request, when TensorFlow is set up. What it imports of
            TensorFlow it imports when it is called.
    """
    # Ctrl-C goes to all processes of a terminal; this one ends when the one that began it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    requests: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    start_tensorflow()
    _let_gpus_be_shared()
    answer = prepare(requests.get())
    while True:
        request = requests.get()
        try:
            told = ("answer", answer(request))
        except (UsageError, RunError) as error:
            told = ("UsageError" if isinstance(error, UsageError) else "RunError", str(error))
        except Exception as error:  # TensorFlow and Keras each have errors of their own
            traceback.print_exc()
            told = ("RunError", f"{type(error).__name__}: {' '.join(str(error).split()):.300}")
        connection.send(told)


def _receive(connection: Connection, requests: queue.Queue[Any]) -> None:
    """Takes what is sent, and ends the process when nothing more can come, even amid a training."""
    while True:
        try:
            requests.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def _let_gpus_be_shared() -> None:
    """A process takes a GPU's memory as it needs it, not all of it at once: there may be others."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
