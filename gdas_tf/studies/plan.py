"""What a study will take and what it will be able to see, said before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gdas_tf.config.config import Config
from gdas_tf.durations import duration
from gdas_tf.errors import UsageError
from gdas_tf.studies.grid import FEWEST, Arm, Study, cells, search_key
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
    for arm in study.arms:
        found = [timing["result"][arm] for timing in timings]
        # What a timing took beside its epochs: starting TensorFlow, loading the data, building the graph.
        start = sum(map(_beside, timings)) / len(timings) + _START
        retrain = sum(_stage(one, "retrain") for one in found) / len(found)
        graphs.append(sum(one["retrain"]["before"] for one in found) / len(found))
        training[arm] = start + retrain
        search[arm] = 0.0
        if study.arms[arm].cells == "searched" and owned[arm]:
            if "search" in found[0]:
                search[arm] = sum(_stage(one, "search") for one in found) / len(found)
            else:
                unknown.append(arm)
    return Costs(search, training, _MEASURE + max(graphs), tuple(unknown))


def _stage(found: Mapping[str, Any], stage: str) -> float:
    return found[stage]["before"] + found[stage]["step"] * found[f"{stage}_steps"]


def _beside(timing: Mapping[str, Any]) -> float:
    epochs = [
        found[stage]["seconds"]
        for found in timing["result"].values()
        for stage in ("search", "retrain")
        if stage in found
    ]
    return max(timing["seconds"] - sum(epochs), 0.0) / len(timing["result"])


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
    """Returns the study with as many epochs for each search as take as long as that of the first arm."""
    names = study.searched()

    def mean(arm: str, *path: str) -> float | None:
        values = []
        for timing in timings:
            value: Any = timing["result"][arm]
            for name in path:
                value = value.get(name) if value is not None else None
            values.append(value)
        return None if None in values else sum(values) / len(values)

    reference = mean(names[0], "search", "step")
    if reference is None:
        return study
    whole = mean(names[0], "search", "before") + reference * mean(names[0], "search_steps")
    arms: dict[str, Arm] = dict(study.arms)
    for arm in names[1:]:
        step = mean(arm, "search", "step")
        if step is None:
            continue
        epochs = study.arm_config(arm).search.epochs
        of_epoch = step * mean(arm, "search_steps") / epochs
        wanted = max(1, round((whole - mean(arm, "search", "before")) / of_epoch))
        arms[arm] = study.arms[arm].model_copy(
            update={"changes": {**study.arms[arm].changes, "search.epochs": wanted}}
        )
    return study.model_copy(update={"arms": arms})


def what_it_sees(study: Study) -> list[str]:
    """Returns what the comparisons of a study will be able to see, a line for each kind of pair."""
    pairs = study.pairs()
    lines: dict[str, None] = {}
    for first, second in pairs:
        n1, n2 = study.runs(first), study.runs(second)
        line = f"{_number(study, first)} and {_number(study, second)}: differences of "
        line += f"{detectable(n1, n2):.1f} standard deviations and more ({100 * POWER:.0f} % power)"
        if len(pairs) > 1:
            strict = detectable(n1, n2, alpha=ALPHA / len(pairs))
            line += f"; {strict:.1f} where p is corrected for {len(pairs)} comparisons"
        lines[line] = None
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
