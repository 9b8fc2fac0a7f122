"""The supernet and a strategy in one keras.Model, whose train_step lets them learn in turns."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from gdas_tf.data.balance import Balance
from gdas_tf.distribution import ReplicatedModel, mean_over_replicas, replicas
from gdas_tf.errors import UsageError
from gdas_tf.keras_backend import keras
from gdas_tf.numerics.losses import cross_entropy, hits
from gdas_tf.optimizers.loss_scale import MaskedLossScale
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.runtime import after_reference_variable, graphs_as_written
from gdas_tf.strategies.base import Batch, Strategy, Task
from gdas_tf.supernet.network import Supernet

Unsampled = Literal["frozen", "decayed"]


class SearchModel(ReplicatedModel):
    """A supernet that a strategy searches, trained by `fit`.

    One step takes a pair of batches `((x_T, y_T), (x_V, y_V))`, images float32 [B, H, W, C] in [0, 1] and
    labels int [B]. The weights descend the loss of the first, on the paths that the strategy gives; then the
    strategy learns, as GDAS does by the gradient of its logits on the second. Only operations on a path are
    computed, and only their weights, momenta and statistics move.

    Args:
        supernet: The network.
        strategy: Which paths run, and how it is learned from them; it is built here.
        seed: Of the strategy.
        unsampled: The weights that were not sampled in a step: "frozen" leaves them and their momentum alone,
            as PyTorch 2 does, which has no gradient of them; "decayed" gives them a gradient of zero, so that
            momentum and weight decay move them in every step. PyTorch 1 did so, with which the seed study and
            the authors' results were made (there a weight first moved when it was first sampled).
        balance: Class weights of the losses, where classes are uneven.

    Raises:
        UsageError: There is no such `unsampled`.

    Example:

    >>> model = SearchModel(Supernet(SearchSpace(), classes=10, channels=4, cells=1), GDAS())
    >>> model.compile(SGD(0.025))
    >>> model.fit(batches, epochs=2)  # doctest: +SKIP
    """

    def __init__(
        self,
        supernet: Supernet,
        strategy: Strategy,
        seed: int = 0,
        unsampled: Unsampled = "frozen",
        balance: Balance | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if unsampled not in ("frozen", "decayed"):
            raise UsageError(f"unsampled is {unsampled!r}; accepted are 'frozen' and 'decayed'")
        self.supernet, self.strategy, self.unsampled = supernet, strategy, unsampled
        self.balance = balance or Balance()
        cells = {"normal": supernet.searched_cells(False)}
        if not supernet.fixed_reduction:
            cells["reduction"] = supernet.searched_cells(True)
        strategy.build(Task(supernet.space, cells, seed, supernet.compute_dtype))
        # Kept as an attribute, Keras counts them among the model's variables.
        self.strategy_variables = list(strategy.variables)
        with tf.device("CPU:0"):  # the host decides by it what it dispatches
            self.step = self.add_weight(
                name="step", shape=(), dtype="int64", initializer="zeros", trainable=False
            )
        self._means = {
            name: keras.metrics.Mean(name=name) for name in ("loss", "accuracy", *strategy.metrics)
        }

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    @property
    def state(self) -> list[Any]:
        """All variables that decide how the search goes on, in an order that is the same in every process."""
        optimizers = [self.optimizer, *self.strategy.optimizers]
        return [*self.variables, *(variable for one in optimizers for variable in one.variables)]

    def compile(self, optimizer: keras.optimizers.Optimizer, **kwargs: Any) -> None:
        """Set the weights' optimizer; `steps_per_execution` and `run_eagerly` as in keras.Model.compile.

        Args:
            optimizer: A `gdas_tf.optimizers.torch_sgd.SGD`, alone or in a MaskedLossScale: it leaves alone
                the weights that were not sampled. With `unsampled="decayed"` any optimizer.

        Raises:
            UsageError: The optimizer is another one.
        """
        inner = optimizer.inner_optimizer if isinstance(optimizer, MaskedLossScale) else optimizer
        if self.unsampled == "frozen" and not isinstance(inner, SGD):
            raise UsageError(
                f"weight optimizer: found {type(inner).__name__}, which cannot leave alone the weights that "
                "were not sampled; accepted is gdas_tf.optimizers.torch_sgd.SGD, also in a "
                'gdas_tf.optimizers.loss_scale.MaskedLossScale, or any optimizer with unsampled="decayed"'
            )
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make all weights, those of the optimizer included; input_shape: [B, H, W, C]."""
        if not self.supernet.built:
            self.supernet.build(input_shape)
            self.supernet.built = True
        self.optimizer.build(self.supernet.trainable_variables)
        for metric in self.metrics:
            if not metric.variables:
                metric.build(())
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Class logits [B, classes] by what the strategy would choose now and the moving statistics."""
        return self.supernet(inputs, *self.strategy.chosen())

    def fit(self, *arguments: Any, **options: Any) -> keras.callbacks.History:
        with graphs_as_written():
            return super().fit(*arguments, **options)

    def train_step(self, data: tuple[Batch, Batch]) -> dict[str, tf.Tensor]:
        training, validation = ((after_reference_variable(images), labels) for images, labels in data)
        self.update_weights(*training)
        self.update_strategy(training, validation)
        self.step.assign_add(1)
        return {name: mean.result() for name, mean in self._means.items()}

    def update_weights(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """One step of the weights W on a batch of D_T, on the paths that the strategy gives."""
        paths = self.strategy.paths(self._step())
        variables = self.supernet.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            outputs = self.supernet(images, *paths, update="weights")
            loss = cross_entropy(labels, outputs, self.balance.of_batches)
            scaled = self.optimizer.scale_loss(loss)
        found = tape.gradient(scaled, [variable.value for variable in variables])
        gradients = mean_over_replicas(found)
        if self.unsampled == "frozen":
            self.optimizer.apply(gradients, variables, masks=self.supernet.weight_masks(*paths))
        else:
            self.optimizer.apply(gradients, variables)
        self._record({"loss": loss, "accuracy": hits(labels, outputs)})

    def update_strategy(self, training: Batch, validation: Batch) -> None:
        """One step of the strategy, on the batch that the weights were trained on and on one of D_V."""
        self._record(self.strategy.learn(self, self._step(), training, validation))

    def _step(self) -> tf.Tensor:
        with tf.device("CPU:0"):
            return tf.convert_to_tensor(self.step.value)

    def _record(self, values: dict[str, tf.Tensor]) -> None:
        if replicas() > 1:
            means = mean_over_replicas([tf.reduce_mean(value) for value in values.values()])
            values = dict(zip(values, means, strict=True))
        for name, value in values.items():
            self._means[name].update_state(value)
