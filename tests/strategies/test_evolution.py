"""Ageing evolution: who is born, who lives, what is judged, and that a killed one ends as another."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, Split
from gdas_tf.errors import DivergedError, RunError, UsageError
from gdas_tf.runs.journal import Journal
from gdas_tf.runs.run import Run
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Genotype, random_genotype
from gdas_tf.strategies import candidates
from gdas_tf.strategies.base import Task
from gdas_tf.strategies.evolution import Evolution, Population
from gdas_tf.strategies.mutation import mutated, ordered
from gdas_tf.training.search import search
from gdas_tf.training.trials import Outcome

SPACE = SearchSpace()
ALL = SearchSpace(nodes=3, inputs=1, keep="all", output="last", reduction=False)


def _edges(genotype: Genotype) -> list[set]:
    return [set(node) for cell in genotype.cells.values() for node in cell]


@pytest.mark.parametrize("space", [SPACE, ALL, SearchSpace(nodes=1)])
def test_a_mutation_changes_one_operation_or_one_input(space) -> None:
    generator, kinds = random.Random(0), set()
    for seed in range(300):
        parent = ordered(random_genotype(space, seed, allow_none=space.keep == "all"))
        child = mutated(parent, space, generator)
        child.check_fits(space)
        assert child == ordered(child) and candidates.indices_of(child, space)
        (gone,) = [a - b for a, b in zip(_edges(parent), _edges(child), strict=True) if a != b]
        (new,) = [b - a for a, b in zip(_edges(parent), _edges(child), strict=True) if a != b]
        (gone,), (new,) = gone, new
        assert (gone.operation == new.operation) != (gone.input == new.input)
        kinds.add("operation" if gone.input == new.input else "input")
        if space.keep == "best":
            assert new.operation != "none"
    # Where every node takes all there are, no input can change.
    assert kinds == ({"operation", "input"} if space is SPACE else {"operation"})


def test_none_is_an_operation_where_all_edges_are_kept() -> None:
    generator = random.Random(0)
    genotype, seen = ordered(random_genotype(ALL, 0)), set()
    for _ in range(200):
        genotype = mutated(genotype, ALL, generator)
        seen |= {edge.operation for node in genotype.normal for edge in node}
    assert seen == set(ALL.operations)


def test_both_cells_and_the_fixed_one() -> None:
    generator, parent = random.Random(0), ordered(random_genotype(SPACE, 0))
    children = [mutated(parent, SPACE, generator) for _ in range(40)]
    assert {child.normal == parent.normal for child in children} == {True, False}
    fixed = ordered(random_genotype(SPACE, 0, "fixed"))
    assert all(mutated(fixed, SPACE, generator).reduction is None for _ in range(10))


def test_the_oldest_dies_and_the_best_of_a_few_is_a_parent() -> None:
    population = Population(SPACE, False, seed=0, size=3, sample=60)
    first = [population.next() for _ in range(3)]
    for genotype, loss in zip(first, (1.0, 3.0, 2.0), strict=True):
        population.add(genotype, loss)
    # Of sixty that are drawn of three, the best is there.
    assert _distance(population.next(), first[0]) == 1
    population.add(random_genotype(SPACE, 99), 9.0)
    assert first[0] not in [genotype for genotype, _ in population.living]  # it was the best, and the oldest
    assert population.best == (first[0], 1.0)
    assert _distance(population.next(), first[2]) == 1


def _distance(one: Genotype, other: Genotype) -> int:
    return sum(len(a - b) for a, b in zip(_edges(one), _edges(other), strict=True))


def _skips(genotype: Genotype) -> float:
    """A loss: the share of edges that are no skip_connect."""
    names = [edge.operation for cell in genotype.cells.values() for node in cell for edge in node]
    return 1 - names.count("skip_connect") / len(names)


class Known:
    """Trials whose outcomes are known beforehand."""

    def __init__(self, loss) -> None:
        self.loss, self.asked, self.waiting, self.most = loss, [], 0, 0

    def submit(self, genotype, epochs):
        self.asked.append(genotype)
        self.waiting += 1
        self.most = max(self.most, self.waiting)

        class Pending:
            def result(pending):  # noqa: N805
                self.waiting -= 1
                loss = self.loss(genotype)
                return Outcome(loss, 0.5, 10, 1.0, None if math.isfinite(loss) else "it diverged")

        return Pending()


def _evolve(tmp_path, loss=_skips, seed=1, **options):
    options = {"fitness": "training", "population": 20, "sample": 5, "candidates": 200, **options}
    evolution = Evolution(**options)
    evolution.build(Task(SPACE, {"normal": 0, "reduction": 0}, seed=seed))
    evolution.journal = Journal(tmp_path / "candidates.jsonl")
    evolution.journal.begin(resume=False)
    trials = Known(loss)
    return evolution, trials, list(evolution.search(trials))


def test_it_finds_what_chance_does_not(tmp_path) -> None:
    evolution, trials, rounds = _evolve(tmp_path, population=10, candidates=400)
    drawn = min(_skips(random_genotype(SPACE, seed)) for seed in range(400))
    assert evolution.best_loss == _skips(evolution.best) < drawn - 0.2
    assert len(rounds) == 400 and rounds[-1]["best_loss"] == evolution.best_loss
    best = [line["best_loss"] for line in rounds]
    assert best == sorted(best, reverse=True)
    assert trials.most == 4  # as many are under way
    lines = [json.loads(line) for line in (tmp_path / "candidates.jsonl").read_text().splitlines()]
    assert len(lines) == len(set(trials.asked)) == rounds[-1]["different"]
    arrays = {name: np.array(array) for name, array in evolution.arrays().items()}
    config = Config().override({"search.strategy": "evolution"})
    assert evolution.genotype(arrays, config) == evolution.best


def test_one_seed_gives_one_evolution(tmp_path) -> None:
    first, second, other = (_evolve(tmp_path, seed=seed, candidates=60)[1].asked for seed in (1, 1, 2))
    assert first == second != other
    apart = _evolve(tmp_path, candidates=60, ahead=1)[1].asked
    assert apart[:20] == first[:20] and apart != first  # children are of those that are judged by then


def test_failed_trainings(tmp_path) -> None:
    def loss(genotype: Genotype) -> float:
        return math.inf if genotype.normal[0][0].operation == "skip_connect" else 1.0

    evolution, _, rounds = _evolve(tmp_path, loss, candidates=40)
    assert evolution.best_loss == 1.0 and len(rounds) == 40
    with pytest.raises(RunError, match=r"all \d+ trainings failed, the last one because it diverged"):
        _evolve(tmp_path, lambda _: math.inf, candidates=40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample": 60}, "evolution.sample: found 60; accepted are 1 to 50, as evolution.population is 50"),
        ({"population": 400}, "evolution.population: found 400; accepted are 1 to 300"),
    ],
)
def test_sizes_that_do_not_fit(changes, message) -> None:
    values = {f"evolution.{name}": value for name, value in changes.items()}
    with pytest.raises(UsageError, match=message):
        Config().override({"search.strategy": "evolution", **values})


# ---- by the weights of the supernet


def _config(**changes: object) -> Config:
    values = {
        "data.padding": 0,
        "data.flip": False,
        "search.strategy": "evolution",
        "search.epochs": 2,
        "search.batch_size": 8,
        "search.channels": 2,
        "search.cells": 1,
        "search.nodes": 1,
        "search.operations": "none,skip_connect,conv_1x1,avg_pool_3x3",
        "evolution.population": 4,
        "evolution.sample": 2,
        "evolution.candidates": 12,
    }
    return Config().override({**values, **{key.replace("__", "."): value for key, value in changes.items()}})


def _data() -> DataSet:
    generator = np.random.default_rng(0)
    labels = np.arange(48, dtype=np.int32) % 3
    images = generator.integers(0, 80, (48, 8, 8, 1)) + 80 * labels[:, None, None, None]
    split = Split(images.astype(np.uint8), labels)
    return DataSet("brightness", ("dark", "middle", "bright"), split, split, (0.4,), (0.3,))


@pytest.mark.slow
def test_killed_while_genotypes_evolve_and_resumed(tmp_path, monkeypatch) -> None:
    config, data, calls = _config(), _data(), []
    score = candidates.score

    def counted(model, genotypes, *arguments):
        calls.extend(genotypes)
        return score(model, genotypes, *arguments)

    monkeypatch.setattr(candidates, "score", counted)
    whole = Run.create(tmp_path / "whole", config)
    arrays = search(config, data, whole)
    judged = list(calls)
    assert len(set(judged)) == len(judged)  # each once
    assert len(judged) < 12 or len(judged) == 12

    def killed(model, genotypes, *arguments):
        if len(calls) == 5:
            raise KeyboardInterrupt
        return counted(model, genotypes, *arguments)

    calls.clear()
    monkeypatch.setattr(candidates, "score", killed)
    run = Run.create(tmp_path / "killed", config)
    with pytest.raises(KeyboardInterrupt):
        search(config, data, run)
    with open(run.file("search/candidates.jsonl"), "a") as file:
        file.write('{"number": 9, "geno')  # a process that is killed may leave half a line
    calls.clear()
    monkeypatch.setattr(candidates, "score", counted)
    resumed = search(config, data, run, resume=True)
    assert calls == judged[5:]  # the others are not judged again
    assert resumed.keys() == arrays.keys() == {"best_normal", "best_reduction"}
    assert all((resumed[name] == arrays[name]).all() for name in arrays)
    for name in ("candidates.jsonl", "logits.npz"):
        assert run.file(f"search/{name}").read_bytes() == whole.file(f"search/{name}").read_bytes()
    lines = [{**line, "seconds": 0} for line in run.metrics("search")]
    assert lines == [{**line, "seconds": 0} for line in whole.metrics("search")]
    assert "best_loss" in lines[1] and "best_loss" not in lines[0]
    # What is found has the smallest loss of all that were judged.
    found = [json.loads(line) for line in run.file("search/candidates.jsonl").read_text().splitlines()]
    best = min(found, key=lambda line: line["loss"])
    last = {name: array[-1] for name, array in arrays.items()}
    assert Evolution().genotype(last, config).to_text() == best["genotype"]
    assert lines[1]["best_loss"] == best["loss"]


def test_no_loss_that_is_a_number_ends_the_search(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(candidates, "score", lambda *_: [math.inf])
    config = _config(search__epochs=1)
    with pytest.raises(DivergedError, match="none of .* genotypes has a validation loss"):
        search(config, _data(), Run.create(tmp_path / "run", config))


# ---- from the command line


@pytest.mark.slow
@pytest.mark.parametrize(
    "own",
    [
        "--search-nodes 1 --search-reduction fixed",
        "--search-space nasbench201 --search-channels 2 --search-cells 1 --retrain-cells 1",
    ],
)
def test_from_the_command_line(tmp_path, monkeypatch, own) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
    np.savez("noise.npz", images=images, labels=np.arange(60) % 3)
    words = (
        "--search-strategy evolution --evolution-population 3 --evolution-sample 2 --evolution-candidates 6 "
        "--evolution-validation-images 16 --search-epochs 1 --search-channels 2 --search-batch-size 8 "
        "--retrain-epochs 1 --retrain-channels 4 --benchmark-seconds 0.02 --benchmark-rounds 1 "
        f"--data noise.npz --export-formats onnx {own}"
    )
    assert main(["run", "run", *words.split(), "--json"]) == 0
    formats = json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert Path("run/export/model.onnx").exists() and "onnx" in formats
    assert Path("run/pictures/search.png").exists()
    lines = Path("run/search/candidates.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    metrics = json.loads(Path("run/search/metrics.jsonl").read_text())
    assert metrics["best_loss"] == min(losses)


@pytest.mark.slow
def test_short_trainings_from_the_command_line(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
    np.savez("noise.npz", images=images, labels=np.arange(60) % 3)
    words = (
        "--search-strategy evolution --evolution-fitness training --evolution-population 2 "
        "--evolution-sample 1 --evolution-candidates 3 --evolution-epochs 1 --evolution-channels 2 "
        "--evolution-cells 1 --evolution-batch-size 16 --search-nodes 1 --data noise.npz"
    )
    assert main(["search", "run", *words.split(), "--json"]) == 0
    assert main(["derive", "run", "--json"]) == 0
    best = min(
        (json.loads(line) for line in Path("run/search/candidates.jsonl").read_text().splitlines()),
        key=lambda line: line["loss"],
    )
    assert Genotype.load("run/genotype.json").to_text() == best["genotype"]
    assert main(["draw", "run", "--json"]) == 0 and Path("run/pictures/search.png").exists()
