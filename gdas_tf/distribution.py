"""Several devices and machines that train one network: all of tf.distribute stands here.

Each replica computes a part of the batch, with variables of its own, and takes the same step as all others:
what a step learns from, gradients and rewards, is the mean over the replicas (`mean_over_replicas`) before
anything is made of it, as clipping to a global norm. So no variable is ever sent; copies stay the same
because what they are moved by is. Only the statistics of batch norms differ, those of a replica being of its
own images, until `Distribution.align` makes one of them, at the end of an epoch.

Keras' own way, by variables that are kept the same and optimizers that add up what each replica would do,
clips the gradient of every replica alone, and cannot be called in a branch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from gdas_tf.cluster import Cluster, meet
from gdas_tf.errors import RunError, UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.machine import cores


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
    """How a training is divided; by default not at all.

    Args:
        strategy: of tf.distribute; None for one replica.
        chief: whether this process is the one that writes.
    """

    strategy: tf.distribute.Strategy | None = None
    chief: bool = True

    @property
    def replicas(self) -> int:
        """Number of replicas on all machines."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Inside, of every variable that is made each replica has a copy of its own."""
        if self.strategy is None:
            yield
            return
        with self.strategy.scope(), tf.variable_creator_scope(_own_copies):
            yield

    def part(self, batch_size: int) -> int:
        """Images of a batch that one replica computes.

        Raises:
            UsageError: the batch cannot be divided evenly.
        """
        if batch_size % self.replicas:
            raise UsageError(
                f"a batch of {batch_size} images cannot be divided over {self.replicas} replicas"
            )
        return batch_size // self.replicas

    def share(self, batches: tf.data.Dataset) -> Any:
        """Batches for `fit`: of each, replica r has the r-th part.

        Args:
            batches: tensors of a static shape [B, …] in any structure, B divisible by the replicas, and
                scalars, which all have.
        """
        if self.strategy is None:
            return batches

        def parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
            replicas = context.num_replicas_in_sync
            here = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * here

            def cut(tensor: tf.Tensor) -> tf.Tensor:
                shape = tensor.shape
                if not shape.rank:  # of the batch as a whole, as mixup's share
                    return tf.repeat(tensor, here)
                return tf.reshape(tensor, (replicas, shape[0] // replicas, *shape[1:]))[first : first + here]

            def divide(*batch: Any) -> tf.data.Dataset:
                return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(cut, batch))

            # Without an end, as `fit` counts the steps: workers would ask each other in each step whether all
            # have something left.
            return batches.flat_map(divide).repeat().prefetch(2 * here)

        return self.strategy.distribute_datasets_from_function(parts)

    def align(self, variables: Sequence[Any]) -> None:
        """Give all replicas the mean of each of some Keras variables; outside of a step."""
        chosen = [variable for variable in variables if variable.dtype == "float32"]
        if self.strategy is None or not chosen:
            return

        def own() -> None:
            means = mean_over_replicas([tf.convert_to_tensor(variable.value) for variable in chosen])
            for variable, mean in zip(chosen, means, strict=True):
                variable.assign(mean)

        tf.function(lambda: self.strategy.run(own), autograph=False)()


def replicas() -> int:
    """How many replicas run what is computed here; 1 outside of a distribution."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def mean_over_replicas(values: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """The mean of each tensor over all replicas, the same in every one; as they are where there is one.

    Called in every replica, and not in a branch (`tf.cond`), as all wait for all.

    Args:
        values: tensors of floats; a None, as of a weight without a gradient, stays None.
    """
    given = [value for value in values if value is not None]
    if replicas() == 1 or not given:
        return list(values)
    flat = tf.concat([tf.reshape(tf.cast(value, tf.float32), [-1]) for value in given], 0)  # one message
    mean = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, flat)
    parts = iter(tf.split(mean, [value.shape.num_elements() for value in given]))
    return [
        None if value is None else tf.cast(tf.reshape(next(parts), value.shape), value.dtype)
        for value in values
    ]


def own_part(values: tf.Tensor, axis: int) -> tf.Tensor:
    """This replica's part of what all replicas drew alike for a whole batch, along an axis."""
    count, context = replicas(), tf.distribute.get_replica_context()
    if count == 1:
        return values
    number = 0 if context is None else context.replica_id_in_sync_group  # None while a network is built
    size = tf.shape(values)[axis] // count
    return tf.gather(values, number * size + tf.range(size), axis=axis)


def has_own_copies(variable: Any) -> bool:
    """Whether each replica has a copy of a Keras variable of its own, as `Distribution.scope` makes them."""
    return variable.value.synchronization == tf.VariableSynchronization.ON_READ


class ReplicatedModel(keras.Model):
    """Base of the models that are trained by `fit`, on one replica or, made in a scope, on several."""

    def make_train_function(self, force: bool = False) -> Any:
        """As of keras.Model, whose own takes means of what workers return along an axis that scalars lack."""
        if replicas_of(self) == 1:
            return super().make_train_function(force)
        if self.train_function is None or force:
            strategy = self.distribute_strategy

            def step(iterator: Any) -> dict[str, tf.Tensor]:
                found = strategy.run(self.train_step, args=(next(iterator),))
                return {name: strategy.experimental_local_results(value)[0] for name, value in found.items()}

            self.train_function = step if self.run_eagerly else tf.function(step, autograph=False)
        return self.train_function

    def _maybe_symbolic_build(self, *arguments: Any, **options: Any) -> None:
        """Nothing, as all layers are built: Keras' own takes a batch away, and cannot read one of workers."""


def replicas_of(model: keras.Model) -> int:
    """How many replicas a model was made for."""
    return model.distribute_strategy.num_replicas_in_sync


def start(kind: str, count: int | None, wait: float, agreement: str) -> Distribution:
    """Make ready what a training is divided over; before anything else of TensorFlow runs in the process.

    Args:
        kind: "none"; "mirrored", the devices of this machine; or "multi_worker", those of all machines that
            TF_CONFIG names.
        count: number of replicas; None for one on each GPU, and where there is none one on each machine.
        wait: seconds to wait for other workers.
        agreement: what must be the same in all workers.

    Raises:
        UsageError: there are not as many devices, TF_CONFIG is damaged, or TensorFlow runs already.
        RunError: a worker never came.
    """
    if kind == "none":
        return Distribution()
    if kind == "mirrored":
        return _mirrored(count)
    cluster = Cluster.from_environment()
    meet(cluster, agreement, wait)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UsageError(
            "distribution.kind: TensorFlow has computed something in this process already, and workers must "
            "be set up before; begin in a new process"
        ) from error
    except (ValueError, tf.errors.OpError) as error:
        raise RunError(f"the workers of TF_CONFIG cannot be connected ({_line(error)})") from error
    found = strategy.num_replicas_in_sync
    if count not in (None, found):
        raise UsageError(
            f"distribution.replicas: found {count}; the {len(cluster.addresses)} workers of TF_CONFIG have "
            f"{found} replicas; leave it out, or name that number"
        )
    return Distribution(strategy, cluster.chief)


def _mirrored(count: int | None) -> Distribution:
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if not gpus and count not in (None, 1) and count <= cores():
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already, with as many as it has
            one = tf.config.LogicalDeviceConfiguration()
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], [one] * count
            )
    devices = gpus or tf.config.list_logical_devices("CPU")
    wanted = count or (len(devices) if gpus else 1)
    if wanted > len(devices):
        most = len(gpus) or cores()
        why = f"1 to {most}" if wanted > most else f"1 to {len(devices)}, as TensorFlow runs here already"
        raise UsageError(
            f"distribution.replicas: found {wanted}, and this machine has {most} "
            f"{'GPUs' if gpus else 'cores and no GPU'}; accepted are {why}"
        )
    if wanted == 1:
        return Distribution()
    names = [device.name for device in devices[:wanted]]
    in_order = None if gpus else tf.distribute.ReductionToOneDevice(accumulation_fn=_sum)
    return Distribution(tf.distribute.MirroredStrategy(names, in_order))


def _sum(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum in order; AddN begins with whichever is free to be overwritten."""
    return functools.reduce(operator.add, values)


def _own_copies(make: Callable[..., Any], **options: Any) -> Any:
    return make(
        **{
            **options,
            "trainable": False,  # to TensorFlow; Keras keeps a flag of its own, by which our tapes watch
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
