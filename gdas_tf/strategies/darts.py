"""DARTS: all operations of every edge at once, weighted by the softmax of their logits.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (arXiv 1806.09055), and the
authors' `cnn/architect.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from gdas_tf.config.fields import Section
from gdas_tf.errors import UsageError
from gdas_tf.numerics.lazy import tf
from gdas_tf.numerics.losses import cross_entropy, hits
from gdas_tf.strategies.base import STRATEGIES, Batch, Paths, both
from gdas_tf.strategies.logits import LogitsStrategy, None_, accepted_as
from gdas_tf.supernet.paths import Mixture

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.training.search_model import SearchModel

Order = Literal["first", "second"]

STEP = 0.01
"""Length of the steps of the finite difference, epsilon = STEP / |gradient| (section 2.3, footnote 2)."""


class DARTSConfig(Section):
    """What DARTS learns the architecture by."""

    order: Order = Field(
        "first",
        description="gradient of the architecture: at the weights as they are, or through one step of them, "
        "which takes four passes instead of one",
    )


class DARTS(LogitsStrategy):
    """The mixture of all operations by the softmax of the logits, which descend the loss on D_V by Adam.

    By the first order the gradient of the logits a is taken at the weights w as they are. By the second it is
    that of L_V(w', a), where w' is what one step of SGD with the learning rate r makes of the weights on D_T:

        w' = w - r (m v + dL_T(w, a)/dw + d w),
        dL_V(w', a)/da - r (dL_T(w+, a)/da - dL_T(w-, a)/da) / (2 e),
        w+- = w +- e g,  g = dL_V(w', a)/dw',  e = 0.01 / |g|

    with momentum m, velocity v and weight decay d of the weights' optimizer: equations 6 to 8 of the paper,
    and `architect.py`, whose step is without Nesterov's rule and without clipping.

    Args:
        order: "first" or "second".
        learning_rate, beta_1, beta_2, weight_decay, none, warm_up: As of `LogitsStrategy`.

    Attributes:
        logits: Of each kind of cell that is searched the variable, float32 [E, K].

    Raises:
        UsageError: There is no such `order` or `none`.
    """

    section = DARTSConfig

    def __init__(
        self,
        order: Order = "first",
        learning_rate: float = 3e-4,
        beta_1: float = 0.5,
        beta_2: float = 0.999,
        weight_decay: float = 1e-3,
        none: None_ = "sampled",
        warm_up: int = 0,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, weight_decay, none, warm_up)
        accepted_as("order", order, ("first", "second"))
        self.order = order

    @classmethod
    def from_config(cls, config: Config) -> DARTS:
        """DARTS by the fields of the sections `search` and `darts`."""
        return cls(config.strategy.order, **cls.shared_options(config))

    def paths(self, step: tf.Tensor) -> Paths:
        """All operations on all edges; the step does not count."""
        return both([Mixture(tf.nn.softmax(self.scores(kind))) for kind in self.logits])

    def slopes(
        self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch
    ) -> tuple[Sequence[tf.Tensor], tf.Tensor, tf.Tensor]:
        if self.order == "first":
            passed = self._pass(search, step, validation)
        else:
            passed = self._second_order(search, step, training, validation)
        scale = self.optimizer.scale_loss(1.0)
        return [gradient * scale for gradient in passed.architecture], passed.loss, passed.hits

    def undivided(self) -> str | None:
        if self.order == "second":
            return "by darts.order second it looks through a step that each replica would take alone"
        return None

    def _second_order(self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch) -> Pass:
        optimizer = getattr(search.optimizer, "inner_optimizer", search.optimizer)
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        weights = [tf.convert_to_tensor(one.value) for one in search.supernet.trainable_variables]
        slopes = self._pass(search, step, training, weights).weights
        stepped = [
            w - rate * (optimizer.momentum * tf.convert_to_tensor(v.value) + slope + optimizer.decay * w)
            for w, v, slope in zip(weights, _velocities(optimizer), slopes, strict=True)
        ]
        passed = self._pass(search, step, validation, stepped)
        length = STEP / tf.linalg.global_norm(passed.weights)
        sides, before = [], passed.architecture
        for sign in (1.0, -1.0):
            moved = [w + sign * length * g for w, g in zip(weights, passed.weights, strict=True)]
            with tf.control_dependencies(before):  # one after the other, for the memory of one
                images = tf.identity(training[0])
            before = self._pass(search, step, (images, training[1]), moved).architecture
            sides.append(before)
        implicit = [(above - below) / (2.0 * length) for above, below in zip(*sides, strict=True)]
        total = [one - rate * other for one, other in zip(passed.architecture, implicit, strict=True)]
        return passed._replace(architecture=total)

    def _pass(
        self,
        search: SearchModel,
        step: tf.Tensor,
        batch: Batch,
        weights: Sequence[tf.Tensor] | None = None,
    ) -> Pass:
        """The loss of a batch, and its gradients.

        Args:
            search, step: As of `learn`.
            batch: The images, and their labels.
            weights: Weights to take in place of the supernet's, by which is differentiated, too; None for the
                supernet's own, and a gradient of the architecture alone.
        """
        from gdas_tf.keras_backend import keras

        images, labels = batch
        logits = [variable.value for variable in self.architecture]
        taken = list(zip(search.supernet.trainable_variables, weights or (), strict=False))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*logits, *(weights or ())])
            paths = self.paths(step)
            # Nothing is assigned: inside, the variables have these values, and statistics stay.
            with keras.StatelessScope(state_mapping=taken):
                outputs = search.supernet(images, *paths, update="architecture")
            loss = cross_entropy(labels, outputs, search.balance.of_batches)
            scaled = self.optimizer.scale_loss(loss)
        found = tape.gradient(scaled, {"architecture": logits, "weights": list(weights or ())})
        scale = self.optimizer.scale_loss(1.0)
        unscaled = {name: [gradient / scale for gradient in values] for name, values in found.items()}
        return Pass(loss, hits(labels, outputs), **unscaled)


class Pass(NamedTuple):
    """A loss, a scalar; the hits, float32 [B]; and the gradients of the logits and of the weights."""

    loss: tf.Tensor
    hits: tf.Tensor
    architecture: list[tf.Tensor]
    weights: list[tf.Tensor]


def _velocities(optimizer: Any) -> Sequence[Any]:
    found = getattr(optimizer, "velocities", None)
    if found is None:
        raise UsageError(
            f"weight optimizer: found {type(optimizer).__name__}, whose step the second order of DARTS does "
            "not know; accepted is gdas_tf.optimizers.torch_sgd.SGD"
        )
    return found


STRATEGIES.register("darts", DARTS)
