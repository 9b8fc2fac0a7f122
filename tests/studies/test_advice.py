"""What a report advises: a network by the validation parts, and what to ask next."""

from __future__ import annotations

import pytest

from gdas_tf.studies.advice import advice, chosen
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Study

STUDY = Study(name="one", arms={"search": {}, "random": {"cells": "random"}})
RUNS = [
    {"name": "search-1", "arm": "search", "val_loss": 0.3, "accuracy": 91.0},
    {"name": "random-1", "arm": "random", "val_loss": 0.2, "accuracy": 90.0},
    {"name": "random-2", "arm": "random", "val_loss": 0.4, "accuracy": 95.0},
]


def advised(study: Study = STUDY, **found: object) -> list[str]:
    result = {"chosen": None, "comparisons": [], "against_best": [], "repeats": [], "runs": RUNS, **found}
    return advice(StudyFolder("out"), study, result)


def compared(p: float, difference: float, first: str = "search", second: str = "random") -> dict:
    return {"first": first, "second": second, "p": p, "difference": difference}


def hard(low: float, draws: int) -> dict:
    return {"first": "search", "second": "random", "interval": [low, 9.0], "draws": draws}


def repeated(p: float) -> dict:
    return {"arm": "random", "p": p, "cell": 2.0, "share": 0.64, "interval": (0.16, 0.81)}


def test_the_network_to_take_is_chosen_by_the_validation_part_and_not_by_test_images() -> None:
    best = chosen(RUNS)
    assert best == {"name": "random-1", "val_loss": 0.2, "accuracy": 90.0, "of": 3}
    (line,) = advised(chosen=best)
    assert "out/runs/random-1: of all 3 " in line and "90.00 %" in line


def test_without_a_validation_part_no_network_is_chosen() -> None:
    assert chosen([*RUNS, {"name": "search-2", "val_loss": None, "accuracy": 99.0}]) is None
    assert advised() == []


def test_after_no_evidence_comes_the_question_whether_there_is_anything_to_find() -> None:
    (line,) = advised(comparisons=[compared(0.3, 1.0)], against_best=[hard(-1.0, 3)])
    assert "the study noise" in line and "out/runs/random-1/config.yaml" in line
    other = Study(name="two", arms={"a": {}, "b": {}}, questions=[("a", "b")])
    assert advised(other, comparisons=[compared(0.3, 1.0, "a", "b")]) == []


@pytest.mark.parametrize(
    "difference, low, draws, advises",
    [(1.0, -0.5, 3, True), (1.0, 0.5, 3, False), (1.0, -0.5, 1, False), (-1.0, -0.5, 3, False)],
)
def test_a_race_is_advised_where_only_the_mean_random_cell_was_beaten(
    difference: float, low: float, draws: int, advises: bool
) -> None:
    lines = advised(comparisons=[compared(0.01, difference)], against_best=[hard(low, draws)])
    assert len(lines) == advises
    if advises:
        epochs = STUDY.base().retrain.epochs
        assert f"race with race.candidates random:3 and race.epochs {epochs}." in lines[0]


def test_no_race_is_advised_after_a_race() -> None:
    arms = {"search": {"search.strategy": "race"}, "random": {"cells": "random"}}
    found = {"comparisons": [compared(0.01, 1.0)], "against_best": [hard(-0.5, 3)]}
    assert advised(Study(name="race", arms=arms), **found) == []


def test_after_noise_cells_are_chosen_where_they_differ() -> None:
    (line,) = advised(repeats=[repeated(0.01)])
    # The expected best of eight standard normal values is 1.4236; 1.4236 * 2.0 * 0.8.
    assert "2.28 points above the mean" in line and "race.candidates random:8" in line
    assert "at least 0.57 by that interval" in line  # a quarter of it, as 0.16 is of 0.64
    (line,) = advised(repeats=[repeated(0.2)])
    assert "search.strategy random" in line
