"""Robust: a supernet proposes, a race with random cells decides; killed in the race, it ends the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidate_searches import assert_same_outcome, data, searched

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.strategies.robust import Robust
from gdas_tf.training.search import search
from gdas_tf.training.trials import Outcome, Trials

OWN: dict[str, Any] = {
    "search.strategy": "robust",
    "search.nodes": 2,
    "search.operations": "none,skip_connect,conv_1x1,avg_pool_3x3",
    "search.reduction": "fixed",
    "robust.population": 4,
    "robust.sample": 2,
    "robust.candidates": 8,
    "robust.finalists": 3,
    "robust.random": 2,
    "robust.generations": 1,
    "robust.children": 2,
    "robust.parents": 1,
    "robust.epochs": (1, 2),
    "robust.channels": 4,
    "robust.cells": 1,
    "robust.batch_size": 16,
}


def _lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.file("search/candidates.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return searched(tmp_path_factory.mktemp("whole") / "run", OWN)


def test_the_best_by_the_supernet_and_random_cells_race(whole: Run) -> None:
    judged = [line for line in _lines(whole) if "number" in line]
    drawn = [line for line in judged if line["number"] <= 4]
    sizes = [math.log(line["weights"]) for line in drawn]
    exchange = np.std([line["loss"] for line in drawn]) / np.std(sizes)
    scores = {line["genotype"]: line["loss"] - exchange * math.log(line["weights"]) for line in judged}
    first = [line for line in _lines(whole) if line.get("round") == 1]
    last = [line for line in _lines(whole) if line.get("round") == 2]
    best, losses = [], []
    for line in sorted(judged, key=lambda line: (scores[line["genotype"]], line["number"])):
        if line["loss"] not in losses:  # else it computes the same as one that is there
            best.append(line["genotype"])
            losses.append(line["loss"])
    proposed = {line["genotype"] for line in first if line["candidate"].startswith("supernet")}
    assert proposed == set(best[:3])
    assert any(line["random"] for line in last) and len(last) < len(first) == 7
    config = whole.config
    with np.load(whole.file("search/logits.npz")) as arrays:
        found = Robust.from_config(config).genotype({name: arrays[name][-1] for name in arrays.files}, config)
    winner = last[0]  # lines are in the order of their scores
    assert found.to_text() == Genotype.from_text(winner["genotype"]).to_text()
    assert whole.finished("search") and len(whole.metrics("search")) == 4
    assert whole.metrics("search")[-1]["best_loss"] == winner["loss"]


@pytest.mark.slow
def test_killed_in_the_race_and_resumed(whole: Run, tmp_path: Path, monkeypatch) -> None:
    run = Run.create(tmp_path / "run", whole.config)
    submit, count = Trials.submit, []

    def killed(self: Trials, *arguments: Any) -> Any:
        if len(count) == 6:  # one of the second rung
            raise KeyboardInterrupt
        count.append(submit(self, *arguments))
        count[-1].result()
        return count[-1]

    monkeypatch.setattr(Trials, "submit", killed)
    with pytest.raises(KeyboardInterrupt):
        search(run.config, data(), run)
    assert not run.finished("search")
    monkeypatch.setattr(Trials, "submit", submit)
    search(run.config, data(), run, resume=True)
    assert_same_outcome(whole, run)


def test_children_are_the_best_so_far_changed_in_one_place(whole: Run) -> None:
    first = [line for line in _lines(whole) if line.get("round") == 1]
    children = [line for line in first if line["candidate"].startswith("child")]
    others = [line for line in first if line not in children]  # in the order of their scores
    assert len(children) == 2

    def edges(line: dict[str, Any]) -> list[tuple[int, str, int]]:
        cell = Genotype.from_text(line["genotype"]).normal
        return [(number, edge.operation, edge.input) for number, node in enumerate(cell) for edge in node]

    # Which of the others was the best before the children came is told by the losses and sizes alone.
    before = Robust()._compared([Outcome(x["loss"], 0.5, x["parameters"], 1.0) for x in others])
    parent = edges(others[int(np.argmin(before))])
    for child in map(edges, children):
        assert sum(one not in parent for one in child) == 1


def test_of_two_that_are_as_good_the_larger_one_wins() -> None:
    def outcomes(*found: tuple[float, int]) -> list[Outcome]:
        return [Outcome(loss, 0.5, parameters, 1.0) for loss, parameters in found]

    small, large, worse = (1.0, 1000), (1.02, 4000), (1.6, 2000)
    by_size, by_loss = Robust(), Robust(capacity=0.0)
    scores = by_size._compared(outcomes(small, large, worse))
    assert scores[1] < scores[0] < scores[2]
    assert by_loss._compared(outcomes(small, large, worse)) == [1.0, 1.02, 1.6]
    # The weight of both is the same: one standard deviation of the one is one of the other.
    (first, second) = by_size._compared(outcomes((1.0, 1000), (2.0, 8000)))
    assert first == pytest.approx(second)
    failed = by_size._compared(outcomes(small, (math.inf, 5000), large, worse))
    assert failed[1] == math.inf and [failed[0], *failed[2:]] == scores


def test_the_rest_is_as_of_any_search(whole: Run) -> None:
    assert main(["derive", str(whole.path)]) == 0 and main(["draw", str(whole.path)]) == 0
    assert Genotype.load(whole.file("genotype.json")).reduction is None
    assert whole.file("pictures/race.png").exists() and whole.file("pictures/search.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"robust.epochs": (3, 2)}, "robust.epochs: found 3,2; each rung has more epochs"),
        ({"robust.population": 9}, "robust.population: found 9; accepted are 1 to 8, as robust.candidates"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config().override({**OWN, **changes})
