"""How a budget is divided: what a configuration takes by what was timed, and the largest one that fits.

Search, short trainings of candidates and retraining keep their proportions: each gets the same part, or the
same multiple, of what the configuration has. A preset's proportions are those that were found good for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from gdas_tf.config.config import Config
from gdas_tf.config.sections import SECTIONS
from gdas_tf.durations import duration
from gdas_tf.errors import UsageError
from gdas_tf.strategies.base import STRATEGIES
from gdas_tf.training.seconds import Seconds, TrialSeconds

PARTS = ("start", "search", "trials", "retrain", "rest")
"""The parts that a run's time is told by: what comes before the first stage, the supernet and what it judges,
the short trainings of candidates, the retraining, and everything after it."""

CAUTION = 0.95
"""Part of the time that is left which is planned: timings are short, and steps differ."""

_MOST = 1000.0
_HALVINGS = 24


class Images(NamedTuple):
    """How many images there are: for training, in each of the halves of the search, for testing."""

    training: int
    d_t: int
    d_v: int
    test: int


class Costs(NamedTuple):
    """What was timed.

    Args:
        images: Of the data set.
        retrain: A retraining of a random cell.
        search: The epochs of the supernet; None if none is trained.
        judging: Seconds before the first judgement by the supernet's weights, and of one on one batch of D_V.
        trial: A short training of a candidate; None if there are none.
    """

    images: Images
    retrain: Seconds
    search: Seconds | None = None
    judging: tuple[float, float] = (0.0, 0.0)
    trial: TrialSeconds | None = None

    def to_plain(self) -> dict[str, Any]:
        """The same as lists of numbers, by name, for JSON."""
        return {name: None if value is None else list(value) for name, value in self._asdict().items()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Costs:
        """Reads what `to_plain` returned."""
        search, trial = values["search"], values["trial"]
        first, each = values["judging"]
        return cls(
            Images(*values["images"]),
            Seconds(*values["retrain"]),
            None if search is None else Seconds(*search),
            (first, each),
            None if trial is None else TrialSeconds(*trial),
        )


def seconds_of(config: Config, costs: Costs) -> dict[str, float]:
    """What each part but the start takes, by its name.

    Args:
        config: What is done.
        costs: What was timed of it, or of the same with other epochs and numbers of candidates.
    """
    images = costs.images
    found = {"search": 0.0, "trials": sum(seconds_of_rounds(config, costs))}
    if costs.search is not None:
        steps = _steps(min(images.d_t, images.d_v), config.search.batch_size)
        epochs = costs.search.before + costs.search.epochs(config.search.epochs, steps)
        found["search"] = epochs + seconds_of_judging(config, costs.judging, images.d_v)
    if costs.trial is not None:
        found["trials"] += costs.trial.to_start
    # Its steps are timed once more, with the cell that was found.
    found["retrain"] = costs.retrain.spent + costs.retrain.before
    found["retrain"] += costs.retrain.epochs(config.retrain.epochs, steps_of_retraining(config, images))
    found["rest"] = seconds_of_rest(config, costs.retrain, images)
    return found


def seconds_of_judging(config: Config, judging: tuple[float, float], images: int) -> float:
    """What the supernet's weights take to judge genotypes after the last epoch.

    Args:
        config: What is done.
        judging: As of `Costs`.
        images: How many D_V has.
    """
    effort = STRATEGIES.get(config.search.strategy).effort(config)
    batches = min(effort.judged_images or images, images) // min(config.search.batch_size, images)
    first, each = judging
    return first + each * effort.judged * max(batches, 1)


def seconds_of_rounds(config: Config, costs: Costs) -> list[float]:
    """What each round of short trainings takes; nothing where they were not timed."""
    if costs.trial is None:
        return []
    own = config.strategy
    batch_size = getattr(own, "batch_size", None) or config.retrain.batch_size
    images = min(getattr(own, "images", None) or costs.images.d_t, costs.images.d_t)
    judged = min(getattr(own, "validation_images", None) or costs.images.d_v, costs.images.d_v)
    steps = _steps(images, batch_size)
    jobs = getattr(own, "jobs", 1)
    rounds = STRATEGIES.get(config.search.strategy).effort(config).rounds
    return [
        math.ceil(count / jobs) * costs.trial.training(epochs, steps, batch_size, judged)
        for count, epochs in rounds
    ]


def seconds_of_search(config: Config, costs: Costs) -> float:
    """What the whole search takes: the supernet, what it judges, and the short trainings."""
    found = seconds_of(config, costs)
    return found["search"] + found["trials"]


def cannot_tell(config: Config) -> bool:
    """Whether the strategy trains candidates and does not say how many, as one of a user's may."""
    kind = STRATEGIES.get(config.search.strategy)
    strategy = kind.from_config(config)
    trains = strategy.then_trials or not strategy.trains_supernet
    return trains and not kind.effort(config).rounds and kind.rounds(config) > 1


