"""Published figures stand beside the arms that do the same, and beside no others."""

from __future__ import annotations

import pytest

from gdas_tf.studies.built_in import built_in
from gdas_tf.studies.grid import Study
from gdas_tf.studies.published import beside_published

PUBLISHED_SIZE = {"retrain.validation": 0.0}


def runs_of(study: Study, images: int = 50_000, size: int = 32) -> dict[str, list[dict]]:
    """Two runs of each arm, with errors of 4 and 5 % of the first, 6 and 7 % of the second, and so on."""
    run = {"data": "cifar10", "training_images": images, "image_shape": [size, size, 3]}
    return {
        arm: [{**run, "accuracy": 96.0 - 2 * number}, {**run, "accuracy": 95.0 - 2 * number}]
        for number, arm in enumerate(study.arms)
    }


def study_of(arms: dict[str, dict], **config: object) -> Study:
    return Study(name="one", preset="paper", config={**PUBLISHED_SIZE, **config}, arms=arms)


def beside(study: Study, **found: int) -> dict[str, dict]:
    """The published rows that have a figure of ours, by their names."""
    rows = beside_published(study, runs_of(study, **found))["rows"]
    return {row["method"]: row["ours"] for row in rows if row["ours"] is not None}


def test_arms_of_the_published_size_stand_beside_their_rows() -> None:
    study = study_of(
        {
            "frc": {"search.reduction": "fixed"},
            "ranks 3,4": {"search.reduction": "fixed", "derive.ranks": [3, 4]},
            "random": {"cells": "random", "search.reduction": "fixed"},
        }
    )
    assert beside(study) == {
        "GDAS (FRC) + CutOut": {"arm": "frc", "error": pytest.approx(4.5)},
        "GDAS (FRC), own search, ranks 1 and 2": {"arm": "frc", "error": pytest.approx(4.5)},
        "GDAS (FRC), ranks 3 and 4": {"arm": "ranks 3,4", "error": pytest.approx(6.5)},
        "random normal cell, FRC": {"arm": "random", "error": pytest.approx(8.5)},
    }


def test_an_arm_that_trains_the_same_cells_again_does_not_stand_in_for_them() -> None:
    study = study_of({"random": {"cells": "random"}, "again": {"cells": "random", "same_as": "random"}})
    assert beside(study) == {
        "random normal and reduction cell": {"arm": "random", "error": pytest.approx(4.5)}
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"search.strategy": "darts"},
        {"search.space": "nasbench201"},
        {"retrain.channels": 16},
        {"derive.ranks": [2, 3]},
    ],
)
def test_what_was_not_published_stands_beside_nothing(changes: dict) -> None:
    other = {"other": changes, "random": {"cells": "random", "retrain.cutout": 0}}
    assert beside(study_of(other)) == {}
    assert set(beside(study_of({**other, "gdas": {}}))) == {
        "GDAS + CutOut",
        "GDAS + CutOut, own search",
    }


def test_other_data_and_sizes_are_not_comparable_and_say_why() -> None:
    study = study_of({"search": {}, "random": {"cells": "random"}}, **{"retrain.epochs": 100})
    found = beside_published(study, runs_of(study, images=4000, size=16))
    assert not found["comparable"]
    assert all(row["ours"] is None for row in found["rows"])
    assert found["because"] == [
        "there are 4,000 training images",
        "the images have 16x16 pixels",
        "retrain.epochs is 100",
    ]


def test_the_table_of_the_publication_finds_all_its_rows() -> None:
    study = built_in("table1").model_copy(update={"preset": "paper", "config": PUBLISHED_SIZE})
    assert {ours["arm"] for ours in beside(study).values()} == set(study.arms)
