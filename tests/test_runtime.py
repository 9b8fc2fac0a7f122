"""How TensorFlow is set up for a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from gdas_tf.runtime import graphs_as_written


def _threads(environment: dict[str, str], before: str = "") -> int:
    code = f"""
import tensorflow as tf
from gdas_tf.runtime import set_threads
{before}
set_threads()
print(tf.config.threading.get_intra_op_parallelism_threads())
"""
    environment = {**os.environ, **environment, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_threads_are_set() -> None:
    assert 1 <= _threads({}) <= max(1, (os.cpu_count() or 1) // 4)


@pytest.mark.parametrize(
    ("environment", "before", "threads"),
    [
        ({}, "tf.config.threading.set_intra_op_parallelism_threads(7)", 7),
        ({}, "tf.constant(1.0) + 1", 0),
        ({"TF_NUM_INTRAOP_THREADS": "3"}, "", 0),
    ],
    ids=["chosen", "running", "environment"],
)
def test_threads_are_left_as_they_are(environment: dict[str, str], before: str, threads: int) -> None:
    assert _threads(environment, before) == threads


def _kernels_made(environment: dict[str, str]) -> list[int]:
    """Returns how many kernels oneDNN makes in each of three equal passes, forward and backward."""
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
    environment = {**inherited, **fixed, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [part.count(",create") for part in done.stdout.split("pass\n")[:3]]


def test_kernels_are_kept() -> None:
    first, *further = _kernels_made({})
    assert first > 0 and further == [0, 0]


def test_kernels_are_not_kept_if_that_was_chosen() -> None:
    _, *further = _kernels_made({"TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE": "true"})
    assert min(further) > 0


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="the optimizer stays on on a GPU")
def test_graph_optimizer_comes_back() -> None:
    before = tf.config.optimizer.get_experimental_options()
    with pytest.raises(ZeroDivisionError), graphs_as_written():
        assert tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]
        _ = 1 / 0
    after = tf.config.optimizer.get_experimental_options()
    assert not after.pop("disable_meta_optimizer")
    before.pop("disable_meta_optimizer", None)
    assert after == before


def test_names_and_sections_of_strategies_need_no_tensorflow() -> None:
    code = """
import sys
from gdas_tf.strategies.base import STRATEGIES
assert all(STRATEGIES.get(name).section for name in STRATEGIES)
print([name for name in ("tensorflow", "keras", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
