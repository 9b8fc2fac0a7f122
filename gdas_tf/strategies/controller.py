"""The controller of ENAS: an LSTM that writes a genotype down, decision by decision.

Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018 (arXiv 1802.03268),
section 2.4, in the form of the authors' micro search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gdas_tf.keras_backend import keras
from gdas_tf.spaces.base import SearchSpace


class Written(NamedTuple):
    """A genotype that a controller has written.

    rows: int32 [E] of each kind of cell, the operation of each edge, `SearchSpace.off` where there is none.
    surprise: float32 scalar, -log of the probability of all decisions together, in nats.
    entropy: float32 scalar, the sum of the entropies of all decisions, in nats; no gradient.
    """

    rows: list[tf.Tensor]
    surprise: tf.Tensor
    entropy: tf.Tensor


class Controller:
    """An LSTM of one layer that samples inputs and operations of all nodes, of the normal cell and then of
    the reduction cell.

    Of each node it first chooses the inputs: from the LSTM's output h and what it knows of each earlier state
    j, a_j, the logits v' tanh(W1 a_j + W2 h). An input is chosen once: the next choice leaves it out. A node
    that takes all that there are has nothing to choose. Then it chooses an operation for each of them, from
    logits S h. All logits l become c tanh(l / T).

    Args:
        space: The search space.
        kinds: How many kinds of cells are searched, 1 or 2.
        units: Of the LSTM.
        temperature: T.
        tanh_constant: c.
        seed: Of the initial weights, uniform in [-0.1, 0.1].
    """

    def __init__(
        self,
        space: SearchSpace,
        kinds: int,
        units: int = 100,
        temperature: float = 5.0,
        tanh_constant: float = 2.5,
        seed: int = 0,
    ) -> None:
        self.space, self.kinds, self.units = space, kinds, units
        self.temperature, self.tanh_constant = temperature, tanh_constant
        self.operations = space.candidates()
        generator = np.random.default_rng([seed, 0x65])
        shapes = {
            "lstm": (2 * units, 4 * units),
            "start": (1, units),
            "operation_embedding": (len(self.operations), units),
            "operation_logits": (units, len(self.operations)),
        }
        self.attends = any(self._picks(node)[1] for node in range(space.nodes))
        if self.attends:
            shapes |= {
                "attention_state": (units, units),
                "attention_output": (units, units),
                "attention": (units, 1),
            }
        with tf.device("CPU:0"):  # what it decides is dispatched by the host
            self.weights = {
                name: keras.Variable(
                    np.float32(generator.uniform(-0.1, 0.1, shape)), name=f"controller_{name}"
                )
                for name, shape in shapes.items()
            }
        self._sample = tf.function(self._write, autograph=False)

    @property
    def variables(self) -> list[Any]:
        """The weights."""
        return list(self.weights.values())

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Decisions of a genotype, and the most that one of them has to choose from."""
        picks = [self._picks(node) for node in range(self.space.nodes)]
        decisions = sum(count + (count if free else 0) for count, free in picks)
        return self.kinds * decisions, max(self.space.most_inputs, len(self.operations))

    def sample(self, noise: tf.Tensor) -> Written:
        """A genotype.

        Args:
            noise: float32, of `noise_shape`: Gumbel noise for a sample (`sampling.gumbel_noise`), zeros for
                the most probable decision each time.
        """
        with tf.device("CPU:0"):
            return self._sample(noise)

    def _picks(self, node: int) -> tuple[int, bool]:
        """The inputs that a node takes, and whether it may choose which."""
        possible = self.space.inputs + node
        count = min(self.space.inputs_per_node, possible)
        return count, count < possible

    def _write(self, noise: tf.Tensor) -> Written:
        return _Writing(self, noise).run()


