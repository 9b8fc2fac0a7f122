"""Plans: what fits into a budget, and what is said before a study starts."""

from __future__ import annotations

import pytest

from gdas_tf.durations import parse_duration
from gdas_tf.errors import UsageError
from gdas_tf.studies.built_in import built_in
from gdas_tf.studies.grid import Study
from gdas_tf.studies.plan import Costs, costs, equal_compute, fit, what_it_sees

STUDY = built_in("verdict")
COST = Costs({"search": 100.0, "random": 0.0}, {"search": 50.0, "random": 50.0}, measuring=10.0)


def timing(**search_steps: float) -> dict:
    """An outcome of the phase `timing`: a step of the search takes what is given, one of a training 0.5 s."""
    result = {
        arm: {
            "search": {"step": step, "before": 4.0, "seconds": 4.0 + 16 * step},
            "search_steps": 100,
            "search_epochs": 16,
            "retrain": {"step": 0.5, "before": 2.0, "seconds": 10.0},
            "retrain_steps": 40,
        }
        for arm, step in search_steps.items()
    }
    return {"ok": True, "seconds": 100.0, "result": result}


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90min", 5400), ("1h30min", 5400), ("600s", 600), ("1.5 h", 5400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 weeks", "-1h", "0s", "h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="budget: found .*; accepted are durations as 2h"):
        parse_duration(text)


def test_a_budget_is_used_and_not_passed() -> None:
    for jobs in (1, 2):
        planned = fit(STUDY, COST, 3600.0, jobs)
        assert COST.seconds(planned, jobs) <= 3600.0
        more = planned.model_copy(update={"random": planned.random + 1})
        assert COST.seconds(more, jobs) > 3600.0
        assert planned.random > planned.seeds  # they are cheaper
    assert fit(STUDY, COST, 3600.0, 2).seeds > fit(STUDY, COST, 3600.0, 1).seeds


def test_a_budget_that_buys_less_than_two_of_each_is_refused() -> None:
    least = COST.seconds(STUDY.model_copy(update={"seeds": 2, "random": 2}), 1)
    assert fit(STUDY, COST, least, 1).seeds == 2
    with pytest.raises(UsageError, match="less than 2 runs of each arm, which take about 7 min 20 s here"):
        fit(STUDY, COST, least - 1, 1)


def test_costs_come_from_steps() -> None:
    study = Study(name="s", arms={"a": {}, "b": {"derive.ranks": [2, 3]}})
    found = costs(study, [timing(a=0.2, b=0.2)])
    assert found.search == {"a": pytest.approx(24.0), "b": 0.0}  # 4 + 100 * 0.2; b takes the search of a
    # 100 s of the timing, of which the epochs took 2 * (7.2 + 10), for two arms; and 3 s to start.
    start = (100.0 - 2 * (4.0 + 16 * 0.2 + 10.0)) / 2 + 3.0
    assert found.training["a"] == pytest.approx(start + 2.0 + 40 * 0.5)


def test_equal_compute_gives_a_slow_search_fewer_epochs() -> None:
    study = Study(name="s", config={"search.epochs": 16}, arms={"a": {}, "b": {"search.cells": 2}})
    found = equal_compute(study, [timing(a=0.2, b=0.4)])
    assert found.arm_config("a").search.epochs == 16
    assert found.arm_config("b").search.epochs == 8


def test_what_will_be_seen_is_said() -> None:
    line = "5 searches and 10 random cells: differences of 1.7 standard deviations and more (80 % power)"
    assert what_it_sees(STUDY) == [line]
    assert all("where p is corrected for 3 comparisons" in line for line in what_it_sees(built_in("table1")))
