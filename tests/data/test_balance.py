"""Uneven classes: weights of the loss, and batches that draw every class equally often."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.data.augmentation import Augmentation
from gdas_tf.data.balance import Balance, balanced_order, class_weights
from gdas_tf.data.dataset import DataSet, search_batches, train_batches
from gdas_tf.data.split import Split
from gdas_tf.numerics.losses import cross_entropy, weighted

COUNTS = (60, 25, 5)
"""Images of three classes, of which the last is rare."""


@pytest.fixture(scope="module")
def uneven() -> DataSet:
    """Images that are their own numbers, of `COUNTS` classes."""
    labels = np.repeat(np.arange(3, dtype=np.int32), COUNTS)
    images = np.zeros((90, 8, 8, 1), np.uint8)
    images[:] = np.arange(90)[:, None, None, None]
    split = Split(images, labels)
    return DataSet("uneven", ("a", "b", "c"), split, split, (0.5,), (0.2,))


def test_weights_are_the_inverse_frequency_and_one_in_the_mean() -> None:
    labels = np.repeat([0, 1, 3], (6, 3, 1))
    weights = class_weights(labels, 4)
    assert weights == pytest.approx((10 / 18, 10 / 9, 0.0, 10 / 3))
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1.0)
    assert class_weights(np.array([0, 1, 1, 0]), 2) == (1.0, 1.0)


def test_each_method_balances_what_is_not_balanced_yet() -> None:
    labels = np.repeat([0, 1], (6, 2))
    weights = class_weights(labels, 2)
    assert Balance.of("none", labels, 2) == Balance()
    assert Balance.of("weights", labels, 2) == Balance(False, weights, weights)
    assert Balance.of("sampler", labels, 2) == Balance(True, None, weights)


def test_loss_counts_an_image_by_the_weight_of_its_class() -> None:
    logits = tf.constant([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels = tf.constant([0, 1, 1])
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    found = float(cross_entropy(labels, logits, (0.5, 2.0)))
    assert found == pytest.approx(np.mean(each * [0.5, 2.0, 2.0]), rel=1e-6)
    assert float(cross_entropy(labels, logits)) == pytest.approx(each.mean(), rel=1e-6)
    assert weighted(logits, labels, None) is logits


def test_an_epoch_has_as_many_places_for_each_class_and_uses_its_images_evenly(uneven: DataSet) -> None:
    labels, positions = uneven.train.labels, np.arange(90, dtype=np.int32)
    order = balanced_order(labels, positions, (0, "test"))
    drawn = [order(tf.constant(epoch, tf.int64)).numpy() for epoch in range(3)]
    for epoch in drawn:
        assert np.bincount(labels[epoch]).tolist() == [30, 30, 30]
        times = np.bincount(epoch, minlength=90)
        assert times[:60].max() == 1  # of a large class each once at most
        assert set(times[60:85].tolist()) == {1, 2} and (times[85:] == 6).all()
    assert (drawn[0] != drawn[1]).any() and set(drawn[0].tolist()) != set(drawn[1].tolist())
    again = balanced_order(labels, positions, (0, "test"))(tf.constant(1, tf.int64)).numpy()
    np.testing.assert_array_equal(drawn[1], again)
    other = balanced_order(labels, positions, (1, "test"))(tf.constant(1, tf.int64)).numpy()
    assert (drawn[1] != other).any()


def test_only_the_named_positions_are_drawn(uneven: DataSet) -> None:
    positions = np.array([3, 4, 5, 6, 70, 88], np.int32)
    drawn = balanced_order(uneven.train.labels, positions, (0, "test"))(tf.constant(0, tf.int64)).numpy()
    assert set(drawn.tolist()) <= set(positions.tolist())
    assert np.bincount(uneven.train.labels[drawn]).tolist() == [2, 2, 2]


def test_balanced_batches_of_a_resumed_run_are_those_of_a_whole_one(uneven: DataSet) -> None:
    augmentation = Augmentation(padding=2, flip=True)

    def batches(first: int, steps: int) -> list[tuple[np.ndarray, ...]]:
        found = train_batches(uneven.train, 20, 7, augmentation, first, steps, balanced=True)
        return list(found.as_numpy_iterator())

    whole = batches(0, 9)  # of 4 steps an epoch
    for first in (3, 4, 6):
        for one, other in zip(whole[first:], batches(first, 9 - first), strict=True):
            for expected, found in zip(one, other, strict=True):
                np.testing.assert_array_equal(expected, found)


def test_both_halves_of_a_search_are_balanced(uneven: DataSet) -> None:
    numbers = {False: [], True: []}
    for balanced, labels in numbers.items():
        steps = search_batches(uneven, 15, 1, Augmentation(), 0, 20, balanced)
        labels += [np.stack([t, v]) for (_, t), (_, v) in steps.as_numpy_iterator()]
    shares = {
        name: np.stack([found == 2 for found in labels]).mean((0, 2)) for name, labels in numbers.items()
    }
    np.testing.assert_allclose(shares[True], 1 / 3, atol=0.02)
    np.testing.assert_allclose(shares[False], 5 / 90, atol=0.03)
