"""ENAS: a controller samples genotypes, and is reinforced by their accuracy with shared weights.

Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018 (arXiv 1802.03268).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gdas_tf.config.fields import Number, Section, Whole
from gdas_tf.numerics.lazy import tf
from gdas_tf.numerics.losses import cross_entropy, hits, weighted
from gdas_tf.strategies import candidates, sampling
from gdas_tf.strategies.base import STRATEGIES, Batch, Paths, Task, both
from gdas_tf.strategies.choosing import Batches, ChoosingStrategy
from gdas_tf.strategies.effort import Effort

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.balance import ClassWeights
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.strategies.controller import Written
    from gdas_tf.training.search_model import SearchModel

METRICS = ("architecture_loss", "architecture_accuracy", "reward", "controller_entropy")


class ENASConfig(Section):
    """The controller of ENAS."""

    units: Whole = Field(100, ge=1, description="units of the controller's LSTM")
    learning_rate: Number = Field(3.5e-4, gt=0, description="learning rate of the controller (Adam)")
    temperature: Number = Field(5.0, gt=0, description="what the controller's logits are divided by")
    tanh_constant: Number = Field(
        2.5, gt=0, description="what the controller's logits are squashed to, by tanh"
    )
    entropy_weight: Number = Field(
        1e-4, ge=0, description="weight of the entropy of a sample's decisions in its reward"
    )
    baseline_decay: Number = Field(
        0.99, ge=0, lt=1, description="decay of the moving average of rewards that a reward is compared with"
    )
    controller_steps: Whole = Field(
        0,
        ge=0,
        description="steps of the controller in a phase after each epoch (the paper: 2000); 0: one after "
        "each step of the weights",
    )
    candidates: Whole = Field(
        10, ge=1, description="samples after the last epoch, of which the best by validation loss is found"
    )
    batches: Batches = 10


class ENAS(ChoosingStrategy):
    """A controller writes genotypes; the weights are trained on them, the controller by REINFORCE.

    Each step trains the weights on a sample of the controller. The controller m(theta) climbs the expected
    reward R, the accuracy of a sample on a batch of D_V and its weighted entropy, by the gradient
    (R - b) d log p(sample) / d theta, where b is the moving average of R. After the last epoch some samples
    are drawn, and the one with the smallest validation loss is found. Until then it is the genotype of the
    most probable decisions.

    Args:
        units, temperature, tanh_constant: Of the `Controller`.
        learning_rate: Adam's.
        entropy_weight: Of the entropy in the reward.
        baseline_decay: Of b.
        controller_steps: Steps of the controller after each epoch; 0 for one after each step of the weights.
        candidates: Samples after the last epoch.
        batches: Of D_V, on which each of them is scored.

    Attributes:
        controller: The `Controller`.
        baseline: The variable b, a scalar.
    """

    section = ENASConfig
    metrics = METRICS
    titles: ClassVar[Mapping[str, str]] = {
        **ChoosingStrategy.titles,
        "reward": "Reward of the controller",
        "baseline": "Reward of the controller",
        "controller_entropy": "Entropy of a sample's decisions (nats)",
    }

    def __init__(
        self,
        units: int = 100,
        learning_rate: float = 3.5e-4,
        temperature: float = 5.0,
        tanh_constant: float = 2.5,
        entropy_weight: float = 1e-4,
        baseline_decay: float = 0.99,
        controller_steps: int = 0,
        candidates: int = 10,
        batches: int = 10,
    ) -> None:
        self.options = {"units": units, "temperature": temperature, "tanh_constant": tanh_constant}
        self.learning_rate, self.entropy_weight = learning_rate, entropy_weight
        self.baseline_decay, self.controller_steps = baseline_decay, controller_steps
        self.count, self.batches = candidates, batches
        if controller_steps:
            self.metrics = ()  # what its own phase measures is in `values`
        self._measured: dict[str, float] = {}

    def build(self, task: Task) -> None:
        from gdas_tf.keras_backend import keras
        from gdas_tf.optimizers.adam import Adam
        from gdas_tf.strategies.controller import Controller

        super().build(task)
        self.controller = Controller(task.space, len(task.cells), **self.options, seed=task.seed)
        with tf.device("CPU:0"):
            self.baseline = keras.Variable(0.0, trainable=False, dtype="float32", name="baseline")
            self.optimizer = Adam(self.learning_rate, epsilon=1e-8)
            self.optimizer.build(self.controller.variables)
        self.variables = [*self.controller.variables, self.baseline]
        self.optimizers = [self.optimizer]
        self._phase_step: Any = None

    @property
    def best(self) -> Genotype:
        """What was chosen, or, before that, the most probable decisions."""
        return self._best or self._genotype(self.controller.sample(tf.zeros(self.controller.noise_shape)))

    @best.setter
    def best(self, genotype: Genotype) -> None:
        self._best = genotype

    _best: Genotype | None = None

    def sample(self, number: tf.Tensor) -> Written:
        """Sample `number`, int64, of the controller as it is now."""
        with tf.device("CPU:0"):
            seed = tf.stack([tf.constant(self.task.seed, tf.int64), tf.cast(number, tf.int64)])
            return self.controller.sample(sampling.gumbel_noise(self.controller.noise_shape, seed))

    @classmethod
    def effort(cls, config: Config) -> Effort:
        own = config.strategy
        return Effort(own.candidates, own.batches * config.search.batch_size)

    def paths(self, step: tf.Tensor) -> Paths:
        return self._paths(self.sample(2 * step))

    def chosen(self) -> Paths:
        if self._best:
            return super().chosen()
        return self._paths(self.controller.sample(tf.zeros(self.controller.noise_shape)))

    def learn(
        self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch
    ) -> Mapping[str, tf.Tensor]:
        if self.controller_steps:
            return {}
        return self.reinforce(search, step, validation, search.balance.of_batches)

    def reinforce(
        self, search: SearchModel, step: tf.Tensor, validation: Batch, class_weights: ClassWeights = None
    ) -> Mapping[str, tf.Tensor]:
        """One step of the controller.

        Args:
            search: The model.
            step: int64, number of the controller's step.
            validation: A batch of D_V.
            class_weights: What an image of each class weighs in loss and reward.

        Returns:
            A number for each of `METRICS`.
        """
        from gdas_tf.distribution import mean_over_replicas

        images, labels = validation
        sources = [variable.value for variable in self.controller.variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            written = self.sample(2 * step + 1)
        outputs = search.supernet(images, *self._paths(written), update="architecture")
        right = hits(labels, outputs)
        measured = (
            cross_entropy(labels, outputs, class_weights),
            tf.reduce_mean(right),
            tf.reduce_mean(weighted(right, labels, class_weights)),
        )
        loss, found, accuracy = mean_over_replicas(measured)
        with tf.device("CPU:0"):
            reward = accuracy + self.entropy_weight * written.entropy
            # As in the authors' code, the average has the new reward in it already.
            baseline = self.baseline + (1 - self.baseline_decay) * (reward - self.baseline)
            gradients = tape.gradient(written.surprise, sources, output_gradients=reward - baseline)
            self.baseline.assign(baseline)
            self.optimizer.apply(gradients, self.controller.variables)
        values = (loss, found, reward, written.entropy)
        return dict(zip(METRICS, values, strict=True))

    def end_epoch(
        self, search: SearchModel, epoch: int, epochs: int, validation: Callable[[], Iterable[Batch]]
    ) -> None:
        if self.controller_steps:
            self._phase(search, epoch, validation)
        if epoch == epochs - 1:
            self.choose(search, self._candidates(), validation, self.batches, epoch)

    def _phase(self, search: SearchModel, epoch: int, validation: Callable[[], Iterable[Batch]]) -> None:
        """The controller's steps of an epoch, on the batches of D_V in turn."""
        if self._phase_step is None:  # traced once

            @tf.function(autograph=False)
            def phase_step(images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> Any:
                from gdas_tf.runtime import after_reference_variable

                batch = (after_reference_variable(images), labels)
                return self.reinforce(search, step, batch, search.balance.of_images)

            self._phase_step = phase_step
        sums = dict.fromkeys(METRICS, 0.0)
        batches = itertools.chain.from_iterable(validation() for _ in itertools.count())
        for number, (images, labels) in enumerate(itertools.islice(batches, self.controller_steps)):
            step = tf.constant(epoch * self.controller_steps + number, tf.int64)
            for name, value in self._phase_step(images, labels, step).items():
                sums[name] += float(value)
        self._measured = {name: value / self.controller_steps for name, value in sums.items()}

    def undivided(self) -> str | None:
        if self.controller_steps:
            return "by enas.controller_steps the controller has a phase of its own, on one device"
        return None

    def _candidates(self) -> list[Genotype]:
        """Different samples of the controller; fewer than wanted where it hardly varies any more."""
        found: dict[Genotype, None] = {}
        for number in range(20 * self.count):
            # Those of the steps have numbers from 0 on.
            found.setdefault(self._genotype(self.sample(tf.constant(-1 - number, tf.int64))))
            if len(found) == self.count:
                break
        return list(found)

    def values(self) -> Mapping[str, float]:
        return {**self._measured, "baseline": float(self.baseline.numpy()), **super().values()}

    def _paths(self, written: Written) -> Paths:
        with tf.device("CPU:0"):
            return both([candidates.sampled(row, self.task.space) for row in written.rows])

    def _genotype(self, written: Written) -> Genotype:
        rows = dict(zip(self.task.cells, (row.numpy() for row in written.rows), strict=True))
        return candidates.genotype_of(rows, self.task.space)


STRATEGIES.register("enas", ENAS)
