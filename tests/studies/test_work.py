"""What the processes of a study find out of a configuration."""

from __future__ import annotations

import pytest

from gdas_tf.config.config import Config
from gdas_tf.studies.work import can_be_timed


@pytest.mark.parametrize(
    ("changes", "timed"),
    [
        ({}, True),
        ({"search.strategy": "enas"}, True),
        ({"search.strategy": "random"}, False),  # a single cell, which is drawn
        ({"search.strategy": "random", "random.candidates": 4}, True),
        ({"search.strategy": "evolution"}, True),
        ({"search.strategy": "evolution", "evolution.fitness": "training"}, False),
        ({"search.strategy": "race"}, False),
        ({"search.strategy": "robust"}, False),  # trainings follow the supernet
    ],
    ids=str,
)
def test_searches_of_equal_steps_are_timed(changes: dict, timed: bool) -> None:
    assert can_be_timed(Config().override(changes)) is timed
