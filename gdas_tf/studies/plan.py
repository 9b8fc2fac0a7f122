"""What a study will take and what it will be able to see, said before it starts."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gdas_tf.config.config import Config, differences
from gdas_tf.durations import duration
from gdas_tf.errors import UsageError
from gdas_tf.pipeline import division
from gdas_tf.pipeline.division import cannot_tell, search_within, seconds_of_search, steps_of_retraining
from gdas_tf.studies.grid import FEWEST, Arm, Study, cells, search_key, shares_search
from gdas_tf.studies.repeats import seen_share
from gdas_tf.studies.statistics import ALPHA, POWER, detectable

_MOST = 100  # runs of an arm that a budget buys at most
_START = 3.0  # seconds of a process before its first line
_MEASURE = 4.0  # seconds to evaluate and export a network, beside what building its graph takes


@dataclasses.dataclass(frozen=True)
class Costs:
    """What the runs of a study take.

    Attributes:
        search: seconds of the search of an arm, 0 where it takes that of another arm or has none.
        training: seconds of everything else of a run, by arm.
        measuring: seconds to evaluate and export one network.
        unknown: arms whose search could not be timed.
    """

    search: Mapping[str, float]
    training: Mapping[str, float]
    measuring: float
    unknown: tuple[str, ...] = ()

    def seconds(self, study: Study, jobs: int) -> float:
        """Returns how long a study takes with some processes side by side."""
        each = {arm: self.search[arm] + self.training[arm] + self.measuring for arm in study.arms}
        total = sum(study.runs(arm) * cost for arm, cost in each.items())
        # In the end some processes wait for the last run.
        return total / jobs + (max(each.values()) / 2 if jobs > 1 else 0.0)


def costs(study: Study, timings: Sequence[Mapping[str, Any]]) -> Costs:
    """Returns the costs of the runs, by what short timings found.

    Args:
        study: the study.
        timings: outcomes of the phase `timing` of `gdas_tf.studies.work`, of as many processes side by side
            as there will be.
    """
    search, training, unknown, graphs = {}, {}, [], []
    owned = {cell.arm: cell.search_of is None for cell in cells(study) if cell.number == 1}
    # What a timing took beside its stages: starting TensorFlow, and loading the data.
    start = sum(map(_beside, timings)) / len(timings) + _START
    for arm in study.arms:
        config = study.arm_config(arm)
        found = _timed(timings, arm)
        steps = steps_of_retraining(config, found.images)
        graphs.append(found.retrain.before)
        training[arm] = start + found.retrain.before + found.retrain.epochs(config.retrain.epochs, steps)
        search[arm] = 0.0
        if study.arms[arm].cells == "searched" and owned[arm]:
            search[arm] = seconds_of_search(config, found)
            if cannot_tell(config):
                unknown.append(arm)
    return Costs(search, training, _MEASURE + max(graphs), tuple(unknown))


def _timed(timings: Sequence[Mapping[str, Any]], arm: str) -> division.Costs:
    """What was timed of an arm, the mean of all processes."""
    each = [timing["result"][arm] for timing in timings]
    mean = {
        name: None
        if value is None
        else list(map(statistics.fmean, zip(*(one[name] for one in each), strict=True)))
        for name, value in each[0].items()
        if name != "spent"
    }
    return division.Costs.from_plain({**mean, "images": each[0]["images"]})


def _beside(timing: Mapping[str, Any]) -> float:
    found = timing["result"].values()
    return max(timing["seconds"] - sum(one["spent"] for one in found), 0.0) / len(found)


def fit(study: Study, cost: Costs, budget: float, jobs: int) -> Study:
    """Returns the study with as many runs as a budget buys, so divided that the smallest difference is seen.

    Raises:
        UsageError: it does not buy two runs of each arm.
    """
    least = study.model_copy(update={"seeds": FEWEST, "random": FEWEST})
    if cost.seconds(least, jobs) > budget:
        raise UsageError(
            f"budget: {duration(budget)} buy less than {FEWEST} runs of each arm, which take about "
            f"{duration(cost.seconds(least, jobs))} here; raise the budget, or make the runs smaller "
            "(search.epochs, retrain.epochs, retrain.channels, data.image_size)"
        )
    searched, random = bool(study.searched()), len(study.searched()) < len(study.arms)
    best = least
    for seeds in range(FEWEST, _MOST + 1) if searched else (study.seeds,):
        for draws in range(FEWEST, _MOST + 1) if random else (study.random,):
            tried = study.model_copy(update={"seeds": seeds, "random": draws})
            if cost.seconds(tried, jobs) > budget:
                break
            if _information(tried, searched, random) > _information(best, searched, random):
                best = tried
    return best


def _information(study: Study, searched: bool, random: bool) -> float:
    """What the width of a comparison's interval goes with: 1 / (1/n1 + 1/n2)."""
    if not (searched and random):
        return float(study.seeds if searched else study.random)
    return study.seeds * study.random / (study.seeds + study.random)


