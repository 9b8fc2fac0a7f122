"""Candidates: genotypes as paths, drawn uniformly, and scored by the weights of a supernet."""

from __future__ import annotations

import collections
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from gdas_tf.errors import DivergedError, UsageError
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Genotype, random_genotype
from gdas_tf.spaces.nasbench201 import NASBENCH201
from gdas_tf.strategies import candidates
from gdas_tf.strategies.gdas import GDAS
from gdas_tf.supernet import reference
from gdas_tf.supernet.network import Supernet
from gdas_tf.training.search_model import SearchModel

SPACES = {
    "darts": SearchSpace(nodes=3),
    "without none": SearchSpace(("conv_1x1", "skip_connect", "max_pool_3x3"), nodes=3),
    "all edges": SearchSpace(
        ("none", "skip_connect", "conv_3x3"),
        3,
        inputs=1,
        keep="all",
        output="last",
        reduction=False,
        with_none=True,
    ),
}

every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def _kinds(space: SearchSpace) -> list[str]:
    return ["normal", "reduction"] if space.reduction else ["normal"]


def _search(space: SearchSpace, channels: int = 4) -> SearchModel:
    supernet = Supernet(space, classes=3, channels=channels, cells=1)
    model = SearchModel(supernet, GDAS(), seed=1)
    model.compile(SGD(0.1))
    model.build((8, 8, 8, 3))
    return model


def _validation(batches: int = 2, number: int = 0) -> list[tuple[tf.Tensor, tf.Tensor]]:
    return [
        (
            tf.random.stateless_uniform((8, 8, 8, 3), [i, number]),
            tf.random.stateless_uniform((8,), [i, number + 1], 0, 3, tf.int32),
        )
        for i in range(batches)
    ]


@every_space
def test_a_genotype_as_indices_and_back(space: SearchSpace) -> None:
    for seed in range(20):
        genotype = random_genotype(space, seed)
        indices = candidates.indices_of(genotype, space)
        assert list(indices) == _kinds(space)
        assert all(row.shape == (space.edge_count,) and row.dtype == np.int32 for row in indices.values())
        assert candidates.genotype_of(indices, space) == genotype


def test_indices_by_hand() -> None:
    space = SearchSpace(("skip_connect", "conv_3x3"), nodes=3)
    genotype = Genotype.from_text("normal=conv3@1+skip@0/skip@2+conv3@0/skip@1+skip@3 reduction=fixed")
    (row,) = candidates.indices_of(genotype, space).values()
    # The edges of node 0, of node 1 and of node 2; 2 is off, as this space has no `none`.
    assert row.tolist() == [0, 1, 1, 2, 0, 2, 0, 2, 0]
    normal, reduction = candidates.paths_of(genotype, space)
    assert normal.index.numpy().tolist() == row.tolist() and reduction is None
    assert normal.soft.shape == (9, 2)


def test_what_is_no_path() -> None:
    space = SearchSpace(nodes=2)
    twice = Genotype.from_text("normal=sep3@0+skip@1/sep3@1+skip@1 reduction=fixed")
    with pytest.raises(UsageError, match="normal cell, node 1: it takes input 1 2 times"):
        candidates.paths_of(twice, space)
    other = Genotype.from_text("normal=sep3@0+sep7@1/sep3@1+skip@0 reduction=fixed")
    with pytest.raises(UsageError, match="sep_conv_7x7 is not in the search space"):
        candidates.paths_of(other, space)
    with pytest.raises(UsageError, match="5 edges and 8 operations"):
        candidates.genotype_of({"normal": np.zeros(4, np.int32)}, space)
    with pytest.raises(UsageError, match="5 edges and 8 operations"):
        candidates.genotype_of({"normal": np.full(5, 8, np.int32)}, space)


@every_space
@pytest.mark.parametrize("fixed", [False, True], ids=["searched", "fixed"])
def test_drawn_genotypes_are_of_the_space(space: SearchSpace, fixed: bool) -> None:
    drawn = [candidates.draw(space, np.random.default_rng(7), fixed) for _ in range(2)]
    assert drawn[0] == drawn[1]
    generator = np.random.default_rng(3)
    for _ in range(20):
        genotype = candidates.draw(space, generator, fixed)
        genotype.check_fits(space)
        assert (genotype.reduction is None) == (fixed or not space.reduction)


def test_different_genotypes_until_there_are_no_more() -> None:
    space = SearchSpace(
        ("none", "skip_connect"), 2, inputs=1, keep="all", output="last", reduction=False, with_none=True
    )
    found = candidates.draw_different(space, np.random.default_rng(0), 100)
    assert len(found) == len(set(found)) == 8
    assert found[:3] == candidates.draw_different(space, np.random.default_rng(0), 3)


@every_space
def test_uniform_paths_depend_on_seed_and_step_alone(space: SearchSpace) -> None:
    @tf.function(autograph=False)
    def in_graph(step: tf.Tensor) -> list[tf.Tensor]:
        return [path.index for path in candidates.uniform(space, _kinds(space), 5, step) if path is not None]

    rows = [[row.numpy().tolist() for row in in_graph(tf.constant(step, tf.int64))] for step in (0, 1, 2)]
    eager = candidates.uniform(space, _kinds(space), 5, tf.constant(1, tf.int64))
    assert [path.index.numpy().tolist() for path in eager if path is not None] == rows[1]
    other = candidates.uniform(space, _kinds(space), 6, tf.constant(1, tf.int64))
    assert [path.index.numpy().tolist() for path in other if path is not None] != rows[1]
    flat = [tuple(row) for step in rows for row in step]
    assert len(set(flat)) == len(flat)


