"""What GDAS may do beyond the paper, and what strategies refuse that do not read it."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from strategy_searches import Dies, images, settings

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.config.presets import PRESETS
from gdas_tf.errors import UsageError
from gdas_tf.numerics.losses import cross_entropy
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.runs.run import Run
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.strategies.derivation import derive
from gdas_tf.strategies.gdas import GDAS
from gdas_tf.strategies.logits import EXCLUDED
from gdas_tf.strategies.sampling import gumbel_noise, sample, sample_each
from gdas_tf.strategies.topology import Topology
from gdas_tf.supernet import reference
from gdas_tf.supernet.network import Supernet
from gdas_tf.training.search import search
from gdas_tf.training.search_model import SearchModel

OPERATIONS = ("none", "skip_connect", "conv_1x1", "avg_pool_3x3")
SPACE = SearchSpace(OPERATIONS, nodes=3)
SEED = tf.constant([3, 4], tf.int64)


def _model(space: SearchSpace = SPACE, **options: object) -> SearchModel:
    keras.utils.set_random_seed(1)
    model = SearchModel(Supernet(space, 3, channels=2, cells=1), GDAS(learning_rate=0.01, **options), seed=1)
    model.compile(SGD(0.1))
    model.build((4, 8, 8, 3))
    return model


def _batch(seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.random.stateless_uniform((4, 8, 8, 3), [seed, 0]), tf.constant([0, 1, 2, 1])


def _step(number: int = 0) -> tf.Tensor:
    return tf.constant(number, tf.int64)


# --- every gate


@pytest.mark.parametrize("sampler", ["gumbel", "direct"])
def test_all_gates_have_the_gradients_of_the_relaxed_distribution(sampler: str) -> None:
    logits = tf.random.stateless_normal((5, 4), [1, 2])
    along = tf.random.stateless_normal((5, 4), [3, 4])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        drawn = sample(logits, 2.0, SEED, sampler, "all")
        # By hand: the gate that was sampled has one weight, and each of the others another one.
        chosen = tf.one_hot(drawn.index, 4)
        expected = tf.reduce_sum(drawn.soft * (chosen * along[:, :1] + (1 - chosen) * along[:, 1:2]))
        found = tf.reduce_sum(drawn.gate * along[:, 0] + drawn.others * along[:, 1])
    np.testing.assert_array_equal(drawn.others, np.zeros(5))
    np.testing.assert_allclose(tape.gradient(found, logits), tape.gradient(expected, logits), atol=1e-6)
    assert sample(logits, 2.0, SEED, sampler).others is None
    each = sample_each(logits, 2.0, SEED, sampler, 3, "all")
    assert [one.others.shape for one in each] == [(5,)] * 3


def _gradients(model: SearchModel, call: object) -> list[tf.Tensor]:
    x, y = _batch(7)
    sources = [variable.value for variable in model.strategy.architecture]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            y, call(x, *model.strategy.sample(_step(2), 1))
        )
        loss = tf.reduce_mean(losses)
    return tape.gradient(loss, sources)


@pytest.mark.parametrize("per", ["kind", "cell"])
@pytest.mark.parametrize("topology", ["all", "derived"])
def test_the_gradient_of_the_logits_is_that_of_the_plain_supernet(topology: str, per: str) -> None:
    """All gates, and edges that are off: in a space without `none`, these run one branch more."""
    model = _model(SearchSpace(OPERATIONS[1:], 3), gates="all", topology=topology, sample_per=per)
    found = _gradients(model, lambda x, *paths: model.supernet(x, *paths, update="architecture"))
    expected = _gradients(model, lambda x, *paths: reference.logits(model.supernet, x, *paths))
    assert len(found) == (2 if topology == "all" else 4)
    for one, other in zip(found, expected, strict=True):
        assert float(tf.reduce_max(tf.abs(other))) > 1e-4
        np.testing.assert_allclose(one, other, atol=2e-5 * float(tf.reduce_max(tf.abs(other))))
    only = _gradients(
        _model(SearchSpace(OPERATIONS[1:], 3), topology=topology, sample_per=per),
        lambda x, *paths: model.supernet(x, *paths, update="architecture"),
    )
    assert not np.allclose(only[0], found[0], rtol=0.01)


def test_the_gates_of_the_weights_are_those_of_a_search_without_the_option() -> None:
    paths = _model(gates="all").strategy.paths(_step())
    assert all(one.others is None for one in paths)


# --- several samples


def test_the_gradient_is_the_mean_over_the_samples() -> None:
    """Adam's first step hides the length, so plain descent takes its place."""
    model = _model(samples=3, weight_decay=0.0)
    strategy = model.strategy
    strategy.optimizer = keras.optimizers.SGD(1.0)
    before = [logits.numpy() for logits in strategy.architecture]
    x, y = _batch(1)
    gradients, losses, drawn = [], [], []
    for number in (1, 2, 3):
        with tf.GradientTape() as tape:
            paths = strategy.sample(_step(5), number)
            losses.append(cross_entropy(y, model.supernet(x, *paths, update="architecture")))
        drawn.append(tuple(np.concatenate([one.index for one in paths])))
        gradients.append(tape.gradient(losses[-1], [v.value for v in strategy.architecture]))
    assert len(set(drawn)) == 3
    found = strategy.learn(model, _step(5), _batch(0), (x, y))
    assert float(found["architecture_loss"]) == pytest.approx(float(sum(losses)) / 3, rel=1e-5)
    for logits, old, *parts in zip(strategy.architecture, before, *gradients, strict=True):
        np.testing.assert_allclose(logits.numpy(), old - sum(parts) / 3, atol=1e-6)


