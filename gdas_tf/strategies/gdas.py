"""GDAS: one operation sampled for each edge, learned from by the gradient of its gate.

Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gdas_tf.errors import UsageError
from gdas_tf.numerics.lazy import tf
from gdas_tf.numerics.losses import cross_entropy, hits
from gdas_tf.strategies import sampling
from gdas_tf.strategies.base import STRATEGIES, Batch, Paths, Strategy, Task

if TYPE_CHECKING:
    import numpy as np

    from gdas_tf.config.config import Config
    from gdas_tf.training.search_model import SearchModel

SamplePer = Literal["kind", "cell"]


class GDAS(Strategy):
    """The logits of all operations on all edges, of which one operation an edge is sampled.

    With a sample the weights descend the loss on D_T; then, with a new sample, the logits descend the loss on
    D_V by Adam. Sample number s depends on the seed and on s alone.

    Args:
        sampler: "gumbel" or "direct".
        sample_per: What runs one sample in a pass: "kind", all normal cells and all reduction cells (the
            paper, AutoDL-2020, the seed study); "cell", every cell its own (the authors' code of 2019).
        temperature_start, temperature_end: tau in the first and in the last epoch; it falls linearly.
        learning_rate, beta_1, beta_2: Adam's, for the logits.
        weight_decay: Factor of the logits that is added to their gradient.

    Attributes:
        logits: Of each kind of cell that is searched the variable, float32 [E, K].
        temperature: The variable tau, a scalar.

    Raises:
        UsageError: There is no such `sampler` or `sample_per`.
    """

    metrics = ("architecture_loss", "architecture_accuracy")

    def __init__(
        self,
        sampler: sampling.Sampler = "gumbel",
        sample_per: SamplePer = "kind",
        temperature_start: float = 10.0,
        temperature_end: float = 0.1,
        learning_rate: float = 3e-4,
        beta_1: float = 0.5,
        beta_2: float = 0.999,
        weight_decay: float = 1e-3,
    ) -> None:
        for name, value, accepted in (
            ("sampler", sampler, ("gumbel", "direct")),
            ("sample_per", sample_per, ("kind", "cell")),
        ):
            if value not in accepted:
                raise UsageError(f"{name} is {value!r}; accepted are {' and '.join(map(repr, accepted))}")
        self.sampler, self.sample_per, self.weight_decay = sampler, sample_per, weight_decay
        self.temperatures = temperature_start, temperature_end
        self.adam = {"learning_rate": learning_rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": 1e-8}

    @classmethod
    def from_config(cls, config: Config) -> GDAS:
        """GDAS by the fields of the section `search`."""
        settings = config.search
        return cls(
            settings.sampler,
            settings.sample_per,
            settings.temperature_start,
            settings.temperature_end,
            settings.architecture_learning_rate,
            settings.architecture_beta_1,
            settings.architecture_beta_2,
            settings.architecture_weight_decay,
        )

    def build(self, task: Task) -> None:
        import numpy as np

        from gdas_tf.keras_backend import keras
        from gdas_tf.optimizers.loss_scale import loss_scaled

        self.task = task
        shape = (len(task.space.edges), len(task.space.operations))
        generator = np.random.default_rng([task.seed, 0x61])
        # The architecture is small and decides what the host dispatches: it lives there, also with a GPU.
        with tf.device("CPU:0"):
            self.logits = {
                kind: keras.Variable(
                    np.float32(1e-3 * generator.standard_normal(shape)), name=f"{kind}_logits"
                )
                for kind in task.cells
            }
            self.temperature = keras.Variable(np.float32(1.0), trainable=False, name="temperature")
            self.optimizer = loss_scaled(keras.optimizers.Adam(**self.adam), task.compute_dtype)
            self.optimizer.build(list(self.logits.values()))
        self.variables = [*self.logits.values(), self.temperature]
        self.optimizers = [self.optimizer]

    def sample(self, step: tf.Tensor, number: int) -> Paths:
        """A sample for each kind of cell; `number`, 0 or 1, tells the two samples of one step apart."""
        with tf.device("CPU:0"):
            samples = []
            for position, (kind, logits) in enumerate(self.logits.items()):
                seed = tf.stack([tf.constant(self.task.seed, tf.int64), step * 4 + 2 * number + position])
                arguments = (logits.value, self.temperature.value, seed, self.sampler)
                if self.sample_per == "kind":
                    samples.append(sampling.sample(*arguments))
                else:
                    samples.append(sampling.sample_each(*arguments, count=self.task.cells[kind]))
        return _both(samples)

    def paths(self, step: tf.Tensor) -> Paths:
        return self.sample(step, 0)

    def chosen(self) -> Paths:
        """The most probable operation on each edge."""
        return _both([sampling.most_probable(logits.value) for logits in self.logits.values()])

    def learn(
        self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch
    ) -> Mapping[str, tf.Tensor]:
        images, labels = validation
        variables = list(self.logits.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            outputs = search.supernet(images, *self.sample(step, 1), update="architecture")
            loss = cross_entropy(labels, outputs)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        with tf.device("CPU:0"):
            # The optimizer divides what it is given by the scale of the loss.
            decay = self.optimizer.scale_loss(self.weight_decay)
            decayed = [g + decay * variable for g, variable in zip(gradients, variables, strict=True)]
            self.optimizer.apply(decayed, variables)
        return {"architecture_loss": loss, "architecture_accuracy": hits(labels, outputs)}

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.temperature.assign(sampling.temperature(epoch, epochs, *self.temperatures))

    def values(self) -> Mapping[str, float]:
        entropies = {
            f"{kind}_entropy": float(sampling.entropy(logits.value)) for kind, logits in self.logits.items()
        }
        return {"temperature": float(self.temperature), **entropies}

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The logits: `normal` [E, K], and `reduction` unless that cell is fixed."""
        return {kind: logits.numpy() for kind, logits in self.logits.items()}


def _both(paths: Sequence[Any]) -> Paths:
    return paths[0], paths[1] if len(paths) > 1 else None


STRATEGIES.register("gdas", GDAS)