def equal_compute(study: Study, timings: Sequence[Mapping[str, Any]]) -> Study:
    """Returns the study with searches that all take as long as that of the first arm, or a little less.

    Epochs of the supernet, candidates and their short trainings are scaled together
    (`gdas_tf.pipeline.division.search_within`). A strategy that does not say how many candidates it trains
    stays as it is; where the first one does not, or searches for no time at all, all do.
    """
    first, *others = study.searched()
    whole = seconds_of_search(study.arm_config(first), _timed(timings, first))
    if not whole or cannot_tell(study.arm_config(first)):
        return study
    arms: dict[str, Arm] = dict(study.arms)
    for arm in others:
        config = study.arm_config(arm)
        if cannot_tell(config):
            continue
        chosen = search_within(config, _timed(timings, arm), whole)
        changed = {name: now for name, _, now in differences(config.to_dict(), chosen.to_dict())}
        arms[arm] = arms[arm].model_copy(update={"changes": {**arms[arm].changes, **changed}})
    return study.model_copy(update={"arms": arms})


def what_it_sees(study: Study) -> list[str]:
    """Returns what the comparisons of a study will be able to see, a line for each kind of pair."""
    pairs = study.pairs()
    lines: dict[str, None] = {}
    for first, second in pairs:
        n1, n2 = study.runs(first), study.runs(second)
        paired = shares_search(study, first, second)
        if paired:
            line = f"{n1} pairs of runs of one search: differences of "
            unit = "standard deviations of a pair's difference and more"
        else:
            line = f"{_number(study, first)} and {_number(study, second)}: differences of "
            unit = "standard deviations and more"
        line += f"{detectable(n1, n2, paired=paired):.1f} {unit} ({100 * POWER:.0f} % power)"
        if len(pairs) > 1:
            strict = detectable(n1, n2, alpha=ALPHA / len(pairs), paired=paired)
            line += f"; {strict:.1f} where p is corrected for {len(pairs)} comparisons"
        lines[line] = None
    for base, others in study.repeated().items():
        trainings = 1 + len(others)
        lines[
            f"{study.runs(base)} random cells, {trainings} trainings each: that they differ, where "
            f"{100 * seen_share(study.runs(base), trainings):.0f} % of the variance and more are the cell's "
            f"({100 * POWER:.0f} % power)"
        ] = None
    return list(lines)


def _number(study: Study, arm: str) -> str:
    if study.arms[arm].cells == "random":
        return f"{study.random} random cells"
    return f"{study.seeds} searches"


def searches(study: Study) -> int:
    """Returns the number of searches that a study does."""
    keys = {search_key(study.arm_config(arm)) for arm in study.searched()}
    return len(keys) * study.seeds


def describe(study: Study, config: Config, jobs: int, cost: Costs | None) -> list[str]:
    """Returns what is said before a study starts."""
    count = len(cells(study))
    line = f"study {study.name}: {searches(study)} searches and {count} trainings on {config.data.name}"
    line += f", {jobs} at a time" * (jobs > 1)
    if cost is not None:
        line += f"; about {duration(cost.seconds(study, jobs))}"
    lines = [line, *what_it_sees(study)]
    if cost is not None and cost.unknown:
        lines.append(f"the search of {', '.join(cost.unknown)} could not be timed, and is not in that time")
    return lines
