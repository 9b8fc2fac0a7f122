"""The process that `gdas_tf.training.workers` begins: it trains the trials that it is sent."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from gdas_tf.errors import RunError, UsageError
from gdas_tf.numerics.starting import start_tensorflow


def main(descriptor: int) -> None:
    """Answers requests until the other end of the connection is closed.

    Args:
        descriptor: The connection's number. First comes the set-up: `plugins`, `data`, and what
            `TrialTrainer` takes besides. A request is (configuration as a dictionary, genotype as JSON).
    """
    # Ctrl-C goes to all processes of a terminal; this one ends when the one that began it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    requests: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    start_tensorflow()
    _let_gpus_be_shared()
    from gdas_tf import plugins
    from gdas_tf.config.config import Config
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.trial import TrialTrainer

    setup = requests.get()
    plugins.load(setup.pop("plugins"))
    trainer = TrialTrainer(**setup)
    while True:
        config, genotype = requests.get()
        try:
            answer = ("answer", trainer.train(Config.from_dict(config), Genotype.from_json(genotype)))
        except (UsageError, RunError) as error:
            answer = ("UsageError" if isinstance(error, UsageError) else "RunError", str(error))
        except Exception as error:  # TensorFlow and Keras each have errors of their own
            traceback.print_exc()
            answer = ("RunError", f"{type(error).__name__}: {' '.join(str(error).split()):.300}")
        connection.send(answer)


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


if __name__ == "__main__":
    main(int(sys.argv[1]))