def test_no_two_samples_have_one_seed() -> None:
    strategy = _model(samples=4).strategy
    numbers = [
        int(strategy._counted(_step(step), number, position))
        for step in range(5)
        for number in range(5)
        for position in range(2)
    ]
    assert len(set(numbers)) == len(numbers)


# --- topology


@pytest.mark.parametrize("sampler", ["gumbel", "direct"])
def test_a_node_takes_as_many_inputs_as_are_derived(sampler: str) -> None:
    space = SearchSpace(OPERATIONS, nodes=4, inputs_per_node=3)
    topology = Topology(space)
    logits = tf.zeros((500, space.edge_count))
    gates = topology.sample(logits, 1.0, gumbel_noise(tuple(logits.shape), SEED), sampler).numpy()
    assert set(gates.flat) == {0.0, 1.0}
    node = np.array([node for node, _ in space.edges])
    for number in range(4):
        on = gates[:, node == number]
        assert (on.sum(1) == min(3, 2 + number)).all()
        np.testing.assert_allclose(on.mean(0), min(3, 2 + number) / (2 + number), atol=0.08)


def test_inputs_are_drawn_by_the_softmax_of_their_logits_and_never_twice() -> None:
    space = SearchSpace(OPERATIONS, nodes=2)
    row = np.float32([5.0, -5.0, 0.0, 1.0, 2.0])  # node 0 has two edges, and takes both
    logits = tf.tile(tf.constant(row)[None], [20000, 1])
    topology = Topology(space)
    gates = topology.sample(logits, 3.0, gumbel_noise(tuple(logits.shape), SEED)).numpy()
    p = np.exp(row[2:]) / np.exp(row[2:]).sum()
    # Two of three: all but one, and the one that is left out is the last of three draws.
    last = [sum(p[i] * p[j] / (1 - p[i]) for i, j in ((a, b), (b, a))) for a, b in ((1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(gates[:, :2], 1.0)
    np.testing.assert_allclose(1 - gates[:, 2:].mean(0), last, atol=0.015)
    np.testing.assert_array_equal(topology.most_probable(tf.constant(row)), [1, 1, 0, 1, 1])


def test_the_gates_of_edges_have_the_gradient_of_the_relaxed_distribution() -> None:
    topology, noise = Topology(SPACE), gumbel_noise((SPACE.edge_count,), SEED)
    logits = tf.random.stateless_normal((SPACE.edge_count,), [5, 6])
    along = tf.random.stateless_normal((SPACE.edge_count,), [7, 8])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        found = tf.reduce_sum(topology.sample(logits, 0.5, noise) * along)
        expected = tf.constant(0.0)
        first = 0
        for node in range(3):
            own = slice(first, first + 2 + node)
            soft = tf.nn.softmax((tf.nn.log_softmax(logits[own]) + noise[own]) / 0.5)
            expected += tf.reduce_sum(soft * along[own])
            first = own.stop
    np.testing.assert_allclose(tape.gradient(found, logits), tape.gradient(expected, logits), atol=1e-6)


@pytest.mark.parametrize("per", ["kind", "cell"])
@pytest.mark.parametrize("operations", [OPERATIONS, OPERATIONS[1:]], ids=["with none", "without"])
def test_weights_of_edges_that_are_off_stay(operations: tuple[str, ...], per: str) -> None:
    model = _model(SearchSpace(operations, 3), topology="derived", sample_per=per)
    off = model.supernet.space.off
    paths = model.strategy.paths(_step())
    (drawn, *_) = paths[0] if per == "cell" else [paths[0]]
    # Nodes have 2, 3 and 4 edges, of which two each are on (or run `none`, where that is an operation).
    assert (drawn.index.numpy() == off).sum() >= 3
    if off == len(operations):
        assert (drawn.index.numpy() == off).sum() == 3
    cell = model.supernet.cells[0]
    before = [mixed.kernels.numpy() for mixed in cell.mixed]
    model.update_weights(*_batch(0))
    for mixed, old, (_, edges) in zip(cell.mixed, before, cell.groups, strict=True):
        moved = (mixed.kernels.numpy() != old).any(1)
        convolved = drawn.index.numpy()[edges] == operations.index("conv_1x1")
        np.testing.assert_array_equal(moved, convolved)
    assert model(_batch(0)[0]).shape == (4, 3)


def test_edges_are_derived_by_their_own_logits() -> None:
    space = SearchSpace(OPERATIONS, nodes=2)
    logits = np.zeros((5, 4))
    logits[np.arange(5), [1, 2, 3, 2, 1]] = 3.0
    logits[4, 1] = 9.0  # by its operations edge 4 would come first
    edges = np.array([0.0, 1.0, 2.0, 3.0, 1.0])
    found = derive(logits, None, space, edges=(edges, None))
    assert found.to_text() == "normal=conv1@1+skip@0/conv1@1+avg3@0 reduction=fixed"
    assert (
        derive(logits, None, space, ranks=(2, 3), edges=(edges, None))
        .to_text()
        .startswith("normal=skip@0+skip@1/avg3@0+skip@2")
    )
    with pytest.raises(
        UsageError, match="logits of the edges: nothing is ranked.*accepted is the rule edges"
    ):
        derive(logits, None, space, rule="pairs", edges=(edges, None))
    with pytest.raises(UsageError, match=r"normal logits of the edges: found shape \[4\].* has 5 edges"):
        derive(logits, None, space, edges=(edges[:4], None))


def test_a_space_that_keeps_all_edges_has_no_topology() -> None:
    space = SearchSpace(OPERATIONS, 2, name="mine", keep="all")
    with pytest.raises(
        UsageError, match="topology: found derived, and the search space mine keeps all edges"
    ):
        _model(space, topology="derived")


# --- none


@pytest.mark.parametrize("options", [{}, {"gates": "all"}, {"sampler": "direct"}])
def test_none_that_is_excluded_is_never_sampled_and_its_logit_stays(options: dict[str, str]) -> None:
    model = _model(none="excluded", **options)
    logits = model.strategy.logits["normal"]
    logits.assign(np.float32(50.0) * (np.arange(4) == 0) + np.zeros((9, 4), np.float32))
    before = logits.numpy()
    for number in range(3):
        for one in model.strategy.sample(_step(number), 1):
            assert (one.index.numpy() > 0).all()
            np.testing.assert_allclose(one.soft[:, 0], 0.0)
        model.strategy.learn(model, _step(number), _batch(0), _batch(1))
    np.testing.assert_array_equal(logits.numpy()[:, 0], before[:, 0])
    assert np.isfinite(logits.numpy()).all() and (logits.numpy()[:, 1:] != before[:, 1:]).any()
    arrays = model.strategy.arrays()
    assert (arrays["normal"][:, 0] == EXCLUDED).all()
    assert "none" not in derive(arrays["normal"], None, SPACE, keep_none=True).to_text()
    assert model.strategy.values()["normal_entropy"] <= np.log(3) + 1e-5


# --- whole searches


CASES = {
    "gates": {"gdas.gates": "all"},
    "samples": {"gdas.samples": 2},
    "topology": {"gdas.topology": "derived", "search.reduction": "fixed"},
    "none": {"search.none": "excluded"},
    "all": {
        "gdas.gates": "all",
        "gdas.samples": 2,
        "gdas.topology": "derived",
        "search.none": "excluded",
        "search.warm_up": 1,
        "search.sample_per": "cell",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_search_ends_in_the_same_bits(case: str, tmp_path: Path) -> None:
    config = settings({"search.operations": ",".join(OPERATIONS), **CASES[case]})
    whole, broken = Run.create(tmp_path / "whole", config), Run.create(tmp_path / "broken", config)
    expected = search(config, images(), whole)
    with pytest.raises(KeyboardInterrupt):
        search(config, images(), broken, callbacks=[Dies(2)])
    found = search(config, images(), broken, resume=True)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert (values[0] != values[-1]).any()
    strategy = STRATEGIES.get("gdas").from_config(config)
    genotype = strategy.genotype({name: values[-1] for name, values in found.items()}, config)
    assert genotype.cells and "none" not in genotype.to_text()
    (first, *_, last) = broken.metrics("search")
    if case == "all":
        assert (first["warm_up"], last["warm_up"]) == (1.0, 0.0)
        assert first["architecture_loss"] is None and last["architecture_loss"] > 0
        assert last["normal_edges_entropy"] > 0


def test_logits_stay_in_the_warm_up_and_weights_do_not(tmp_path: Path) -> None:
    config = settings({"search.warm_up": 2})
    found = search(config, images(), Run.create(tmp_path / "run", config))
    np.testing.assert_array_equal(found["normal"][0], found["normal"][2])
    assert (found["normal"][2] != found["normal"][3]).any()
    losses = [line["loss"] for line in Run.open(tmp_path / "run").metrics("search")]
    assert losses[1] < losses[0]


# --- options that do not fit


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"search.strategy": "darts", "search.sampler": "direct"},
            r"search.sampler: found direct, which the strategy darts does not read; accepted is gumbel, or "
            r"another search.strategy \(gdas\)",
        ),
        (
            {"search.strategy": "darts", "search.temperature_end": 1.0},
            "search.temperature_end: found 1.0, which",
        ),
        (
            {"search.warm_up": 3, "search.epochs": 3},
            "search.warm_up: found 3; it must be below search.epochs, 3",
        ),
        ({"gdas.samples": 0}, "gdas.samples: found 0; it must be at least 1"),
        ({"search.strategy": "darts", "gdas.samples": 2}, "gdas: it is the section of the strategy gdas"),
        ({"gdas.topology": "derived", "derive.rule": "pairs"}, "derive.rule: found pairs with gdas.topology"),
    ],
)
def test_options_that_do_not_fit_are_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Config().override(values)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_works_with_every_strategy(preset: str, strategy: str) -> None:
    """What a preset says of fields that the strategy does not read is left out."""
    config = Config.preset(preset).override({"search.strategy": strategy})
    assert Config.from_dict(config.to_dict()) == config
    reads = "architecture_learning_rate" in STRATEGIES.get(strategy).reads
    chosen = Config.preset(preset) if reads else Config()
    assert config.search.architecture_learning_rate == chosen.search.architecture_learning_rate


def test_the_command_line_names_the_flag_and_leaves_nothing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "run", "--search-strategy", "darts", "--search-sampler", "direct"]) == 2
    assert "--search-sampler: found direct, which the strategy darts does not read" in capsys.readouterr().err
    assert main(["search", "run", "--search-strategy", "dart"]) == 2
    assert "did you mean darts?" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_search_from_before_there_were_these_options_goes_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Config.preset("quick"))
    run.save_checkpoint("search", {}, 1)
    with np.load(run.file("search/checkpoint.npz")) as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about.json"]))
    depends_on = next(value for value in about.values() if isinstance(value, dict) and "gdas" in value)
    del depends_on["gdas"], depends_on["search"]["none"], depends_on["search"]["warm_up"]
    np.savez(run.file("search/checkpoint.npz"), **{**arrays, "about.json": np.array(json.dumps(about))})
    assert run.load_checkpoint("search")[1] == 1
    run.config = Config.preset("quick").override({"gdas.samples": 2})
    with pytest.raises(UsageError, match="gdas.samples = 1 there, 2 now"):
        run.load_checkpoint("search")
