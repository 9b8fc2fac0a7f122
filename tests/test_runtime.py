"""How TensorFlow is set up for a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from gdas_tf.runtime import graphs_as_written, keep_kernels, set_threads


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What `set_threads` chooses in a process where nobody has chosen yet, and there is no GPU."""
    found: list[int] = []
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", found.append)
    return found


def test_threads_are_set(chosen: list[int]) -> None:
    set_threads()
    (threads,) = chosen
    assert 1 <= threads <= max(1, (os.cpu_count() or 1) // 4)


def test_threads_that_were_chosen_are_left(chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 7)
        set_threads()
    with monkeypatch.context() as patch:
        patch.setenv("TF_NUM_INTRAOP_THREADS", "3")
        set_threads()
    with monkeypatch.context() as patch:
        patch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
        set_threads()
    assert chosen == []


def test_threads_of_a_tensorflow_that_runs_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert float(tf.constant(1.0) + 1) == 2.0
    before = tf.config.threading.get_intra_op_parallelism_threads()
    with pytest.raises(RuntimeError, match="cannot be modified after initialization"):
        tf.config.threading.set_intra_op_parallelism_threads(before + 1)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
        patch.setattr("gdas_tf.runtime.cores", lambda: 4 * (before + 1))
        set_threads()
    assert tf.config.threading.get_intra_op_parallelism_threads() == before


def test_kernels_are_kept() -> None:
    """oneDNN makes them in the first of three equal passes, forward and backward."""
    code = """
import tensorflow as tf
from gdas_tf.runtime import keep_kernels
keep_kernels()
images, kernel = tf.ones((64, 8, 8, 16)), tf.Variable(tf.ones((3, 3, 16, 16)))
@tf.function
def once():
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME"))
    return tape.gradient(loss, kernel)
for number in range(3):
    once().numpy()
    print("pass", flush=True)
"""
    inherited = {key: value for key, value in os.environ.items() if key != "TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE"}
    # One thread: each keeps its own.
    fixed = {"CUDA_VISIBLE_DEVICES": "", "ONEDNN_VERBOSE": "2", "TF_NUM_INTEROP_THREADS": "1"}
    environment = {**inherited, **fixed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, *further = [part.count(",create") for part in done.stdout.split("pass\n")[:3]]
    assert first > 0 and further == [0, 0]


def test_kernels_are_not_kept_if_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "true")
    keep_kernels()
    assert os.environ["TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE"] == "true"


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="the optimizer stays on on a GPU")
def test_graph_optimizer_comes_back() -> None:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})  # as a process begins
    before = tf.config.optimizer.get_experimental_options()
    with pytest.raises(ZeroDivisionError), graphs_as_written():
        assert tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]
        _ = 1 / 0
    try:
        assert tf.config.optimizer.get_experimental_options() == before
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # conftest.py


def test_names_and_sections_of_strategies_need_no_tensorflow() -> None:
    code = """
import sys
from gdas_tf.strategies.base import STRATEGIES
assert all(STRATEGIES.get(name).section for name in STRATEGIES)
print([name for name in ("tensorflow", "keras", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
