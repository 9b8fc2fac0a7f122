"""Which operation each edge runs: differentiable sampling, and the temperature that sharpens it.

Equations (3) to (5) of Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR
2019.
"""

from __future__ import annotations

from typing import Literal

from gdas_tf.errors import UsageError
from gdas_tf.numerics.lazy import tf
from gdas_tf.supernet.paths import Sampled

Sampler = Literal["gumbel", "direct"]
Gates = Literal["sampled", "all"]


def gumbel_noise(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """-log(-log u), u uniform in (0, 1), float32; `seed` is an integer tensor [2]."""
    u = tf.random.stateless_uniform(shape, seed, minval=1e-10, maxval=1.0)
    return -tf.math.log(-tf.math.log(u))


def sample_gumbel(
    logits: tf.Tensor, temperature: tf.Tensor | float, noise: tf.Tensor, gates: Gates = "sampled"
) -> Sampled:
    """The Gumbel-softmax sample, equations (3) and (4).

    Args:
        logits: float32 [E, K], the architecture.
        temperature: Positive scalar tau.
        noise: float32 [E, K], from `gumbel_noise`.
        gates: As of `sample`.
    """
    soft = tf.nn.softmax((tf.nn.log_softmax(logits) + noise) / temperature)
    return _straight_through(tf.argmax(soft, -1, output_type=tf.int32), soft, gates)


def sample_direct(
    logits: tf.Tensor, temperature: tf.Tensor | float, noise: tf.Tensor, gates: Gates = "sampled"
) -> Sampled:
    """A sample of softmax(logits / tau) itself, equation (5); the noise does not enter the gradient.

    The largest of log-probabilities plus Gumbel noise has just that distribution.
    """
    soft = tf.nn.softmax(logits / temperature)
    index = tf.argmax(tf.nn.log_softmax(logits / temperature) + noise, -1, output_type=tf.int32)
    return _straight_through(index, soft, gates)


def _straight_through(index: tf.Tensor, soft: tf.Tensor, gates: Gates = "sampled") -> Sampled:
    chosen = tf.one_hot(index, soft.shape[-1])

    @tf.custom_gradient
    def gate(x: tf.Tensor):
        return tf.ones(x.shape[:-1]), lambda gradient: gradient[..., None] * chosen

    @tf.custom_gradient
    def others(x: tf.Tensor):
        return tf.zeros(x.shape[:-1]), lambda gradient: gradient[..., None] * (1.0 - chosen)

    return Sampled(tf.stop_gradient(index), soft, gate(soft), others(soft) if gates == "all" else None)


def sample(
    logits: tf.Tensor,
    temperature: tf.Tensor | float,
    seed: tf.Tensor,
    sampler: Sampler = "gumbel",
    gates: Gates = "sampled",
) -> Sampled:
    """Sampled one operation for each edge.

    Args:
        logits: float32 [E, K].
        temperature: Positive scalar tau.
        seed: Integer [2]; the same seed gives the same sample.
        sampler: "gumbel" or "direct".
        gates: Which gates of an edge get a gradient: the one that was "sampled", or "all"
            (`gdas_tf.supernet.paths.Sampled.others`).

    Example:

    >>> sample(tf.zeros((14, 8)), temperature=10.0, seed=tf.constant([0, 1])).index.shape
    TensorShape([14])
    """
    if sampler not in ("gumbel", "direct"):
        raise UsageError(f"sampler is {sampler!r}; accepted are 'gumbel' and 'direct'")
    draw = sample_gumbel if sampler == "gumbel" else sample_direct
    return draw(logits, temperature, gumbel_noise(tuple(logits.shape), seed), gates)


def sample_each(
    logits: tf.Tensor,
    temperature: tf.Tensor | float,
    seed: tf.Tensor,
    sampler: Sampler = "gumbel",
    count: int = 1,
    gates: Gates = "sampled",
) -> list[Sampled]:
    """`count` samples that do not depend on each other, one for every cell of a kind.

    The authors' code of 2019 samples so; the paper, AutoDL-2020 and the seed study let all cells of a kind
    run one sample.

    Args:
        logits, temperature, seed, sampler, gates: As of `sample`.
        count: Number of samples.
    """
    drawn = sample(tf.broadcast_to(logits, (count, *logits.shape)), temperature, seed, sampler, gates)
    return unstacked(drawn)


def unstacked(drawn: Sampled) -> list[Sampled]:
    """The samples of one whose parts have one axis more in front."""
    parts = (tf.unstack(values) for values in drawn if values is not None)
    return [Sampled(*sample) for sample in zip(*parts, strict=True)]


def most_probable(logits: tf.Tensor) -> Sampled:
    """The operation of the largest logit on each edge, without chance."""
    return _straight_through(tf.argmax(logits, -1, output_type=tf.int32), tf.nn.softmax(logits))


def temperature(epoch: int, epochs: int, start: float = 10.0, end: float = 0.1) -> float:
    """tau of an epoch (0 to epochs - 1): linear from `start` in the first epoch to `end` in the last."""
    return start + (end - start) * epoch / max(epochs - 1, 1)


def entropy(logits: tf.Tensor) -> tf.Tensor:
    """Mean entropy over the edges of softmax(logits), a scalar in nats; log K where all are alike."""
    log_probabilities = tf.nn.log_softmax(logits)
    return -tf.reduce_mean(tf.reduce_sum(tf.exp(log_probabilities) * log_probabilities, -1))
