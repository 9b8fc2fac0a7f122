"""Jobs of several processes: the chief has the run directory, and each other worker a copy to work in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gdas_tf.cluster import Cluster
from gdas_tf.errors import RunError
from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.runs.run import Run
from gdas_tf.runs.versions import versions

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.distribution import Distribution

_LEFT_OUT = shutil.ignore_patterns("export", "pictures", "model.keras", "trials", ".*")
"""What no stage that is divided reads."""


def start_distribution(config: Config, resume: bool) -> Distribution | None:
    """Makes the devices ready that a job is divided over; before anything else of TensorFlow runs.

    Returns:
        None where nothing is divided.

    Raises:
        UsageError: there are not as many devices, or TF_CONFIG is damaged.
        RunError: a worker never came.
    """
    settings = config.distribution
    if settings.kind == "none":
        return None
    start_tensorflow()
    from gdas_tf.distribution import start

    values = config.to_dict()
    for name in ("data_dir", "cache_dir"):  # they may lie elsewhere on another machine
        del values["data"][name]
    common = json.dumps([values, resume, versions()["gdas-tf"]], sort_keys=True)
    return start(settings.kind, settings.replicas, settings.wait, hashlib.sha256(common.encode()).hexdigest())


def is_chief(config: Config) -> bool:
    """Whether this process is the one that writes the run directory.

    Raises:
        UsageError: TF_CONFIG is damaged.
    """
    return config.distribution.kind != "multi_worker" or Cluster.from_environment().chief


@contextlib.contextmanager
def own_copy(run: Run | None, config: Config) -> Iterator[Run]:
    """A run directory for a worker that is not the chief, which is removed in the end.

    Args:
        run: what the chief has, to go on with; None where it begins one. Nothing is written to it, and it is
            read before the workers meet, so before the chief changes it.
        config: configuration of the copy.
    """
    with tempfile.TemporaryDirectory(prefix="gdas-tf-worker-") as folder:
        path = Path(folder) / "run"
        if run is None:
            yield Run.create(path, config)
            return
        shutil.copytree(run.path, path, ignore=_LEFT_OUT)
        yield Run.open(path)


@contextlib.contextmanager
def lost_workers(distribution: Distribution | None) -> Iterator[None]:
    """Says in one line that a worker went away, in place of what TensorFlow says of its connections.

    Raises:
        RunError: it did.
    """
    try:
        yield
    except Exception as error:
        import tensorflow as tf

        gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
        if distribution is None or not isinstance(error, gone):
            raise
        raise RunError(
            "a worker went away, or can no longer be reached; see what it said, start all workers again and "
            "resume it"
        ) from error
