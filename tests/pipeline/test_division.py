"""A budget is divided in the proportions of the configuration, used, and not passed."""

from __future__ import annotations

import json
import re

import pytest

from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.pipeline.division import (
    CAUTION,
    Costs,
    Images,
    divide,
    epochs_within,
    search_within,
    seconds_of,
    seconds_of_rounds,
    seconds_of_search,
)
from gdas_tf.training.seconds import Seconds, TrialSeconds

IMAGES = Images(training=2000, d_t=1000, d_v=1000, test=500)
SEARCH = Seconds(before=10.0, step=0.1, ending=0.2, spent=14.0)
RETRAIN = Seconds(before=5.0, step=0.2, ending=0.1, spent=8.0)
TRIAL = TrialSeconds(to_start=5.0, before=4.0, step=0.1, judging=1.0, judged=1000)
SMALL = Config.preset("quick").override(
    {"benchmark.seconds": 1.0}
)  # 30 epochs of the search, 40 of the retraining
COSTS = Costs(IMAGES, RETRAIN, SEARCH)


def robust(**own: object) -> Config:
    return SMALL.override(
        {"search.strategy": "robust", **{f"robust.{name}": value for name, value in own.items()}}
    )


def total(config: Config, costs: Costs) -> float:
    return sum(seconds_of(config, costs).values())


def test_seconds_come_from_steps_and_epochs() -> None:
    found = seconds_of(SMALL, COSTS)
    assert found["search"] == pytest.approx(10 + 30 * (15 * 0.1 + 0.2))  # 1000 images in full batches of 64
    assert found["retrain"] == pytest.approx(8 + 5 + 40 * (31 * 0.2 + 0.1))
    assert found["trials"] == 0
    assert found["rest"] == pytest.approx(3.0 + 1500 / 64 * 0.2 / 3 + 4 * 5)


@pytest.mark.parametrize("budget", [150.0, 400.0, 3000.0])
def test_a_budget_is_used_and_not_passed(budget: float) -> None:
    for config, costs in (
        (SMALL, COSTS),
        (robust(), COSTS._replace(judging=(2.0, 0.001), trial=TRIAL)),
        (SMALL.override({"search.strategy": "race"}), Costs(IMAGES, RETRAIN, trial=TRIAL)),
        (SMALL.override({"search.strategy": "random"}), Costs(IMAGES, RETRAIN)),
    ):
        found = divide(config, costs, 20.0, budget, ())
        takes, left = total(found, costs), (budget - 20) * CAUTION
        assert takes <= left
        most = found.retrain.epochs == 600
        assert most or left - takes <= RETRAIN.epochs(1, 31)  # less than one more epoch is left over
        assert found.search.epochs == config.search.epochs or costs.search


def test_stages_keep_their_proportions() -> None:
    half = divide(SMALL, COSTS, 0.0, total(SMALL, COSTS) * 0.6, ())
    assert half.search.epochs / 30 == pytest.approx(half.retrain.epochs / 40, abs=0.05)
    assert half.search.epochs < 20
    warmed = SMALL.override({"search.warm_up": 10})
    less = divide(warmed, COSTS, 0.0, total(warmed, COSTS) * 0.6, ())
    assert less.search.warm_up == less.search.epochs // 3 < 10


def test_much_time_is_not_all_used() -> None:
    found = divide(SMALL, COSTS, 0.0, 1e6, ())
    assert (found.search.epochs, found.retrain.epochs) == (250, 600)  # the paper's


def test_what_the_user_gave_is_kept_and_the_rest_is_divided() -> None:
    found = divide(SMALL, COSTS, 20.0, 350.0, ["search.epochs"])
    assert found.search.epochs == 30 and found.retrain.epochs < 40
    found = divide(SMALL, COSTS, 20.0, 350.0, ["retrain.epochs"])
    assert found.retrain.epochs == 40 and found.search.epochs < 30
    costs = COSTS._replace(judging=(2.0, 0.001), trial=TRIAL)
    config = robust(finalists=5, population=50)
    found = divide(config, costs, 20.0, 400.0, ["robust.finalists", "robust.population"])
    assert found.strategy.finalists == 5 and found.strategy.population == 50
    assert found.search.epochs < 30


def test_candidates_and_their_trainings_grow_together() -> None:
    costs = COSTS._replace(judging=(2.0, 0.001), trial=TRIAL)
    sizes = []
    for budget in (250.0, 700.0, 4000.0):
        found = divide(robust(), costs, 20.0, budget, ())
        own = found.strategy
        assert list(own.epochs) == sorted(set(own.epochs))
        sizes.append((own.finalists, own.random, own.epochs, own.candidates))
    assert sizes == sorted(sizes) and sizes[0] != sizes[-1]
    # 12 of 2 epochs and no children, the best third and the best random cell of 6.
    rounds = seconds_of_rounds(robust(generations=0), costs)
    assert rounds == [pytest.approx(12 * (4 + 2 * 15 * 0.1 + 1)), pytest.approx(5 * (4 + 6 * 15 * 0.1 + 1))]
    race = SMALL.override({"search.strategy": "race", "race.candidates": ("GDAS_V1", "random:8")})
    found = divide(race, Costs(IMAGES, RETRAIN, trial=TRIAL), 20.0, 250.0, ())
    assert found.strategy.candidates[0] == "GDAS_V1" and found.strategy.candidates[1] != "random:8"


def test_less_than_an_epoch_of_each_stage_is_refused_with_the_least_that_would_do() -> None:
    with pytest.raises(UsageError, match="budget: 50 s buy less than one epoch of each stage") as caught:
        divide(SMALL, COSTS, 20.0, 50.0, ())
    minutes, seconds = map(int, re.search(r"takes about (\d+) min (\d+) s", str(caught.value)).groups())
    found = divide(SMALL, COSTS, 20.0, minutes * 60.0 + seconds, ())
    assert found.search.epochs >= 1 and found.retrain.epochs >= 1


def test_the_epochs_of_a_retraining_fit_into_what_is_left() -> None:
    epochs = epochs_within(SMALL, RETRAIN, IMAGES, 100.0)
    assert (
        RETRAIN.before + RETRAIN.epochs(epochs, 31)
        <= 100
        < 7 + RETRAIN.before + RETRAIN.epochs(epochs + 1, 31)
    )
    assert epochs_within(SMALL, RETRAIN, IMAGES, -5.0) == 1  # there is always a network


@pytest.mark.parametrize("strategy", ["gdas", "evolution", "race", "robust"])
@pytest.mark.parametrize("seconds", [100.0, 150.0, 1000.0])
def test_a_search_within_some_seconds_uses_them_and_leaves_the_retraining(
    strategy: str, seconds: float
) -> None:
    config = SMALL.override({"search.strategy": strategy})
    costs = Costs(IMAGES, RETRAIN, SEARCH if strategy != "race" else None)
    if strategy in ("race", "robust"):
        costs = costs._replace(trial=TRIAL)
    found = search_within(config, costs, seconds)
    assert 0.6 * min(seconds, 10 + 250 * 1.7) < seconds_of_search(found, costs) <= seconds
    assert found.retrain == config.retrain


def test_costs_are_read_as_they_were_written() -> None:
    for costs in (COSTS, Costs(IMAGES, RETRAIN, None, (2.0, 0.1), TRIAL)):
        assert Costs.from_plain(json.loads(json.dumps(costs.to_plain()))) == costs
