"""Run in a process of its own, as devices are made when TensorFlow starts: what two replicas do, beside one.

Prints a line of JSON: differences and values by name, which `test_distribution.py` judges.
"""

from __future__ import annotations

import json

from gdas_tf.numerics.starting import start_tensorflow

start_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from gdas_tf.distribution import Distribution, mean_over_replicas, start  # noqa: E402
from gdas_tf.networks.derived import build_network  # noqa: E402
from gdas_tf.networks.drop_path import DropPathFactors  # noqa: E402
from gdas_tf.numerics.losses import MixedLabels  # noqa: E402
from gdas_tf.optimizers.average import WeightAverage  # noqa: E402
from gdas_tf.optimizers.flat_sgd import FlatSGD  # noqa: E402
from gdas_tf.optimizers.loss_scale import MaskedLossScale  # noqa: E402
from gdas_tf.optimizers.torch_sgd import SGD  # noqa: E402
from gdas_tf.spaces.base import SearchSpace  # noqa: E402
from gdas_tf.spaces.genotype import Genotype  # noqa: E402
from gdas_tf.strategies.gdas import GDAS  # noqa: E402
from gdas_tf.supernet.network import Supernet  # noqa: E402
from gdas_tf.training.retraining import RetrainingModel  # noqa: E402
from gdas_tf.training.search_model import SearchModel  # noqa: E402

STEPS = 2
SPACE = SearchSpace.named("none,skip_connect,conv_1x1", 1)
CELL = Genotype([[("sep_conv_3x3", 0), ("skip_connect", 1)]], [[("skip_connect", 0), ("skip_connect", 1)]])


def batch(step: int, half: int = 4) -> tuple[tf.Tensor, tf.Tensor]:
    """Eight images, the second four as the first: both replicas' batch norms see what one's sees."""
    x = tf.random.stateless_uniform((half, 8, 8, 3), [step, 0])
    y = tf.random.stateless_uniform((half,), [step, 1], 0, 3, tf.int32)
    return tf.concat([x, x], 0), tf.concat([y, y], 0)


def searched(distribution: Distribution) -> dict[str, np.ndarray]:
    keras.utils.set_random_seed(3)
    with distribution.scope():
        supernet = Supernet(SPACE, classes=3, channels=4, cells=1, macro="autodl")
        model = SearchModel(supernet, GDAS(learning_rate=0.01, warm_up=1), seed=1)
        model.compile(SGD(0.1, clip_norm=0.1))
        model.build((distribution.part(8), 8, 8, 3))
    model.strategy.begin_epoch(1, 2)
    before = [weight.numpy() for weight in supernet.trainable_variables]
    steps = [(batch(2 * number), batch(2 * number + 1)) for number in range(STEPS)]
    batches = tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *of: tf.stack(of), *steps))
    history = model.fit(distribution.share(batches), steps_per_epoch=STEPS, verbose=0, shuffle=False).history
    distribution.align(supernet.non_trainable_variables)
    after = [weight.numpy() for weight in supernet.trainable_variables]
    return {
        "search_weights": np.concatenate([value.ravel() for value in after]),
        "search_moved": np.concatenate([(a != b).ravel() for a, b in zip(before, after, strict=True)]),
        "search_logits": np.stack([logits.numpy() for logits in model.strategy.logits.values()]),
        "search_statistics": np.concatenate([v.numpy().ravel() for v in supernet.non_trainable_variables]),
        "search_metrics": np.array([history[name][0] for name in sorted(history)]),
    }


def mixed(step: int) -> tuple[tf.Tensor, MixedLabels]:
    """A batch of mixup, its halves alike."""
    images, labels = batch(step)
    return images, MixedLabels(labels, (labels + 1) % 3, tf.constant(0.7))


