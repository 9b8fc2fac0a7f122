"""What the stages of a configuration take on this machine, by some steps of each; nothing of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.pipeline.artefacts import takes_genotype
from gdas_tf.pipeline.division import Costs, Images
from gdas_tf.spaces.genotype import random_genotype
from gdas_tf.strategies.base import STRATEGIES

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet


def images_of(data: DataSet, seed: int) -> Images:
    """How many images there are for each stage."""
    from gdas_tf.data.dataset import search_halves

    halves: Sequence[Any] = search_halves(data.train.labels, seed)
    return Images(len(data.train), *map(len, halves), len(data.test))


def time_stages(config: Config, data: DataSet, searched: bool) -> Costs:
    """Times the retraining of a random cell, and the search.

    Args:
        config: What would be done.
        data: The data set.
        searched: Whether the search is timed: the supernet, what it judges, and a short training of a
            candidate, where the strategy has them.
    """
    start_tensorflow()
    from gdas_tf.training import timing

    strategy = STRATEGIES.get(config.search.strategy)
    drawn = random_genotype(config.space, config.seed, config.search.reduction)
    trained = drawn if takes_genotype(config) else None
    costs = Costs(images_of(data, config.seed), timing.time_retraining(config, data, trained))
    if searched and strategy.from_config(config).trains_supernet:
        epochs, judging = timing.time_search(config, data)
        costs = costs._replace(search=epochs, judging=judging)
    if searched and strategy.effort(config).rounds:
        costs = costs._replace(trial=timing.time_trial(config, data, drawn))
    return costs