class _Writing:
    """One genotype being written."""

    def __init__(self, controller: Controller, noise: tf.Tensor) -> None:
        self.controller, self.space = controller, controller.space
        self.noise = iter(tf.unstack(noise))
        self.weights = {
            name: _Reused(tf.convert_to_tensor(weight.value)) for name, weight in controller.weights.items()
        }
        self.c = tf.zeros([1, controller.units])
        self.h = _Reused(self.c)
        self.surprises: list[tf.Tensor] = []
        self.entropies: list[tf.Tensor] = []

    def run(self) -> Written:
        rows = [self._cell() for _ in range(self.controller.kinds)]
        entropy = tf.stop_gradient(tf.reduce_sum(tf.stack(self.entropies)))
        return Written(rows, tf.reduce_sum(tf.stack(self.surprises)), entropy)

    def _cell(self) -> tf.Tensor:
        """int32 [E]."""
        # Of the states so far: what the LSTM is given when one is chosen, and what the attention knows of it.
        # The cell's inputs are told apart by the latter alone.
        states: list[_Reused] = []
        keys: list[_Reused] = []
        for _ in range(self.space.inputs):
            self._step(self.weights["start"].use())
            states.append(_Reused(tf.zeros([1, self.controller.units])))
            self._remember(keys)
        row = []
        for node in range(self.space.nodes):
            row.append(self._node(node, states, keys))
            states.append(_Reused(self._output()))
            self._remember(keys)
        return tf.concat(row, 0)

    def _remember(self, keys: list[_Reused]) -> None:
        """Add W1 a of the state that the LSTM has come to, if there is anything to choose by it."""
        if self.controller.attends:
            keys.append(_Reused(self._output() @ self.weights["attention_state"].use()))

    def _node(self, node: int, states: Sequence[_Reused], keys: Sequence[_Reused]) -> tf.Tensor:
        """int32 [inputs that the node may have]."""
        count, free = self.controller._picks(node)
        possible = self.space.inputs + node
        taken = tf.zeros([possible])
        x = self.weights["start"].use()
        chosen = []
        for number in range(count):
            self._step(x)
            if free:
                one = self._input(keys, taken)
                x = one[None] @ tf.concat([state.use() for state in states], 0)
            else:
                one = tf.one_hot(number, possible)
                x = states[number].use()
            taken += one
            chosen.append(one)
        row = tf.fill([possible], self.space.off)
        accepted = tf.constant(self.controller.operations, tf.int32)
        for one in chosen:
            self._step(x)
            logits = self._squashed(self._output() @ self.weights["operation_logits"].use())
            position = self._decide(logits)
            x = tf.one_hot(position, len(self.controller.operations))[None]
            x = x @ self.weights["operation_embedding"].use()
            row += tf.cast(one, tf.int32) * (tf.gather(accepted, position) - self.space.off)
        self._step(x)
        return row

    def _input(self, keys: Sequence[_Reused], taken: tf.Tensor) -> tf.Tensor:
        """float32 [inputs]: 1 at the one that is chosen out of those that are not taken."""
        query = self._output() @ self.weights["attention_output"].use()
        known = tf.concat([key.use() for key in keys], 0)
        scores = tf.tanh(known + query) @ self.weights["attention"].use()
        logits = self._squashed(tf.reshape(scores, [1, -1]))
        position = self._decide(tf.where(taken[None] > 0, tf.constant(_NEVER), logits))
        return tf.one_hot(position, len(keys))

    def _squashed(self, logits: tf.Tensor) -> tf.Tensor:
        return self.controller.tanh_constant * tf.tanh(logits / self.controller.temperature)

    def _decide(self, logits: tf.Tensor) -> tf.Tensor:
        """int32 scalar: the largest of the logits [1, n] with the noise of the decision."""
        noise = next(self.noise)[: logits.shape[-1]]
        position = tf.argmax(tf.stop_gradient(logits[0]) + noise, output_type=tf.int32)
        logs = tf.nn.log_softmax(logits)[0]
        self.surprises.append(-tf.reduce_sum(logs * tf.one_hot(position, logits.shape[-1])))
        self.entropies.append(-tf.reduce_sum(tf.exp(logs) * logs))
        return position

    def _step(self, x: tf.Tensor) -> None:
        """One step of the LSTM."""
        gates = tf.concat([x, self.h.use()], 1) @ self.weights["lstm"].use()
        i, f, o, g = tf.split(gates, 4, 1)
        self.c = tf.sigmoid(i) * tf.tanh(g) + tf.sigmoid(f) * self.c
        self.h = _Reused(tf.sigmoid(o) * tf.tanh(self.c))

    def _output(self) -> tf.Tensor:
        """h, for one use."""
        return self.h.use()


_NEVER = -1e9
"""The logit of what cannot be chosen; finite, so that 0 log 0 is 0."""


class _Reused:
    """A tensor that is used several times, whose gradient is the same to the last bit in every run.

    TensorFlow adds up the gradients of all uses at once by AddN, which begins with whichever of them is free
    to be overwritten by then: a matter of timing (`gdas_tf.supernet.layers.add`). Here they are added two by
    two, for which the order does not matter.
    """

    def __init__(self, value: tf.Tensor) -> None:
        self._value = value

    def use(self) -> tf.Tensor:
        """The tensor, for one use."""
        value, self._value = _twice(self._value)
        return value


@tf.custom_gradient
def _twice(value: tf.Tensor) -> Any:
    return (tf.identity(value), tf.identity(value)), lambda first, second: first + second
