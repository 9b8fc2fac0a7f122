"""What a strategy of search is, and the registry of those that there are.

A strategy says which paths of the supernet run, and learns from what they do. `gdas_tf.training.search` is
the loop around it: each step trains the supernet's weights on the paths that the strategy gives, and then
lets the strategy learn. A strategy never changes the supernet.

A strategy that a user writes registers itself in the same way as those that come with the package:

    >>> class Fixed(Strategy):  # doctest: +SKIP
    ...     ...
    >>> STRATEGIES.register("fixed", Fixed)  # doctest: +SKIP

Neither this module nor the strategies import TensorFlow before they are built: the command line reads their
names and sections for `--help`.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gdas_tf.registry import Registry
from gdas_tf.strategies.effort import Effort

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.runs.journal import Journal
    from gdas_tf.spaces.base import SearchSpace
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.training.search_model import SearchModel
    from gdas_tf.training.trials import Trials

Batch = tuple["tf.Tensor", "tf.Tensor"]
"""Images float32 [B, H, W, C] in [0, 1] and labels int [B]."""

Paths = tuple[Any, Any]
"""Of the normal and of the reduction cells: one value of `gdas_tf.supernet.paths` that all cells of the kind
run, or a list of one for each of them. The second is None where the reduction cell is fixed."""


def both(paths: Sequence[Any]) -> Paths:
    """What runs in the normal and in the reduction cells, of one for each kind that is searched."""
    return paths[0], paths[1] if len(paths) > 1 else None


@dataclasses.dataclass(frozen=True)
class Task:
    """What is searched.

    Args:
        space: The operations and edges of a cell.
        cells: How many cells of each kind that is searched the supernet has: `normal`, and `reduction` unless
            that cell is fixed. The numbers are 0 where no supernet is trained.
        seed: Seed of every random choice.
        compute_dtype: Type that the supernet computes in: "float32", "bfloat16" or "float16".
    """

    space: SearchSpace
    cells: Mapping[str, int]
    seed: int = 0
    compute_dtype: str = "float32"


class Strategy(abc.ABC):
    """Which paths run, and how it is learned from them.

    The loop calls, in this order: `from_config`; `build`; `restore` where a search is resumed; then in each
    epoch `begin_epoch`, for each step `paths` and `learn` (inside one graph, traced once), and `end_epoch`.
    After each epoch it writes `values` to the metrics, `arrays` to the history, and `variables`, the
    optimizers' variables and `extra_state` to the checkpoint. `genotype` is called later, in a process of its
    own, and has nothing but the history.

    A strategy without a supernet, `trains_supernet = False`, has a loop of its own, `search`: `from_config`,
    `build` and `search` are called in this order, and after each round that `search` yields the metrics and
    the history are written. A search that was killed runs `search` again from its first round; the trainings
    that are done are found on the disk.

    A resumed search ends as an uninterrupted one, bit for bit, if all that a strategy does depends only on
    its variables and extra state, on the step and epoch numbers, and on the seed.

    Attributes:
        section: A pydantic model, the strategy's own section of the configuration, or None. Its fields are
            the keyword arguments of the class, unless `from_config` says otherwise.
        reads: Names of the fields of the section `search` that it reads, out of those that not every strategy
            does (`gdas_tf.config.sections.STRATEGY_FIELDS`). The others are refused where they are not at
            their default.
        metrics: Names of what `learn` returns. The metrics of an epoch hold the mean of each.
        variables: The strategy's state: Keras variables that `build` makes, in an order that is the same in
            every process.
        optimizers: Keras optimizers of the variables, whose state belongs to the checkpoint, too.
        derives: Whether the genotype is derived by the section `derive`; a strategy that finds one itself has
            False, and fields of that section are refused.
        titles: What metrics of `learn`, `values` and `search` are called in pictures, with their unit, by
            name. Those that have none are called by name.
        trains_supernet: Whether a supernet is trained; may be a property, where an option decides.
        then_trials: Whether `search` follows after the last epoch of the supernet; its rounds count on.
        journal: Set by the loop: lines that the strategy may write of each candidate, and finds again after
            the search was killed.
    """

    section: ClassVar[type | None] = None
    reads: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[str, ...]] = ()
    derives: ClassVar[bool] = True
    titles: ClassVar[Mapping[str, str]] = {}
    variables: Sequence[Any] = ()
    optimizers: Sequence[Any] = ()
    trains_supernet: bool = True
    then_trials: bool = False
    journal: Journal | None = None

    @classmethod
    def from_config(cls, config: Config) -> Strategy:
        """The strategy of a configuration; by default made of the fields of its own section."""
        if cls.section is None:
            return cls()
        return cls(**dict(config.strategy))

    @classmethod
    def rounds(cls, config: Config) -> int:
        """How many lines of metrics a finished search has: its epochs, or as many as `search` yields."""
        return config.search.epochs

    @classmethod
    def effort(cls, config: Config) -> Effort:
        """What the search computes besides the epochs of a supernet; by default nothing.

        A budget is divided by it. A strategy that trains candidates and does not say so gets half of the time
        of the retraining for them.
        """
        return Effort()

    @classmethod
    def scaled(cls, config: Config, factor: float, images: int) -> Mapping[str, Any]:
        """Fields of the configuration by which what `effort` tells takes about `factor` times as long.

        By dotted name; by default none.

        Args:
            config: The configuration.
            factor: Below one for less work, above it for more.
            images: How many D_V has.
        """
        return {}

    def check(self, config: Config, data: DataSet) -> None:  # noqa: B027
        """Find out before the first step what would fail later; by default nothing.

        Raises:
            UsageError: The search cannot be done so; the message names the field of the configuration.
        """

    def undivided(self) -> str | None:
        """Why several replicas cannot share a batch of this strategy, in words; None where they can.

        One that can learns from nothing but means over the replicas
        (`gdas_tf.distribution.mean_over_replicas`).
        """
        return "it does not say that it learns from means over replicas (`Strategy.undivided`)"

    @classmethod  # noqa: B027
    def check_config(cls, config: Config) -> None:
        """Find out what does not fit together, when a configuration that names the strategy is made.

        Raises:
            UsageError: The message names the field of the configuration.
        """

    @abc.abstractmethod
    def build(self, task: Task) -> None:
        """Make the variables and the optimizers."""

    @abc.abstractmethod
    def paths(self, step: tf.Tensor) -> Paths:
        """The paths on which a step trains the weights.

        Args:
            step: int64, number of the step, from 0 on through all epochs.
        """

    def chosen(self) -> Paths:
        """The paths of what the strategy would choose now; by default those of step 0."""
        from gdas_tf.numerics.lazy import tf

        return self.paths(tf.constant(0, tf.int64))

    def learn(
        self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch
    ) -> Mapping[str, tf.Tensor]:
        """Learn in one step, after the weights have been trained; by default nothing.

        Args:
            search: The model, with `supernet` and the weights' `optimizer`.
            step: int64, number of the step.
            training: The batch of D_T that the weights were trained on.
            validation: A batch of D_V.

        Returns:
            A number, or one for each image, for each name in `metrics`.
        """
        return {}

    def begin_epoch(self, epoch: int, epochs: int) -> None:  # noqa: B027 (most need none of these)
        """Called before the first step of an epoch, 0 to `epochs` - 1."""

    def end_epoch(  # noqa: B027
        self, search: SearchModel, epoch: int, epochs: int, validation: Callable[[], Iterable[Batch]]
    ) -> None:
        """Called after the last step of an epoch, before anything of the epoch is written.

        Args:
            search: The model.
            epoch: As of `begin_epoch`.
            epochs: Where the search ends: those of `begin_epoch`, or fewer where it is stopped before.
            validation: Gives the images of D_V once, unchanged, in full batches and always the same order,
                as to choose among candidates.
        """

    def search(self, trials: Trials) -> Iterator[Mapping[str, float]]:
        """The whole search of a strategy without a supernet, or what follows the supernet (`then_trials`).

        What it does depends on the seed and on the outcomes of its trials alone, so that it ends the same
        however often it was killed.

        Args:
            trials: Trains derived networks for a short time, and gives their loss on D_V.

        Yields:
            The metrics of each round, of which there are `rounds`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `search`; it trains a supernet")

    def values(self) -> Mapping[str, float | None]:
        """Numbers that describe the strategy's state, for the metrics of the epoch. One of the name of a
        metric takes its place, None where nothing was measured."""
        return {}

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays of a shape that stays, for the history. `normal` and `reduction`, [E, K] each, are drawn as
        logits, and `genotype` is derived from them unless the strategy has a rule of its own."""
        return {}

    def extra_state(self) -> Mapping[str, np.ndarray]:
        """State that is not in variables, for the checkpoint."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:  # noqa: B027
        """Take back what `extra_state` gave; the variables are restored already."""

    def genotype(self, arrays: Mapping[str, np.ndarray], config: Config) -> Genotype:
        """The genotype that was found; by default by the rules of the section `derive`.

        Args:
            arrays: The last `arrays`.
            config: The configuration of the search.

        Raises:
            UsageError: The arrays do not fit the search space.
        """
        from gdas_tf.strategies.derivation import derive

        options = config.derive
        return derive(
            arrays["normal"],
            arrays.get("reduction"),
            config.space,
            ranks=options.ranks,
            keep_none=options.keep_none,
            rule=options.rule,
        )


def rounds_of_search(config: Config) -> int:
    """How many rounds `Strategy.search` yields, where nothing stops it."""
    strategy = STRATEGIES.get(config.search.strategy)
    epochs = config.search.epochs if strategy.from_config(config).trains_supernet else 0
    return strategy.rounds(config) - epochs


def lines_of_search(config: Config) -> int:
    """How many lines of metrics a finished search has, stopped where its configuration says."""
    settings, rounds = config.search, rounds_of_search(config)
    epochs = STRATEGIES.get(settings.strategy).rounds(config) - rounds
    return min(epochs, settings.last_epoch) + min(rounds, settings.stop_after_rounds or rounds)


STRATEGIES: Registry[type[Strategy]] = Registry("strategy")
"""All strategies by name."""

BUILT_IN = ("gdas", "darts", "enas", "random", "race", "evolution", "robust")
"""Modules of this package that register strategies. They are imported by name and at the end of this one,
because they import it."""

for _name in BUILT_IN:
    importlib.import_module(f"gdas_tf.strategies.{_name}")