def test_uniform_paths_are_uniform() -> None:
    space = SearchSpace(("none", "skip_connect", "conv_1x1"), nodes=2)
    draw = tf.function(lambda step: candidates.uniform(space, ["normal"], 0, step)[0].index, autograph=False)
    steps = 4800
    counts = collections.Counter(tuple(draw(tf.constant(s, tf.int64)).numpy()) for s in range(steps))
    # Node 0 keeps both inputs, node 1 two of three; every edge has one of two operations.
    pairs = itertools.combinations(range(2, 5), 2)
    expected = set()
    for pair in pairs:
        for operations in itertools.product((1, 2), repeat=4):
            row = [0] * 5
            for edge, operation in zip((0, 1, *pair), operations, strict=True):
                row[edge] = operation
            expected.add(tuple(row))
    assert set(counts) == expected and len(expected) == 48
    chi_squared = sum((count - steps / 48) ** 2 / (steps / 48) for count in counts.values())
    assert chi_squared < 90  # 47 degrees of freedom: beyond it lies a part of 2e-4


@every_space
def test_uniform_paths_are_genotypes(space: SearchSpace) -> None:
    operations = set()
    for step in range(30):
        paths = candidates.uniform(space, _kinds(space), 0, tf.constant(step, tf.int64))
        indices = {kind: path.index.numpy() for kind, path in zip(_kinds(space), paths, strict=False) if path}
        candidates.genotype_of(indices, space).check_fits(space)
        operations |= {int(index) for row in indices.values() for index in row}
    off = set() if space.keep == "all" else {space.off}
    assert operations == {*space.candidates(), *off}


@every_space
def test_scores_are_the_losses_by_the_statistics_of_each_batch(space: SearchSpace) -> None:
    model = _search(space)
    genotypes = candidates.draw_different(space, np.random.default_rng(0), 3)
    genotypes.append(genotypes[0])
    before = [variable.numpy() for variable in model.supernet.variables]
    losses = candidates.score(model, genotypes, _validation, batches=2)
    assert all(
        np.array_equal(value, variable.numpy())
        for value, variable in zip(before, model.supernet.variables, strict=True)
    )
    for genotype, loss in zip(genotypes, losses, strict=True):
        paths = candidates.paths_of(genotype, space)
        expected = []
        for images, labels in _validation():
            outputs = reference.logits(model.supernet, images, *paths)
            entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=outputs)
            expected.append(float(tf.reduce_mean(entropies)))
        assert loss == pytest.approx(np.mean(expected), abs=2e-5)
    assert losses[3] == losses[0] and len(set(losses)) == 3
    assert losses == candidates.score(model, genotypes, lambda: _validation(5), batches=2)
    (one,) = candidates.score(model, genotypes[:1], _validation, batches=1)
    assert one != losses[0]


def test_one_graph_for_all_candidates() -> None:
    space = SPACES["darts"]
    model = _search(space)
    candidates.score(model, candidates.draw_different(space, np.random.default_rng(0), 3), _validation)
    candidates.score(model, candidates.draw_different(space, np.random.default_rng(1), 2), _validation)
    assert (
        candidates._loss_function(model.supernet, model.balance.of_images).experimental_get_tracing_count()
        == 1
    )


def test_scores_without_images_or_numbers() -> None:
    space = SearchSpace(nodes=1)
    model = _search(space)
    genotypes = candidates.draw_different(space, np.random.default_rng(0), 2)
    with pytest.raises(UsageError, match="no batch of images of D_V"):
        candidates.score(model, genotypes, list)
    stem = model.supernet.stem.kernels[0]
    stem.assign(stem.value * math.nan)
    losses = candidates.score(model, genotypes, _validation)
    assert losses == [math.inf, math.inf]
    with pytest.raises(DivergedError, match="none of 2 candidates"):
        candidates.best(losses)


def test_the_best_of_equal_ones_is_the_first() -> None:
    assert candidates.best([2.0, math.nan, 1.0, 1.0, math.inf]) == 2


def test_weights_that_a_loss_depends_on() -> None:
    space = NASBENCH201
    supernet = Supernet(space, classes=3, channels=4, cells=2)
    supernet.build((2, 8, 8, 3))
    skips = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"

    def count(text: str) -> int:
        return candidates.weights_of(Genotype.from_text(text), supernet)

    base = count(skips)
    # Two cells a block of 4, 8 and 16 channels.
    one = 2 * (4**2 + 8**2 + 16**2)
    assert count(skips.replace("skip_connect~0|+", "nor_conv_1x1~0|+", 1)) == base + one
    full = skips.replace("skip_connect", "nor_conv_3x3")
    assert count(full) == base + 6 * 9 * one
    # Node 1 is empty: what comes out of it is zero.
    empty = "|none~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    assert count(empty) == base
    # Nothing reads node 2.
    unread = "|skip_connect~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|skip_connect~1|none~2|"
    assert count(unread) == base
