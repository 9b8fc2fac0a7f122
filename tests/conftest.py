"""What all tests share: a quiet TensorFlow, and the data beside the repository."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from gdas_tf.runtime import graphs_as_written, set_up  # noqa: E402

# Nothing that the imports made is garbage, and graphs are made of so many objects that looking for garbage
# among them takes long.
gc.freeze()
gc.set_threshold(100_000, 20, 100)

# As in every process of the command line: with other threads the last bits of a result are others, and tests
# compare what they compute with what such a process made.
set_up()


@pytest.fixture(autouse=True, scope="session")
def without_graph_optimizer() -> Iterator[None]:
    """As in the search and in training: to optimize the graphs of so many networks takes long."""
    with graphs_as_written():
        yield


@pytest.fixture(autouse=True, scope="module")
def forget_graphs() -> Iterator[None]:
    """Frees the functions that a file's supernets were traced to: a process that runs many files would
    otherwise hold gigabytes of them."""
    yield
    branches = sys.modules.get("gdas_tf.supernet.branches")
    for name, function in vars(branches).items() if branches else ():
        if name.endswith("_branches") and hasattr(function, "cache_clear"):
            function.cache_clear()
    gc.collect()


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `../shared` with prepared data sets and golden values; skips the test when it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}")
    return SHARED
