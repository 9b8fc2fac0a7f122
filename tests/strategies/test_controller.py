"""The controller of ENAS: what it writes, how likely, and the gradient of that."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.spaces.base import SearchSpace
from gdas_tf.strategies import candidates, sampling
from gdas_tf.strategies.controller import Controller

DARTS = SearchSpace(("none", "skip_connect", "conv_1x1", "conv_3x3"), nodes=3)
ALL = SearchSpace(
    ("none", "skip_connect", "conv_3x3"),
    3,
    inputs=1,
    keep="all",
    output="last",
    reduction=False,
    with_none=True,
)
SPACES = {"darts": (DARTS, 2), "fixed reduction": (DARTS, 1), "all edges": (ALL, 1)}

every_space = pytest.mark.parametrize(("space", "kinds"), SPACES.values(), ids=SPACES)


def _noise(controller: Controller, seed: int) -> tf.Tensor:
    return sampling.gumbel_noise(controller.noise_shape, tf.constant([seed, 1], tf.int64))


def _lively(controller: Controller, factor: float = 8.0) -> None:
    """Weights whose decisions are not all alike."""
    for weight in controller.variables:
        weight.assign(factor * weight.value)


class _Plain:
    """The same computation of the decisions that are given, in float64 one step after the other."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.weights = {name: tf.cast(w.value, tf.float64) for name, w in controller.weights.items()}
        self.logs: list[tf.Tensor] = []

    def step(self, x: tf.Tensor) -> None:
        gates = tf.linalg.matvec(self.weights["lstm"], tf.concat([x, self.h], 0), transpose_a=True)
        i, f, o, g = tf.split(gates, 4)
        self.c = tf.sigmoid(f) * self.c + tf.sigmoid(i) * tf.tanh(g)
        self.h = tf.sigmoid(o) * tf.tanh(self.c)

    def squashed(self, logits: tf.Tensor) -> tf.Tensor:
        return self.controller.tanh_constant * tf.tanh(logits / self.controller.temperature)

    def surprise(self, cells: list[list[tuple[list[int], list[int]]]]) -> tf.Tensor:
        """cells: of each node the inputs in the order of their choice, and the positions of operations."""
        w, space = self.weights, self.controller.space
        self.c = self.h = tf.zeros([self.controller.units], tf.float64)
        for cell in cells:
            states, outputs = [], []
            for _ in range(space.inputs):
                self.step(w["start"][0])
                states.append(tf.zeros_like(self.h))
                outputs.append(self.h)
            for node, (inputs, operations) in enumerate(cell):
                x = w["start"][0]
                left = list(range(space.inputs + node))
                for chosen in inputs:
                    self.step(x)
                    if len(inputs) < space.inputs + node:
                        scores = []
                        for state in left:
                            key = tf.linalg.matvec(w["attention_state"], outputs[state], transpose_a=True)
                            query = tf.linalg.matvec(w["attention_output"], self.h, transpose_a=True)
                            scores.append(tf.reduce_sum(w["attention"][:, 0] * tf.tanh(key + query)))
                        logits = self.squashed(tf.stack(scores))
                        self.logs.append(tf.nn.log_softmax(logits)[left.index(chosen)])
                        left.remove(chosen)
                    x = states[chosen]
                for operation in operations:
                    self.step(x)
                    logits = self.squashed(tf.linalg.matvec(w["operation_logits"], self.h, transpose_a=True))
                    self.logs.append(tf.nn.log_softmax(logits)[operation])
                    x = w["operation_embedding"][operation]
                self.step(x)
                states.append(self.h)
                outputs.append(self.h)
        return -tf.add_n(self.logs)


def _forced(controller: Controller, seed: int) -> tuple[np.ndarray, list]:
    """Noise that forces decisions drawn here, and these decisions as `_Plain` takes them."""
    generator, space = np.random.default_rng(seed), controller.space
    noise, cells, row = np.zeros(controller.noise_shape, np.float32), [], 0
    for _ in range(controller.kinds):
        cells.append([])
        for node in range(space.nodes):
            possible = space.inputs + node
            count = min(space.inputs_per_node, possible)
            inputs = list(range(count))
            if count < possible:
                inputs = [int(i) for i in generator.permutation(possible)[:count]]
                for chosen in inputs:
                    noise[row, chosen] = 1e4
                    row += 1
            operations = [int(o) for o in generator.integers(len(controller.operations), size=count)]
            for operation in operations:
                noise[row, operation] = 1e4
                row += 1
            cells[-1].append((inputs, operations))
    assert row == len(noise)
    return noise, cells