def retrained(distribution: Distribution) -> dict[str, np.ndarray]:
    """With mixup, smoothed labels, class weights, and an average of the weights."""
    keras.utils.set_random_seed(3)
    with distribution.scope():
        network = build_network(CELL, (8, 8, 3), 3, channels=4, cells=1, macro="autodl", training=True)
        average = WeightAverage(network.variables, 0.5)
        options = {"label_smoothing": 0.1, "class_weights": (0.5, 1.0, 1.5)}
        model = RetrainingModel(network, average=average, **options)
        # Traced only where it must be.
        model.compile(FlatSGD(0.1, clip_norm=0.1), run_eagerly=distribution.strategy is None)
        model.optimizer.build(network.trainable_variables)
    steps = [mixed(number) for number in range(STEPS)]
    batches = tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *of: tf.stack(of), *steps))
    history = model.fit(distribution.share(batches), steps_per_epoch=STEPS, verbose=0, shuffle=False).history
    weights = np.concatenate([v.numpy().ravel() for v in network.trainable_variables])
    with average.applied():
        averaged = np.concatenate([v.numpy().ravel() for v in network.trainable_variables])
    return {
        "retrain_weights": weights,
        "retrain_average": averaged,
        "retrain_averaged_away": averaged - weights,
        "retrain_metrics": np.array([history[name][0] for name in sorted(history)]),
    }


def optimized(distribution: Distribution, make) -> list[float]:
    """The weights [2] after a step by gradients (3, 0) and (0, 4) of the two replicas, from (0, 0)."""
    with distribution.scope():
        weight = keras.Variable([0.0, 0.0])
        optimizer = make()
        optimizer.build([weight])

    def step() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = tf.where(tf.equal(number, 0), [3.0, 0.0], [0.0, 4.0])
        optimizer.apply(mean_over_replicas([gradient, None])[:1], [weight])

    tf.function(lambda: distribution.strategy.run(step), autograph=False)()
    return weight.numpy().tolist()


def masked(distribution: Distribution, finite: bool) -> list[float]:
    """As of `optimized`, with the second place masked and the loss scaled by 4, of one replica not finite."""
    with distribution.scope():
        weight = keras.Variable([0.0, 0.0])
        optimizer = MaskedLossScale(SGD(1.0, 0.0, 0.0, None, False), initial_scale=4.0)
        optimizer.build([weight])

    def step() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = tf.where(tf.equal(number, 0), [3.0, 1.0], [0.0 if finite else np.inf, 4.0])
        optimizer.apply(mean_over_replicas([gradient]), [weight], masks=[tf.constant([True, False])])

    tf.function(lambda: distribution.strategy.run(step), autograph=False)()
    return [*weight.numpy().tolist(), float(optimizer.dynamic_scale.numpy())]


def dropped(distribution: Distribution) -> np.ndarray:
    """Factors of drop-path of a batch of eight, [paths, 8]."""
    with distribution.scope():
        layer = DropPathFactors(2, 0.5, seed=5)
        layer.build((None, 1))
    images = tf.zeros((distribution.part(8), 1))

    def draw() -> tf.Tensor:
        return tf.stack(layer(images, training=True))[:, :, 0, 0, 0]

    if distribution.strategy is None:
        return draw().numpy()
    found = tf.function(lambda: distribution.strategy.run(draw), autograph=False)()
    return np.concatenate(
        [part.numpy() for part in distribution.strategy.experimental_local_results(found)], 1
    )


def shared(distribution: Distribution) -> list[list[int]]:
    """What each replica gets of batches 0 1 2 3 and 4 5 6 7, and all after another."""
    batches = tf.data.Dataset.range(8).batch(4, drop_remainder=True)
    iterator = iter(distribution.share(batches))
    return [
        [one.numpy().tolist() for one in distribution.strategy.experimental_local_results(next(iterator)[0])]
        for _ in range(2)
    ]


def main() -> None:
    two = start("mirrored", 2, 1, "")
    one = Distribution()
    found: dict[str, object] = {"replicas": two.replicas, "shared": shared(two)}
    found["sgd"] = optimized(two, lambda: SGD(1.0, 0.0, 0.0, 1.0, False))
    found["flat_sgd"] = optimized(two, lambda: FlatSGD(1.0, 0.0, 0.0, 1.0, False))
    found["masked"], found["not_finite"] = masked(two, True), masked(two, False)
    found["dropped"] = bool((dropped(two) == dropped(one)).all())
    for run in (searched, retrained):
        expected, values = run(one), run(two)
        found |= {name: float(np.abs(values[name] * 1.0 - expected[name]).max()) for name in expected}
        found |= {f"{name}_sum": float(np.abs(expected[name] * 1.0).sum()) for name in expected}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
