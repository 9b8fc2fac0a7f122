"""How TensorFlow runs on a machine without a GPU: threads, kernels, and graph optimization."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.framework import ops

from gdas_tf.machine import cores


def set_up() -> None:
    """Set TensorFlow up as every process of the command line does; before it computes anything."""
    set_threads()
    keep_kernels()


def set_threads() -> None:
    """Let the cores work on operations side by side rather than all on one operation.

    The edges of a cell do not wait for each other, and what is done on each is short: on two cores a search
    step with one thread an operation takes 0.7 of the time at full size and half of it on 8x8 images, and a
    step of retraining no longer than before (docs/performance.md).

    Does nothing where there is a GPU, where the threads were set by anybody else
    (`tf.config.threading`, TF_NUM_INTRAOP_THREADS), or where TensorFlow runs already.
    """
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    if chosen or "TF_NUM_INTRAOP_THREADS" in os.environ or tf.config.list_physical_devices("GPU"):
        return
    # A cell has about four edges to work on at a time. More than two cores were not measured.
    with contextlib.suppress(RuntimeError):  # TensorFlow runs already
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // 4))


def keep_kernels() -> None:
    """Let TensorFlow keep the kernels that oneDNN made for a convolution, for the next time.

    Unless told otherwise it makes those of backward passes, and of batches of over 32 images, anew each time,
    to save memory. Kept they need some 10 MiB, and a step on 8x8 images takes 0.94 of the time, with the same
    results (docs/performance.md).

    Does nothing where TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE is set, or after the first convolution.
    """
    os.environ.setdefault("TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE", "false")


@contextlib.contextmanager
def graphs_as_written() -> Iterator[None]:
    """Run what is traced inside without TensorFlow's general graph optimizer (Grappler).

    The search step leaves it little to gain on a CPU and is ready two seconds earlier without it; and it
    would undo what makes the step reproducible to the last bit (`gdas_tf.supernet.layers.add`). The rewriting
    to oneDNN's kernels is another pass, which stays. Where there is a GPU nothing changes: there the
    optimizer chooses the memory layout.
    """
    if tf.config.list_physical_devices("GPU"):
        yield
        return
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


@contextlib.contextmanager
def graphs_forgotten() -> Iterator[None]:
    """Let go of the graphs that are traced inside, when the block ends; nothing may compute with them after.

    TensorFlow registers each gradient of `tf.custom_gradient` under a name of its own in every graph, for
    ever, and the gradient holds the graph: some 40 MiB for each network that a process trains.
    """
    registered = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith("CustomGradient-"):
                del registered[name]


def after_reference_variable(value: tf.Tensor) -> tf.Tensor:
    """The same value, in a graph after a reference variable; what is computed of it is ready to run sooner.

    Before TensorFlow first runs a graph it looks for all that is connected with a reference variable, which
    XLA must not compile (`GetNodesRelatedToRefVariables`). To see whether a node is, it unpacks whatever
    functions the node may call, and it keeps none of them: in a search step that is eight branches for each
    edge and pass, and took half of the time from the traced graph to the end of the first step. What comes
    after a node that is known to be connected is connected too, and not looked into. So this puts the value
    after a reference variable, which nobody reads or writes. The value must be one that all `Case` operations
    depend on, as the images of a batch are.

    What comes after it is left alone by XLA's automatic clustering (`tf.config.optimizer.set_jit`), which has
    nothing to gain in a graph of `Case` operations; `jit_compile` of what they call is another matter, and
    stays.
    """
    if tf.executing_eagerly():
        return value
    reference = tf.raw_ops.VariableV2(shape=[], dtype=tf.float32, container="", shared_name="")
    with tf.control_dependencies([reference]):
        return tf.identity(value)
