"""The search: one loop over whatever strategy searches."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gdas_tf.data.balance import Balance
from gdas_tf.data.dataset import eval_batches, search_batches, search_halves, steps_per_epoch
from gdas_tf.distribution import Distribution
from gdas_tf.files import plain
from gdas_tf.keras_backend import keras
from gdas_tf.notes import progress
from gdas_tf.optimizers.loss_scale import loss_scaled
from gdas_tf.optimizers.schedules import cosine_schedule
from gdas_tf.optimizers.torch_sgd import SGD
from gdas_tf.runs.data_record import record_data
from gdas_tf.runs.journal import Journal
from gdas_tf.runs.metrics_log import MetricsLog
from gdas_tf.spaces.macro import stem_of
from gdas_tf.strategies.base import STRATEGIES, Batch, Strategy, Task, rounds_of_search
from gdas_tf.supernet.network import Supernet
from gdas_tf.training.augmenting import augmentation_of
from gdas_tf.training.callbacks import (
    AlignReplicas,
    Checkpoint,
    Divergence,
    History,
    MetricsLines,
    StrategyEpochs,
)
from gdas_tf.training.dividing import check_divided
from gdas_tf.training.epoch_lines import EpochLines, epoch_line, seconds_left
from gdas_tf.training.search_model import SearchModel
from gdas_tf.training.time_limit import EndInTime, TimeLimit
from gdas_tf.training.trials import Trials

if TYPE_CHECKING:
    from gdas_tf.config.config import Config
    from gdas_tf.config.sections import SearchConfig
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.runs.run import Run


def search(
    config: Config,
    data: DataSet,
    run: Run,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    limit: TimeLimit | None = None,
    distribution: Distribution | None = None,
) -> dict[str, np.ndarray]:
    """Search for a cell on the training images of a data set.

    The training images are cut into two disjoint halves, D_T for the weights and D_V for the strategy. The
    learning rate of the weights falls as a cosine, step by step or epoch by epoch. After each epoch the
    metrics (`search/metrics.jsonl`), the strategy's arrays of all epochs so far, as GDAS' logits
    (`search/logits.npz`), and a checkpoint are written. A search that was killed and resumed ends with the
    same weights and architecture, bit for bit, on one machine.

    Args:
        config: Configuration; `seed`, `data` (the augmentation), `search` and the strategy's own section
            count here.
        data: The data set; its test images are not looked at.
        run: The run directory.
        resume: Go on from the last checkpoint, if there is one.
        callbacks: Keras callbacks for `fit`.
        limit: When it has to end; what it has found by then is its outcome.
        distribution: What the batches are divided over; None for nothing.

    Returns:
        The strategy's arrays before the search and after each epoch. GDAS has its logits: `normal`
        [epochs + 1, E, K], and `reduction` unless that cell is fixed. The last ones go to the strategy's
        `genotype`.

    Raises:
        UsageError: The run was begun on other data, a checkpoint doesn't fit, or the images can't be searched
            on.
        RunError: The search diverged, or the disk is full.
    """
    settings, distribution = config.search, distribution or Distribution()
    strategy = STRATEGIES.get(settings.strategy).from_config(config)
    if not strategy.trains_supernet:
        check_divided(config, "search", distribution.replicas, len(data.train))
        return _search_without_supernet(strategy, config, data, run, resume, limit)
    # An epoch is one pass over the smaller half (they differ by a few images): every step takes a batch of
    # each.
    halves = search_halves(data.train.labels, config.seed)
    steps = steps_per_epoch(min(map(len, halves)), settings.batch_size)
    batch_size = min(settings.batch_size, *map(len, halves))
    check_divided(config, "search", distribution.replicas, batch_size)
    keras.utils.set_random_seed(config.seed)
    with distribution.scope():
        model = build_search_model(config, data, strategy)
        model.compile(weight_optimizer(settings, steps))
        model.build((distribution.part(batch_size), *data.image_shape))

    checkpoint = Checkpoint(
        run, "search", model.state, strategy.extra_state, strategy.restore, distribution.replicas
    )
    history = History(run, strategy.arrays)
    metrics = MetricsLines(run, "search", lambda epoch: strategy.values())
    if not resume:
        strategy.check(config, data)
        shutil.rmtree(run.file("search/trials"), ignore_errors=True)
    record_data(run, "search", data)
    strategy.journal = Journal(run.file("search/candidates.jsonl"))
    done = checkpoint.begin(resume)
    strategy.journal.begin(resume)
    history.begin(done)
    if done < settings.last_epoch:
        metrics.begin(done)
        writing = [*callbacks, history, metrics, *([checkpoint] if distribution.chief else [])]
        _train(model, data, config, run, halves, steps, done, writing, limit, distribution)
    if strategy.then_trials:
        before = run.config.search.last_epoch
        _go_through_rounds(strategy, config, data, run, history, before, limit)
    return history.arrays()


def _train(
    model: SearchModel,
    data: DataSet,
    config: Config,
    run: Run,
    halves: tuple[np.ndarray, np.ndarray],
    steps: int,
    done: int,
    callbacks: Sequence[keras.callbacks.Callback],
    limit: TimeLimit | None,
    distribution: Distribution,
) -> None:
    """The epochs of the supernet that are still to do.

    Args:
        model, data, config, run, limit: Of `search`.
        halves: Positions of the images of D_T and of D_V.
        steps: Steps of an epoch.
        done: Epochs that are done.
        callbacks: Those of the user, and those that write.
        distribution: What the batches are divided over.
    """
    settings, strategy = config.search, model.strategy
    batch_size = min(settings.batch_size, *map(len, halves))
    augmentation = augmentation_of(config, data, settings.cutout)
    last = settings.last_epoch
    first, remaining = done * steps, (last - done) * steps
    balanced = model.balance.sampler

    @functools.cache
    def validation() -> Iterable[Batch]:
        batches = eval_batches(data.train, batch_size, halves[1])
        return batches.take(len(halves[1]) // batch_size)

    batches = search_batches(data, settings.batch_size, config.seed, augmentation, first, remaining, balanced)
    with EpochLines("search", last, done, steps) as lines:
        model.fit(
            distribution.share(batches),
            epochs=last,
            initial_epoch=done,
            steps_per_epoch=steps,
            shuffle=False,  # the batches are shuffled already
            verbose=0,
            callbacks=[
                AlignReplicas(distribution, model.supernet.non_trainable_variables),
                *([EndInTime(limit, "search", last, amid=False)] if limit else []),
                # The limit may have set an earlier one, in the epoch with which the search then ends.
                StrategyEpochs(
                    strategy, settings.epochs, lambda: min(last, run.config.search.last_epoch), validation
                ),
                Divergence(
                    "search", f"lower search.weight_learning_rate ({settings.weight_learning_rate:g})"
                ),
                *callbacks,
                lines,
            ],
        )


def _search_without_supernet(
    strategy: Strategy, config: Config, data: DataSet, run: Run, resume: bool, limit: TimeLimit | None
) -> dict[str, np.ndarray]:
    """The search of a strategy that has its own loop: `Strategy.search`.

    There is no checkpoint. A search that was killed is gone through again; what it trained lies in
    `search/trials`, and the metrics of the rounds that were done stay as they are.
    """
    kinds = ["normal"]
    if config.space.reduction and config.search.reduction != "fixed":
        kinds.append("reduction")
    strategy.build(Task(config.space, dict.fromkeys(kinds, 0), config.seed))
    record_data(run, "search", data)
    if not resume:
        strategy.check(config, data)
        shutil.rmtree(run.file("search/trials"), ignore_errors=True)
        run.file("search/candidates.json").unlink(missing_ok=True)
        MetricsLog(run, "search").begin(0)
    # The same lines are written once more; only trainings take time.
    strategy.journal = Journal(run.file("search/candidates.jsonl"))
    strategy.journal.begin(resume=False)
    history = History(run, strategy.arrays)
    history.begin(0)
    _go_through_rounds(strategy, config, data, run, history, 0, limit)
    return history.arrays()


def _go_through_rounds(
    strategy: Strategy,
    config: Config,
    data: DataSet,
    run: Run,
    history: History,
    before: int,
    limit: TimeLimit | None,
) -> None:
    """All rounds of `Strategy.search`, or those that there is time for.

    A round whose trainings were not all done is not counted, unless it is the first: what was found before it
    stands.

    Args:
        strategy, config, data, run, limit: Of the search.
        history: Takes the arrays after each round.
        before: Lines of metrics that stand before those of the rounds.
    """
    lines = run.metrics("search")  # those of a search that was killed
    log = MetricsLog(run, "search")
    log.begin(len(lines))
    most, seconds = rounds_of_search(config), []
    count = before + most
    if limit:
        limit.begin_rounds()
    with Trials(config, data, run, limit) as trials:
        begun = time.perf_counter()
        rounds = strategy.search(trials)
        for number, values in enumerate(trials.whole_rounds(rounds), start=before):
            history.on_epoch_end(number)
            line = plain({"epoch": number + 1, **values})
            # A round that is done keeps its line, for the seconds in it; unless its outcome is another, as by
            # another recipe of the trainings: then those after it count no more, either.
            if number < len(lines) and lines[number] != {**line, "seconds": lines[number]["seconds"]}:
                del lines[number:]
                log.begin(number)
            if number == len(lines):
                lines.append({**line, "seconds": round(time.perf_counter() - begun, 3)})
                log.append(lines[number])
            seconds.append(lines[number]["seconds"])
            left = seconds_left(seconds, count - number - 1)
            progress(epoch_line("search", number + 1, count, values, seconds[-1], left))
            begun = time.perf_counter()
            if limit and trials.rounds < most and not limit.allows_round(trials.rounds):
                trials.left_out = True
            if trials.left_out or trials.rounds == config.search.stop_after_rounds:
                break
        if trials.left_out and run.config.search.stop_after_rounds is None:
            # So that it is known to be finished.
            run.set_config(run.config.override({"search.stop_after_rounds": trials.rounds}))


def build_search_model(config: Config, data: DataSet, strategy: Strategy | None = None) -> SearchModel:
    """The model that `search` trains, not compiled yet; by default with the strategy of the configuration."""
    settings = config.search
    supernet = Supernet(
        config.space,
        data.classes,
        settings.channels,
        settings.cells,
        settings.macro,
        fixed_reduction=settings.reduction == "fixed",
        mean=tuple(data.mean),
        variance=tuple(deviation**2 for deviation in data.std),
        jit_compile=settings.jit_compile,
        pool_norm=settings.pool_norm,
        stem=stem_of(settings.stem, *data.image_shape[:2]),
        dtype=settings.precision,
        name="supernet",
    )
    strategy = strategy or STRATEGIES.get(settings.strategy).from_config(config)
    balance = Balance.of(config.data.balance, data.train.labels, data.classes)
    return SearchModel(supernet, strategy, config.seed, settings.unsampled, balance, name="search")


def weight_optimizer(settings: SearchConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of the supernet's weights."""
    schedule = cosine_schedule(
        settings.weight_learning_rate,
        settings.weight_learning_rate_end,
        settings.epochs,
        steps_per_epoch,
        settings.weight_schedule,
    )
    optimizer = SGD(schedule, settings.momentum, settings.weight_decay, settings.clip_norm, settings.nesterov)
    return loss_scaled(optimizer, keras.DTypePolicy(settings.precision).compute_dtype, masked=True)
