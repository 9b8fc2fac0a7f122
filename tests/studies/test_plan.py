"""Plans: what fits into a budget, and what is said before a study starts."""

from __future__ import annotations

import pytest

from gdas_tf.durations import parse_duration
from gdas_tf.errors import UsageError
from gdas_tf.pipeline.division import Costs, Images
from gdas_tf.studies import plan
from gdas_tf.studies.built_in import built_in
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Study
from gdas_tf.studies.plan import costs, equal_compute, fit, what_it_sees
from gdas_tf.studies.runner import run_study
from gdas_tf.training.seconds import Seconds, TrialSeconds

STUDY = built_in("verdict")
COST = plan.Costs({"search": 100.0, "random": 0.0}, {"search": 50.0, "random": 50.0}, measuring=10.0)


def timing(**search_steps: float) -> dict:
    """An outcome of the phase `timing`: a step of the search takes what is given, one of a training 0.5 s."""
    trial = TrialSeconds(to_start=2.0, before=1.0, step=0.1, judging=0.5, judged=1000)
    result = {
        arm: {
            **Costs(
                Images(training=2000, d_t=1000, d_v=1000, test=500),
                Seconds(before=2.0, step=0.5, ending=0.0, spent=8.0),
                Seconds(before=4.0, step=step, ending=0.0, spent=6.0),
                trial=trial if arm == "race" else None,
            ).to_plain(),
            "spent": 20.0,
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
    # Of 1,000 images 15 full batches of 64, for 30 epochs; b takes the search of a.
    assert found.search == {"a": pytest.approx(4.0 + 30 * 15 * 0.2), "b": 0.0}
    # 100 s of the timing, of which the stages took 2 * 20, for two arms; and 3 s to start.
    start = (100.0 - 2 * 20.0) / 2 + 3.0
    assert found.training["a"] == pytest.approx(start + 2.0 + 40 * 31 * 0.5)
    slower = costs(study, [timing(a=0.2, b=0.2), timing(a=0.4, b=0.2)])  # the mean of two processes
    assert slower.search["a"] == pytest.approx(4.0 + 30 * 15 * 0.3)


def test_equal_compute_gives_a_slow_search_fewer_epochs() -> None:
    study = Study(name="s", config={"search.epochs": 16}, arms={"a": {}, "b": {"search.cells": 2}})
    found = equal_compute(study, [timing(a=0.2, b=0.4)])
    assert found.arm_config("a").search.epochs == 16
    assert found.arm_config("b").search.epochs == 8


def test_equal_compute_gives_a_race_as_many_candidates_as_the_time_buys() -> None:
    arms = {"a": {}, "race": {"search.strategy": "race"}}
    study = Study(name="s", config={"search.epochs": 16}, arms=arms)
    timings = [timing(a=0.2, race=0.2)]
    whole = costs(study, timings).search
    found = equal_compute(study, timings)
    race = found.arm_config("race")
    assert race.strategy != study.arm_config("race").strategy
    assert race.retrain == study.arm_config("race").retrain
    assert 0.6 * whole["a"] < costs(found, timings).search["race"] <= whole["a"]
    assert found.arm_config("a") == study.arm_config("a")


@pytest.mark.parametrize("unknown", ["a", "b"])
def test_a_search_that_cannot_be_told_is_no_measure_and_stays(
    unknown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(name="s", config={"search.epochs": 16}, arms={"a": {}, "b": {"search.cells": 2}})
    cells = study.arm_config(unknown).search.cells
    monkeypatch.setattr(plan, "cannot_tell", lambda config: config.search.cells == cells)
    assert equal_compute(study, [timing(a=0.2, b=0.4)]) == study


def test_a_first_search_that_takes_no_time_is_no_measure() -> None:
    arms = {"a": {"search.strategy": "random"}, "b": {}}
    study = Study(name="s", config={"search.epochs": 16}, arms=arms)
    found = timing(a=0.2, b=0.4)
    found["result"]["a"]["search"] = None
    assert equal_compute(study, [found]) == study


def test_what_will_be_seen_is_said() -> None:
    line = "5 searches and 10 random cells: differences of 1.8 standard deviations and more (80 % power)"
    assert what_it_sees(STUDY) == [line]
    assert all("where p is corrected for 3 comparisons" in line for line in what_it_sees(built_in("table1")))


def test_pairs_of_one_search_are_planned_as_pairs() -> None:
    lines = what_it_sees(built_in("table3").model_copy(update={"seeds": 4, "random": 4}))
    paired = "4 pairs of runs of one search: differences of 2.1 standard deviations of a pair's difference"
    assert [line.startswith(paired) for line in lines] == [False, True, False]
    assert "pairs" not in "".join(what_it_sees(built_in("sampling")))


def test_cells_that_are_trained_again_are_planned() -> None:
    line = (
        "16 random cells, 2 trainings each: that they differ, where 57 % of the variance and more are the "
        "cell's (80 % power)"
    )
    assert what_it_sees(built_in("noise")) == [line]


def test_asking_about_more_runs_of_a_planned_study_adds_none(tmp_path) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.begin(STUDY)
    folder.write_plan({"lines": ["planned"], "seeds": STUDY.seeds})
    described = folder.described_by().read_bytes()
    more = STUDY.model_copy(update={"seeds": 40})
    found = run_study(folder.path, more, only_plan=True)["plan"]["lines"]
    assert found[1].startswith("40 searches and 10 random cells: differences of")
    assert folder.described_by().read_bytes() == described and folder.plan()["lines"] == ["planned"]
    other = STUDY.model_copy(update={"config": {"search.epochs": 3}})
    with pytest.raises(UsageError, match="it is another study"):
        run_study(folder.path, other, only_plan=True)


@pytest.mark.parametrize("damaged", ["[]", "{", "3"])
def test_a_damaged_plan_is_named(tmp_path, damaged: str) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.begin(STUDY)
    path = folder.path / "plan.json"
    path.write_text(damaged)
    with pytest.raises(UsageError, match=r"study file .*plan.json: (found|not JSON)"):
        run_study(folder.path, STUDY, only_plan=True)
    assert path.read_text() == damaged
