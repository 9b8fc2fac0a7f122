"""Which random cell is the best one: the validation part says it, never the test images."""

from __future__ import annotations

import pytest

from gdas_tf.studies.analysis import _hard, incumbents
from gdas_tf.studies.grid import Study
from gdas_tf.studies.sentences import not_asked

STUDY = Study(name="one", arms={"search": {}, "random": {"cells": "random"}})


def run(arm: str, accuracy: float, val_loss: float | None, search: float = 0.0) -> dict:
    return {
        "arm": arm,
        "accuracy": accuracy,
        "val_loss": val_loss,
        "search_seconds": search,
        "training_seconds": 10.0,
    }


def by_arm(*val_losses: float | None) -> dict[str, list[dict]]:
    """Two searches as long as two trainings, and three random cells, the first the worst on test images."""
    return {
        "search": [run("search", 80.0, 0.5, search=20.0), run("search", 82.0, 0.4, search=20.0)],
        "random": [
            run("random", accuracy, loss)
            for accuracy, loss in zip((70.0, 75.0, 79.0), val_losses, strict=True)
        ],
    }


@pytest.mark.parametrize(
    "val_losses, best", [((0.3, 0.2, 0.1), 79.0), ((0.1, 0.2, 0.3), 70.0), ((0.3, 0.1, 0.2), 75.0)]
)
def test_the_best_random_cell_is_chosen_by_the_validation_loss(val_losses, best: float) -> None:
    found = _hard(STUDY, by_arm(*val_losses))[0]
    assert found["draws"] == 3  # a search and its training take as long as three trainings
    assert found["difference"] == pytest.approx(81.0 - best)
    assert found["interval"][0] < found["difference"] < found["interval"][1]


def test_the_incumbent_is_the_one_of_the_least_validation_loss() -> None:
    runs = by_arm(0.1, 0.2, 0.3)
    arms = [
        {"name": name, "search_seconds": 0.0, "training_seconds": 10.0 * (number + 1)}
        for number, name in enumerate(runs)
    ]
    curves = incumbents({"arms": arms, "runs": [one for found in runs.values() for one in found]})
    assert curves["search"] == [(10.0, pytest.approx(81.0)), (20.0, pytest.approx(82.0))]
    # The mean of all; two of three, of whom the first is among two times out of three; the first.
    expected = [224 / 3, (70.0 + 70.0 + 75.0) / 3, 70.0]
    assert curves["random"] == [(20.0 * (n + 1), pytest.approx(value)) for n, value in enumerate(expected)]


def test_without_a_validation_part_the_question_is_not_asked() -> None:
    assert _hard(STUDY, by_arm(None, None, None)) == []
    assert "retrain.validation" in not_asked(STUDY)
    assert not_asked(Study(name="one", arms={"a": {}, "b": {}})) is None
