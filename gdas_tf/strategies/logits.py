"""What strategies share that learn a logit for each operation on each edge: GDAS and DARTS."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gdas_tf.errors import UsageError
from gdas_tf.numerics.lazy import tf
from gdas_tf.strategies import sampling
from gdas_tf.strategies.base import Batch, Strategy, Task

if TYPE_CHECKING:
    import numpy as np

    from gdas_tf.config.config import Config
    from gdas_tf.training.search_model import SearchModel

None_ = Literal["sampled", "excluded"]

EXCLUDED = -1e9
"""The logit of an operation that takes no part in the softmax: its probability is zero."""


class LogitsStrategy(Strategy):
    """The logits of all operations on all edges, which descend the loss on D_V by Adam.

    Args:
        learning_rate, beta_1, beta_2: Adam's, for the logits.
        weight_decay: Factor of the logits that is added to their gradient.
        none: "sampled", `none` is an operation like the others; "excluded", it has no part in the softmax, in
            which its logit is taken as `EXCLUDED`, and is never derived.
        warm_up: Epochs in which only the weights are trained, and the logits stay.

    Attributes:
        logits: Of each kind of cell that is searched the variable, float32 [E, K].

    Raises:
        UsageError: There is no such `none`.
    """

    metrics = ("architecture_loss", "architecture_accuracy")
    reads = (
        "architecture_learning_rate",
        "architecture_beta_1",
        "architecture_beta_2",
        "architecture_weight_decay",
        "none",
        "warm_up",
    )

    def __init__(
        self,
        learning_rate: float = 3e-4,
        beta_1: float = 0.5,
        beta_2: float = 0.999,
        weight_decay: float = 1e-3,
        none: None_ = "sampled",
        warm_up: int = 0,
    ) -> None:
        accepted_as("none", none, ("sampled", "excluded"))
        self.weight_decay, self.none, self.warm_up = weight_decay, none, warm_up
        self.adam = {"learning_rate": learning_rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": 1e-8}
        self.warming = False

    @staticmethod
    def shared_options(config: Config) -> dict[str, Any]:
        """The arguments of this class, by the section `search`."""
        settings = config.search
        return {
            "learning_rate": settings.architecture_learning_rate,
            "beta_1": settings.architecture_beta_1,
            "beta_2": settings.architecture_beta_2,
            "weight_decay": settings.architecture_weight_decay,
            "none": settings.none,
            "warm_up": settings.warm_up,
        }

    @classmethod
    def check_config(cls, config: Config) -> None:
        warm_up, epochs = config.search.warm_up, config.search.epochs
        if warm_up >= epochs:
            raise UsageError(
                f"search.warm_up: found {warm_up}; it must be below search.epochs, {epochs}, or the "
                "architecture never learns"
            )

    def build(self, task: Task) -> None:
        import numpy as np

        from gdas_tf.keras_backend import keras
        from gdas_tf.optimizers.adam import Adam
        from gdas_tf.optimizers.loss_scale import loss_scaled

        self.task = task
        shape = (len(task.space.edges), len(task.space.operations))
        generator = np.random.default_rng([task.seed, 0x61])
        columns = np.array([name == "none" for name in task.space.operations])
        self._excluded = columns & (self.none == "excluded")
        # The architecture is small and decides what the host dispatches: it lives there, also with a GPU.
        with tf.device("CPU:0"):
            self.logits = {
                kind: keras.Variable(
                    np.float32(1e-3 * generator.standard_normal(shape)), name=f"{kind}_logits"
                )
                for kind in task.cells
            }
            self.build_more(generator)
            self.optimizer = loss_scaled(Adam(**self.adam), task.compute_dtype)
            self.optimizer.build(self.architecture)
            self._learning = keras.Variable(True, trainable=False, dtype="bool", name="learning")
        self.variables = list(self.logits.values())
        self.optimizers = [self.optimizer]

    def build_more(self, generator: np.random.Generator) -> None:  # noqa: B027 (most need none)
        """Make what else is learned or needed; on the host."""

    @property
    def architecture(self) -> list[Any]:
        """The variables that are learned."""
        return list(self.logits.values())

    def scores(self, kind: str) -> tf.Tensor:
        """The logits of a kind of cell whose softmax counts: float32 [E, K]."""
        logits = self.logits[kind].value
        return tf.where(self._excluded, EXCLUDED, logits) if self._excluded.any() else logits

    @abc.abstractmethod
    def slopes(
        self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch
    ) -> tuple[Sequence[tf.Tensor], tf.Tensor, tf.Tensor]:
        """What a step of the architecture goes by; arguments as of `learn`.

        Returns:
            Gradients of the scaled loss, in the order of `architecture`; loss, a scalar, and float32 [B]
            hits, on D_V.
        """

    def learn(
        self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch
    ) -> Mapping[str, tf.Tensor]:
        from gdas_tf.distribution import mean_over_replicas

        def nothing() -> tuple[Sequence[tf.Tensor], tf.Tensor, tf.Tensor]:
            gradients = [tf.zeros(variable.shape) for variable in self.architecture]
            return gradients, tf.zeros([]), tf.zeros_like(validation[1], tf.float32)

        def slopes() -> tuple[Sequence[tf.Tensor], tf.Tensor, tf.Tensor]:
            return self.slopes(search, step, training, validation)

        if self.warm_up:
            gradients, loss, found = tf.cond(self._learning.value, slopes, nothing)
            means = mean_over_replicas(gradients)  # in no branch
            tf.cond(self._learning.value, lambda: self.apply(means), lambda: None)
        else:
            gradients, loss, found = slopes()
            self.apply(mean_over_replicas(gradients))
        return {"architecture_loss": loss, "architecture_accuracy": found}

    def undivided(self) -> str | None:
        return None

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """A step of Adam; the gradients are those of the scaled loss, in the order of `architecture`."""
        variables = self.architecture
        with tf.device("CPU:0"):
            # The optimizer divides what it is given by the scale of the loss.
            decay = self.optimizer.scale_loss(self.weight_decay)
            decayed = [g + decay * variable for g, variable in zip(gradients, variables, strict=True)]
            if self._excluded.any():
                for position in range(len(self.logits)):
                    decayed[position] = tf.where(self._excluded, 0.0, decayed[position])
            self.optimizer.apply(decayed, variables)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.warming = epoch < self.warm_up
        self._learning.assign(not self.warming)

    def values(self) -> Mapping[str, float | None]:
        """The entropy of each kind of cell; with a warm-up, whether this epoch belonged to it: nothing was
        measured on D_V then."""
        found: dict[str, float | None] = {
            f"{kind}_entropy": float(sampling.entropy(self.scores(kind))) for kind in self.logits
        }
        if self.warm_up:
            found["warm_up"] = float(self.warming)
        if self.warming:
            found |= dict.fromkeys(self.metrics)
        return found

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The logits: `normal` [E, K], and `reduction` unless that cell is fixed."""
        return {kind: self.scores(kind).numpy() for kind in self.logits}


def accepted_as(name: str, value: object, accepted: Sequence[object]) -> None:
    """Makes sure that an argument is one of those that are accepted.

    Raises:
        UsageError: it is another one.
    """
    if value not in accepted:
        raise UsageError(f"{name} is {value!r}; accepted are {' and '.join(map(repr, accepted))}")
