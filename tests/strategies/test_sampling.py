"""Sampling against the golden values, its distribution, and the temperature."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.strategies.sampling import (
    entropy,
    gumbel_noise,
    most_probable,
    sample,
    sample_direct,
    sample_each,
    sample_gumbel,
    temperature,
)
from gdas_tf.supernet.paths import Sampled

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "sampling.npz")
LOGITS, NOISE = (tf.constant(GOLDEN[name], tf.float32) for name in ("logits", "noise"))
TAUS = ["10", "1", "0.1"]


def _key(kind: str, tau: str, name: str) -> np.ndarray:
    found = [key for key in GOLDEN.files if key.startswith(f"{kind}/tau") and key.endswith(f"/{name}")]
    (match,) = [key for key in found if math.isclose(float(key.split("/")[1][3:]), float(tau))]
    return GOLDEN[match]


@pytest.mark.parametrize("tau", TAUS)
def test_gumbel_is_golden(tau: str) -> None:
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        drawn = sample_gumbel(LOGITS, float(tau), NOISE)
        target = tf.reduce_sum(drawn.gate * _key("gumbel", tau, "cotangent"))
    np.testing.assert_array_equal(drawn.index, _key("gumbel", tau, "index"))
    np.testing.assert_allclose(drawn.soft, _key("gumbel", tau, "soft"), atol=2e-6)
    np.testing.assert_array_equal(drawn.gate, np.ones(14))
    expected = _key("gumbel", tau, "dlogits")
    np.testing.assert_allclose(
        tape.gradient(target, LOGITS), expected, atol=1e-5 + 1e-4 * abs(expected).max()
    )


@pytest.mark.parametrize("tau", TAUS)
def test_direct_is_golden(tau: str) -> None:
    drawn = sample_direct(LOGITS, float(tau), NOISE)
    np.testing.assert_allclose(drawn.soft, _key("direct", tau, "soft"), atol=2e-6)


@pytest.mark.parametrize("sampler", ["gumbel", "direct"])
def test_samples_follow_the_distribution(sampler: str) -> None:
    logits = tf.tile(tf.constant([[0.0, 1.0, 2.0, -1.0]]), [20000, 1])
    # Gumbel samples follow the architecture at any temperature, direct ones the tempered architecture.
    tau = 2.0 if sampler == "direct" else 5.0
    drawn = sample(logits, tau, tf.constant([3, 4], tf.int64), sampler)
    expected = tf.nn.softmax(logits[0] / (tau if sampler == "direct" else 1.0))
    found = np.bincount(drawn.index, minlength=4) / 20000
    np.testing.assert_allclose(found, expected, atol=0.015)


def test_seed_decides() -> None:
    first, again, other = (
        sample(LOGITS, 1.0, tf.constant([7, step], tf.int64)).index.numpy() for step in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("sampler", ["gumbel", "direct"])
def test_samples_of_every_cell(sampler: str) -> None:
    seed = tf.constant([3, 4], tf.int64)
    draw = sample_gumbel if sampler == "gumbel" else sample_direct

    def total(samples: list[Sampled]) -> tf.Tensor:
        return tf.add_n([(i + 1) * tf.reduce_sum(s.gate * tf.range(14.0)) for i, s in enumerate(samples)])

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(LOGITS)
        drawn = sample_each(LOGITS, 1.0, seed, sampler, count=5)
        noise = gumbel_noise((5, *LOGITS.shape), seed)
        alone = [draw(LOGITS, 1.0, part) for part in tf.unstack(noise)]
        found, expected = total(drawn), total(alone)
    assert len({tuple(s.index.numpy()) for s in drawn}) == len(drawn) == 5
    for one, other in zip(drawn, alone, strict=True):
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_allclose(one.soft, other.soft, atol=1e-6)
    # Each has the gradient of its own relaxed distribution, and they add up.
    found, expected = (tape.gradient(value, LOGITS) for value in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_unknown_sampler() -> None:
    with pytest.raises(UsageError, match="'uniform'; accepted are 'gumbel' and 'direct'"):
        sample(LOGITS, 1.0, tf.constant([0, 0], tf.int64), "uniform")


def test_temperature_is_linear() -> None:
    values = [temperature(epoch, 5, 10.0, 0.1) for epoch in range(5)]
    np.testing.assert_allclose(values, [10.0, 7.525, 5.05, 2.575, 0.1])
    assert temperature(0, 1, 10.0, 0.1) == 10.0


def test_entropy_and_most_probable() -> None:
    assert float(entropy(tf.zeros((14, 8)))) == pytest.approx(math.log(8), abs=1e-5)
    certain = tf.one_hot(tf.range(14) % 8, 8) * 100
    assert float(entropy(certain)) == pytest.approx(0, abs=1e-5)
    np.testing.assert_array_equal(most_probable(certain).index, np.arange(14) % 8)