@every_space
def test_probability_and_gradient_are_those_of_a_plain_computation(space: SearchSpace, kinds: int) -> None:
    controller = Controller(space, kinds, units=7, seed=3)
    _lively(controller)
    noise, cells = _forced(controller, 5)
    sources = [weight.value for weight in controller.variables]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        written = controller.sample(tf.constant(noise))
    gradients = tape.gradient(written.surprise, sources, unconnected_gradients="zero")
    with tf.GradientTape() as tape:
        tape.watch(sources)
        expected = _Plain(controller).surprise(cells)
    wanted = tape.gradient(expected, sources, unconnected_gradients="zero")
    assert float(written.surprise) == pytest.approx(float(expected), rel=1e-5)
    # Where all inputs are taken there is no attention.
    assert ("attention" in controller.weights) == (space.keep == "best")
    for name, found, one in zip(controller.weights, gradients, wanted, strict=True):
        np.testing.assert_allclose(found, one, atol=2e-5 * max(1.0, np.abs(one).max()), err_msg=name)
        assert np.abs(one).max() > 1e-4
    # And the decisions are those that the noise forced.
    for kind, cell in enumerate(cells):
        row = [space.off] * space.edge_count
        for node, (inputs, operations) in enumerate(cell):
            for source, operation in zip(inputs, operations, strict=True):
                row[space.edges.index((node, source))] = controller.operations[operation]
        assert written.rows[kind].numpy().tolist() == row


@every_space
def test_what_is_written_is_a_genotype(space: SearchSpace, kinds: int) -> None:
    controller = Controller(space, kinds, units=5)
    seen = set()
    for seed in range(20):
        written = controller.sample(_noise(controller, seed))
        rows = dict(zip(candidates.KINDS, (row.numpy() for row in written.rows), strict=False))
        genotype = candidates.genotype_of(rows, space)
        genotype.check_fits(space)
        seen.add(genotype)
    assert len(seen) > 15


@pytest.mark.slow
def test_samples_are_as_frequent_as_they_are_probable() -> None:
    space = SearchSpace(("none", "skip_connect", "conv_1x1"), nodes=2, inputs_per_node=1)
    controller = Controller(space, 1, units=6, seed=1)
    _lively(controller, 20.0)
    counts: collections.Counter = collections.Counter()
    surprises: dict[tuple, float] = {}
    entropies = []
    draws = 4000
    for seed in range(draws):
        written = controller.sample(_noise(controller, seed))
        row = tuple(written.rows[0].numpy())
        counts[row] += 1
        surprises[row] = float(written.surprise)
        entropies.append(float(written.entropy))
    # One input of 2 and one of 3, two operations each.
    assert len(counts) == 24
    assert sum(math.exp(-surprise) for surprise in surprises.values()) == pytest.approx(1.0, abs=1e-5)
    probabilities = [math.exp(-surprise) for surprise in surprises.values()]
    assert max(probabilities) > 1.5 * min(probabilities)
    chi_squared = sum(
        (counts[row] - draws * math.exp(-surprise)) ** 2 / (draws * math.exp(-surprise))
        for row, surprise in surprises.items()
    )
    assert chi_squared < 55  # 23 degrees of freedom: beyond it lies a part of 2e-4
    whole = -sum(p * math.log(p) for p in probabilities)
    assert np.mean(entropies) == pytest.approx(whole, rel=0.01)


def test_without_noise_each_decision_is_the_most_probable() -> None:
    controller = Controller(DARTS, 2, units=5, seed=2)
    _lively(controller)
    best = controller.sample(tf.zeros(controller.noise_shape))
    again = controller.sample(tf.zeros(controller.noise_shape))
    for one, other in zip(best.rows, again.rows, strict=True):
        np.testing.assert_array_equal(one, other)
    surprises = [float(controller.sample(_noise(controller, seed)).surprise) for seed in range(30)]
    assert float(best.surprise) < np.median(surprises)


def test_the_gradient_is_the_same_to_the_last_bit() -> None:
    controller = Controller(DARTS, 2, units=20)
    sources = [weight.value for weight in controller.variables]

    @tf.function(autograph=False)
    def gradient(noise: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(sources)
            written = controller.sample(noise)
        return tape.gradient(written.surprise, sources)

    noise = _noise(controller, 0)
    first = [value.numpy() for value in gradient(noise)]
    for _ in range(20):
        for one, other in zip(first, gradient(noise), strict=True):
            np.testing.assert_array_equal(one, other)
    # Nothing but sums of two, whose order does not matter.
    backward = [
        function
        for function in gradient.get_concrete_function(noise).graph._functions.values()  # noqa: SLF001
    ]
    for function in backward:
        assert not [
            node for node in function.definition.node_def if node.op == "AddN" and node.attr["N"].i > 2
        ]
