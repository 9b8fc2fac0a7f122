"""ENAS: the controller learns from rewards, and what its samples lead to is found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from candidate_searches import TINY, assert_same_outcome, noise, searched

from gdas_tf.cli.main import main
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.spaces.base import SPACES, SearchSpace
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.strategies.base import Task
from gdas_tf.strategies.enas import ENAS, METRICS
from gdas_tf.supernet.network import Supernet
from gdas_tf.training.search_model import SearchModel

SMALL = SearchSpace(("none", "skip_connect", "conv_1x1", "max_pool_3x3"), nodes=2)
BATCH = (tf.zeros([4, 8, 8, 3]), tf.zeros([4], tf.int32))


def _built(space: SearchSpace = SMALL, seed: int = 0, **options) -> ENAS:
    strategy = ENAS(units=12, **options)
    kinds = ["normal", "reduction"] if space.reduction else ["normal"]
    strategy.build(Task(space, dict.fromkeys(kinds, 1), seed))
    return strategy


def _judge(share) -> SimpleNamespace:
    """A search whose supernet is right on a share of the images of class 0, as a function of the paths."""

    def supernet(images, *paths, update):
        assert update == "architecture"
        right = tf.cast(tf.range(4), tf.float32) < 4 * share(*[path.index for path in paths if path])
        return tf.stack([tf.cast(right, tf.float32), 1 - tf.cast(right, tf.float32)], 1)

    return SimpleNamespace(supernet=supernet)


def _probability(strategy: ENAS, operation: int, samples: int = 200) -> float:
    """Share of the edges that have one operation."""
    rows = [strategy.sample(tf.constant(10**6 + i, tf.int64)).rows[0] for i in range(samples)]
    indices = np.concatenate([row.numpy() for row in rows])
    kept = indices[indices != strategy.task.space.off]
    return float((kept == operation).mean())


@pytest.mark.parametrize(
    "space",
    [pytest.param(SMALL, marks=pytest.mark.slow), SPACES.get("nasbench201")],
    ids=["darts", "nasbench201"],
)
def test_what_is_rewarded_becomes_more_probable(space: SearchSpace) -> None:
    strategy = _built(space, learning_rate=0.01)
    wanted = 2
    search = _judge(lambda row, *_: tf.reduce_mean(tf.cast(row == wanted, tf.float32)))
    step = tf.function(lambda number: strategy.reinforce(search, number, BATCH), autograph=False)
    before = _probability(strategy, wanted)
    rewards = [float(step(tf.constant(n, tf.int64))["architecture_accuracy"]) for n in range(300)]
    assert _probability(strategy, wanted) > before + 0.3
    assert np.mean(rewards[-30:]) > np.mean(rewards[:30]) + 0.15
    found = strategy.best.normal  # of the most probable decisions
    operations = [edge.operation for node in found for edge in node]
    assert operations.count(space.operations[wanted]) == len(operations)


@pytest.mark.slow
def test_an_input_that_is_rewarded_becomes_more_probable() -> None:
    space = SearchSpace(("none", "skip_connect", "conv_1x1"), nodes=3)
    strategy = _built(space, learning_rate=0.01)
    edge = space.edges.index((2, 3))
    search = _judge(lambda row, *_: tf.cast(row[edge] != space.off, tf.float32))
    step = tf.function(lambda number: strategy.reinforce(search, number, BATCH), autograph=False)

    def kept() -> float:
        rows = [strategy.sample(tf.constant(10**6 + i, tf.int64)).rows[0] for i in range(200)]
        return float(np.mean([row.numpy()[edge] != space.off for row in rows]))

    assert kept() == pytest.approx(0.5, abs=0.15)  # two of four
    for number in range(300):
        step(tf.constant(number, tf.int64))
    assert kept() > 0.8


def test_the_step_is_that_of_reinforce() -> None:
    """One step of Adam on (R - b) d(-log p), the baseline moved first; the probability by the controller."""
    strategy = _built(learning_rate=0.1, entropy_weight=0.01, baseline_decay=0.8)
    strategy.baseline.assign(0.4)
    sources = [variable.value for variable in strategy.controller.variables]
    before = [variable.numpy() for variable in strategy.controller.variables]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        written = strategy.sample(tf.constant(2 * 7 + 1, tf.int64))
    gradients = [gradient.numpy() for gradient in tape.gradient(written.surprise, sources)]
    values = strategy.reinforce(_judge(lambda *_: 0.75), tf.constant(7, tf.int64), BATCH)
    reward = 0.75 + 0.01 * float(written.entropy)
    baseline = 0.8 * 0.4 + 0.2 * reward
    assert tuple(values) == METRICS
    assert float(values["architecture_accuracy"]) == 0.75
    assert float(values["reward"]) == pytest.approx(reward, rel=1e-6)
    assert float(values["controller_entropy"]) == pytest.approx(float(written.entropy))
    assert float(strategy.baseline) == pytest.approx(baseline, rel=1e-6)
    for start, gradient, variable in zip(before, gradients, strategy.controller.variables, strict=True):
        g = gradient * (reward - baseline)
        expected = start - 0.1 * g / (np.abs(g) + 1e-8 / math.sqrt(0.001))  # Adam's first step
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-4)


@pytest.mark.slow
def test_samples_depend_on_seed_and_number_alone() -> None:
    first, again, other = _built(seed=1), _built(seed=1), _built(seed=2)
    rows = [[s.sample(tf.constant(n, tf.int64)).rows[0].numpy() for n in range(5)] for s in (first, again)]
    np.testing.assert_array_equal(*rows)
    assert any((other.sample(tf.constant(n, tf.int64)).rows[0].numpy() != rows[0][n]).any() for n in range(5))
    normal, reduction = first.paths(tf.constant(2, tf.int64))
    np.testing.assert_array_equal(normal.index, rows[0][4])
    assert reduction.index.shape == (5,)


def test_the_candidates_are_different_samples() -> None:
    strategy = _built(candidates=6)
    found = strategy._candidates()
    assert len(set(found)) == len(found) == 6
    assert found == _built(candidates=6)._candidates()
    tiny = _built(SearchSpace(("none", "skip_connect"), nodes=1), candidates=6)
    assert len(tiny._candidates()) == 1  # the space has no other genotype


def test_weights_are_not_touched_by_the_controller() -> None:
    supernet = Supernet(SMALL, classes=3, channels=4, cells=1)
    model = SearchModel(supernet, ENAS(units=8, learning_rate=0.01), seed=1)
    model.compile(SGD(0.1))
    model.build((4, 8, 8, 3))
    weights = [variable.numpy() for variable in supernet.variables]
    controller = [variable.numpy() for variable in model.strategy.controller.variables]
    model.update_strategy(BATCH, BATCH)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(weights, supernet.variables, strict=True))
    moved = [
        not np.array_equal(a, b.numpy())
        for a, b in zip(controller, model.strategy.controller.variables, strict=True)
    ]
    # With two nodes only the second has inputs to choose.
    assert all(moved)


PHASE = {"enas.controller_steps": 4}


@pytest.mark.slow
@pytest.mark.parametrize("phase", [{}, PHASE], ids=["each step", "phase"])
def test_a_killed_search_ends_as_an_uninterrupted_one(phase: dict, tmp_path: Path) -> None:
    options = {
        "search.strategy": "enas",
        "enas.units": 10,
        "enas.candidates": 3,
        "search.nodes": 2,
        "search.reduction": "fixed",
        **phase,
    }
    options["search.operations"] = "none,skip_connect,conv_1x1"
    options["enas.learning_rate"] = 0.05
    whole = searched(tmp_path / "whole", options)
    assert_same_outcome(whole, searched(tmp_path / "killed", options, killed_after=1))
    for line in whole.metrics("search"):
        assert all(math.isfinite(line[name]) for name in (*METRICS, "baseline"))
        assert 0 <= line["architecture_accuracy"] <= 1 and line["controller_entropy"] > 1
    # The array before the search is of the most probable decisions, the last one the best candidate.
    lines = [json.loads(line) for line in whole.file("search/candidates.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert whole.metrics("search")[-1]["best_loss"] == min(line["loss"] for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--search-nodes", "2", "--search-reduction", "fixed"],
        ["--search-space", "nasbench201", "--enas-controller-steps", "3"],
    ],
    ids=["fixed reduction", "nasbench201"],
)
def test_from_the_command_line(options: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    noise("noise.npz")
    options = [*options, "--search-strategy", "enas", "--enas-candidates", "3", "--enas-units", "8"]
    assert main(["run", "run", *options, *TINY]) == 0
    lines = [json.loads(line) for line in Path("run/search/candidates.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["loss"])
    genotype = Genotype.load("run/genotype.json")
    assert genotype.to_text() == best["genotype"]
    assert (genotype.reduction is None) == ("--search-nodes" not in options or "fixed" in options)
    assert "onnx" in json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert Path("run/pictures/search.png").stat().st_size > 1000