def seconds_of_rest(config: Config, retrain: Seconds, images: Images) -> float:
    """What saving, evaluation, export with its verification, benchmark and pictures take.

    Most of it is building the network's graph, once for each file and twice more; each takes about as long as
    building the graph of the training.
    """
    options = config.benchmark
    measured = options.seconds * len(options.batch_sizes) * len(options.threads) * len(options.providers)
    test = (images.test + config.export.images) / config.retrain.batch_size * retrain.step / 3
    return measured + test + (2 + len(config.export.formats)) * retrain.before


def steps_of_retraining(config: Config, images: Images) -> int:
    """Steps of an epoch of the retraining."""
    return _steps(images.training, config.retrain.batch_size)


def divide(config: Config, costs: Costs, spent: float, budget: float, kept: Collection[str]) -> Config:
    """Returns the configuration with the epochs and numbers of candidates that a budget buys.

    Args:
        config: What is wished; its proportions are kept.
        costs: What was timed.
        spent: Seconds of the budget that are gone.
        budget: Seconds in all.
        kept: Dotted names of fields that stay as they are, as a user gave them.

    Raises:
        UsageError: It does not buy one epoch of each stage, and the fewest candidates.
    """
    left = (budget - spent) * CAUTION

    def takes(tried: Config) -> float:
        return sum(seconds_of(tried, costs).values())

    least = scaled(config, costs, 1 / _MOST, kept)
    if takes(least) > left:
        needed = _round_up(spent + takes(least) / CAUTION)
        raise UsageError(
            f"budget: {duration(budget)} buy less than one epoch of each stage with what is given; it takes "
            f"about {duration(needed)} here, {duration(spent)} of it to start and to time; give as much, or "
            "make it smaller (search.channels, retrain.channels, data.image_size, export.formats)"
        )
    best = _largest(config, costs, kept, lambda tried: takes(tried) <= left)
    if "retrain.epochs" in kept:
        return best
    more = (left - takes(best)) / costs.retrain.epochs(1, steps_of_retraining(config, costs.images))
    epochs = min(best.retrain.epochs + max(int(more), 0), most_epochs(config, "retrain"))
    return best.override({"retrain.epochs": epochs})


def search_within(config: Config, costs: Costs, seconds: float) -> Config:
    """Returns the configuration with the longest search that takes no longer than some seconds.

    The supernet and the short trainings keep their proportions; the retraining stays as it is. If even one
    epoch and the fewest candidates take longer, they are what is returned.
    """
    most = seconds * (1 + 1e-9)
    return _largest(config, costs, ("retrain.epochs",), lambda tried: seconds_of_search(tried, costs) <= most)


def _largest(config: Config, costs: Costs, kept: Collection[str], fits: Callable[[Config], bool]) -> Config:
    """The largest multiple of the work of each stage that fits, by bisection; the least one if none does."""
    low, high = 1 / _MOST, _MOST
    best = scaled(config, costs, low, kept)
    for _ in range(_HALVINGS):
        factor = math.sqrt(low * high)
        tried = scaled(config, costs, factor, kept)
        if fits(tried):
            low, best = factor, tried
        else:
            high = factor
    return best


def scaled(config: Config, costs: Costs, factor: float, kept: Collection[str]) -> Config:
    """Returns the configuration with about `factor` times the work of each stage; `kept` stays as it is."""

    def epochs(stage: str) -> int:
        wanted = int(config.get(f"{stage}.epochs") * factor)
        return min(max(wanted, 1), most_epochs(config, stage))

    changes: dict[str, Any] = {"retrain.epochs": epochs("retrain")}
    if costs.search is not None:
        changes["search.epochs"] = epochs("search")
        # As many of them as before are a warm-up, so that the architecture learns in the others.
        changes["search.warm_up"] = config.search.warm_up * changes["search.epochs"] // config.search.epochs
    strategy = STRATEGIES.get(config.search.strategy)
    own = strategy.scaled(config, factor, costs.images.d_v) if costs.search or costs.trial else {}
    try:
        return config.override(_without({**changes, **own}, kept))
    except UsageError:  # they do not fit to what the user gave
        return config.override(_without(changes, kept))


def most_epochs(config: Config, stage: str) -> int:
    """How many epochs a budget gives at most: those of the paper, or of the configuration if it has more."""
    return max(config.get(f"{stage}.epochs"), SECTIONS[stage].model_fields["epochs"].default)


def epochs_within(config: Config, found: Seconds, images: Images, left: float) -> int:
    """How many epochs of the retraining fit into a time, at least one.

    Args:
        config: Of the run.
        found: What was timed of the retraining.
        images: Of the data set.
        left: Seconds from now to the end of the last epoch.
    """
    each = found.epochs(1, steps_of_retraining(config, images))
    wanted = int((left * CAUTION - found.before) / each)
    return min(max(wanted, 1), most_epochs(config, "retrain"))


def _without(changes: dict[str, Any], kept: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name not in kept}


def _round_up(seconds: float) -> float:
    """Rounded up to what one would say: to ten seconds, or to minutes."""
    unit = 10 if seconds < 300 else 60
    return math.ceil(seconds / unit) * unit


def _steps(images: int, batch_size: int) -> int:
    from gdas_tf.data.dataset import steps_per_epoch

    return steps_per_epoch(images, batch_size)
