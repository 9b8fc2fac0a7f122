"""Short trainings of candidates: what they see, that they are kept, and what happens when a process dies."""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tensorflow.python.framework.func_graph import FuncGraph

from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, Split, search_halves
from gdas_tf.data.stored_images import StoredImages
from gdas_tf.errors import RunError, UsageError
from gdas_tf.networks.registry import NETWORKS, Network
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.strategies.race import Race
from gdas_tf.strategies.trial_fields import check_trials
from gdas_tf.training import search, trial, workers
from gdas_tf.training import trials as trials_module
from gdas_tf.training.trial import TrialTrainer
from gdas_tf.training.trials import Trials

ONE = Genotype.from_text("normal=sep3@0+skip@1 reduction=max3@0+skip@1")
TWO = Genotype.from_text("normal=sep3@0+sep3@1 reduction=max3@0+skip@1")


def _data(examples: int = 96) -> DataSet:
    """Images whose brightness is their class, so that there is something to learn."""
    generator = np.random.default_rng(0)
    labels = np.arange(examples, dtype=np.int32) % 3
    images = generator.integers(0, 80, (examples, 8, 8, 1)) + 80 * labels[:, None, None, None]
    split = Split(images.astype(np.uint8), labels)
    return DataSet("brightness", ("dark", "middle", "bright"), split, split, (0.4,), (0.3,))


def _config(**changes: object) -> Config:
    values = {
        "data.padding": 0,
        "search.strategy": "race",
        "search.nodes": 1,
        "retrain.channels": 2,
        "retrain.cells": 1,
        "race.batch_size": 16,
        "race.learning_rate": 0.1,
    }
    return Config().override({**values, **{key.replace("__", "."): value for key, value in changes.items()}})


def _trials(folder: Path, **changes: object) -> Trials:
    config = _config(**changes)
    return Trials(config, _data(), Run(folder, config))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run directory with the outcomes of ONE and TWO, trained one after the other in one process."""
    folder = tmp_path_factory.mktemp("trained")
    with _trials(folder) as trials:
        outcomes = trials.run_all([ONE, TWO], epochs=2)
    assert all(math.isfinite(outcome.loss) and outcome.failed is None for outcome in outcomes)
    assert outcomes[0].loss != outcomes[1].loss
    return folder


def _outcomes(folder: Path, **changes: object) -> list[tuple[float, float, int]]:
    with _trials(folder, **changes) as trials:
        return [outcome[:3] for outcome in trials.run_all([ONE, TWO], epochs=2)]


def _no_worker(*arguments: object) -> None:
    raise AssertionError("a process was begun")


def test_what_is_done_is_not_trained_again(trained, monkeypatch) -> None:
    monkeypatch.setattr(workers, "_Process", _no_worker)
    before = sorted((trained / "search/trials").iterdir())
    assert len(before) == 2
    _outcomes(trained)
    # Neither the name nor the number of jobs tells two trials apart.
    with _trials(trained, race__jobs=3) as trials:
        named = dataclasses.replace(ONE, name="mine")
        assert trials.submit(named, 2).result() == trials.submit(ONE, 2).result()
    _outcomes(trained, retrain__stop_after=1)  # nor where a budget ended the retraining
    assert sorted((trained / "search/trials").iterdir()) == before


@pytest.mark.parametrize(
    "change", [{"race__channels": 3}, {"seed": 1}, {"race__images": 40}, {"data__balance": "weights"}]
)
def test_another_recipe_is_another_trial(trained, monkeypatch, change) -> None:
    monkeypatch.setattr(workers, "_Process", _no_worker)
    with _trials(trained, **change) as trials, pytest.raises(AssertionError, match="a process was begun"):
        trials.submit(ONE, 2).result()


def test_jobs_do_not_change_outcomes_and_a_killed_worker_is_replaced(
    trained, tmp_path, monkeypatch, caplog
) -> None:
    """Two processes side by side, of which one is killed while it trains."""
    wanted = _outcomes(trained)
    with _trials(tmp_path, race__jobs=2) as trials, caplog.at_level(logging.WARNING):
        pending = [trials.submit(genotype, 2) for genotype in (TWO, ONE)]
        processes = _wait_for(lambda: [one for one in trials._workers._processes if one], 2)
        processes[0].process.kill()
        found = [one.result()[:3] for one in reversed(pending)]
        children = psutil.Process().children(recursive=True)
        assert len([child for child in children if "trial_worker" in " ".join(child.cmdline())]) == 2
    assert found == wanted
    assert "was ended by signal 9" in caplog.text and "it is tried once more" in caplog.text
    # None is left behind.
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "trial_worker" in " ".join(child.cmdline())]


def _wait_for(what, count: int, seconds: float = 60.0) -> list:
    end = time.monotonic() + seconds
    while len(found := what()) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


class _Dying:
    """A worker that dies of every request."""

    class process:  # noqa: N801
        pid = 7

    def __init__(self, *arguments: object) -> None: ...

    def ask(self, request: object) -> object:
        raise EOFError

    def ended(self) -> str:
        return "ended with code 3"

    def kill(self) -> None: ...


def test_a_trial_that_kills_workers_counts_as_failed(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(workers, "_Process", _Dying)
    with _trials(tmp_path) as trials, caplog.at_level(logging.WARNING):
        outcome = trials.submit(ONE, 1).result()
    assert outcome.loss == math.inf and "died 2 times" in outcome.failed
    assert caplog.text.count("process 7 ended with code 3") == 2 and "it counts as failed" in caplog.text
    monkeypatch.setattr(workers, "_Process", _no_worker)  # it is not tried again, until its file is removed
    with _trials(tmp_path) as trials:
        assert trials.submit(ONE, 1).result() == outcome


class _Answering(_Dying):
    answer: object = None

    def ask(self, request: object) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (("UsageError", "no such image"), UsageError, "no such image"),
        (("RunError", "ResourceExhausted: memory"), RunError, "memory"),
    ],
)
def test_what_a_worker_complains_of_is_raised_here(tmp_path, monkeypatch, answer, error, text) -> None:
    monkeypatch.setattr(workers, "_Process", type("Fake", (_Answering,), {"answer": answer}))
    with _trials(tmp_path) as trials, pytest.raises(error, match=text):
        trials.submit(ONE, 1).result()
    assert not list(tmp_path.rglob("*.json"))


def test_a_loss_that_is_no_number_is_a_failure_of_the_trial(tmp_path, monkeypatch) -> None:
    values = {"loss": None, "accuracy": 0.1, "parameters": 5, "seconds": 1.0}
    monkeypatch.setattr(workers, "_Process", type("Fake", (_Answering,), {"answer": ("answer", values)}))
    with _trials(tmp_path) as trials:
        outcome = trials.submit(ONE, 1).result()
    assert outcome.loss == math.inf and "diverged" in outcome.failed


def test_a_full_disk_is_told(tmp_path, monkeypatch) -> None:
    def full(path, value) -> None:
        raise RunError(f"cannot write {path}: no space left on the disk; free some")

    values = {"loss": 1.0, "accuracy": 0.1, "parameters": 5, "seconds": 1.0}
    monkeypatch.setattr(workers, "_Process", type("Fake", (_Answering,), {"answer": ("answer", values)}))
    monkeypatch.setattr(trials_module, "write_json", full)
    with _trials(tmp_path) as trials, pytest.raises(RunError, match="no space left"):
        trials.submit(ONE, 1).result()


@pytest.mark.parametrize("content", ["", "{}", '{"trial": {}, "outcome": {}}'])
def test_a_damaged_outcome_is_refused(trained, tmp_path, content) -> None:
    (tmp_path / "search/trials").mkdir(parents=True)
    for path in (trained / "search/trials").iterdir():
        (tmp_path / "search/trials" / path.name).write_text(content)
    with _trials(tmp_path) as trials, pytest.raises(UsageError, match="remove .* to train it again"):
        trials.submit(ONE, 2)


def test_a_network_that_is_the_same_for_every_genotype_is_refused(monkeypatch) -> None:
    monkeypatch.setitem(
        NETWORKS._items, "constant-of-test", Network(lambda *a, **k: None, takes_genotype=False)
    )
    with pytest.raises(UsageError, match=r"retrain\.network: found constant-of-test, which is the same"):
        check_trials(_config(retrain__network="constant-of-test"), _data())


def test_a_cutout_as_big_as_the_images_is_refused() -> None:
    with pytest.raises(UsageError, match=r"race\.cutout: found 8 pixels for images 8x8"):
        check_trials(_config(race__cutout=8), _data())


def test_training_sees_d_t_and_the_judge_d_v() -> None:
    data, config = _data(), _config(retrain__epochs=1, retrain__batch_size=16)
    config = trials_module.trial_config(config, 2)
    first, second = search_halves(data.train.labels, config.seed)

    def outcome(changed: np.ndarray) -> tuple[float, float]:
        """Training loss and loss on D_V where some images are all black."""
        images = data.train.images.copy()
        images[changed] = 0
        other = dataclasses.replace(data, train=Split(images, data.train.labels))
        values = TrialTrainer(other, config.seed).train(config, ONE)
        return values["training_loss"], values["loss"]

    plain, without_v, without_t = outcome(first[:0]), outcome(second), outcome(first)
    assert without_v[0] == plain[0] and without_v[1] != plain[1]
    assert without_t[0] != plain[0]
    assert plain == outcome(first[:0])  # again, the same to the last bit


@pytest.mark.slow
def test_drop_path_grows_as_in_the_retraining_and_a_deployed_network_is_judged_on_all_of_d_v(
    monkeypatch,
) -> None:
    rates = []
    monkeypatch.setattr(trial, "set_drop_path", lambda network, rate: rates.append(rate))
    config = _config(retrain__epochs=2, retrain__batch_size=20, retrain__drop_path=0.2, retrain__cutout=0)
    trainer = TrialTrainer(_data(90), config.seed, deployed=True)
    assert math.isfinite(trainer.train(config, ONE)["loss"])
    assert rates == [0.0, 0.1, 0.0]
    judged = [len(labels) for _, labels in trainer._batches["judge", 20]]
    assert judged == [20, 20, 5] and sum(judged) == len(trainer.halves[1])


@pytest.mark.slow
def test_a_process_that_trains_many_keeps_no_graph() -> None:
    trainer = TrialTrainer(_data(), 0)
    depthwise = Genotype.from_text("normal=dil3@0+sep3@1 reduction=max3@0+skip@1")
    config = _config(retrain__epochs=1, retrain__cutout=0)

    def graphs() -> list[str]:
        gc.collect()
        found = (each for each in gc.get_objects() if isinstance(each, FuncGraph))
        return [graph.name for graph in found if graph.name in ("train_step", "judge")]

    before = len(graphs())
    trainer.train(config, depthwise)
    trainer.train(config, depthwise)
    # What was traced last may still be in a cache of TensorFlow's.
    assert len(graphs()) <= before + 2


def test_some_images_are_drawn_of_each_half() -> None:
    data = _data()
    halves = search_halves(data.train.labels, 3)
    trainer = TrialTrainer(data, 3, images=20, validation_images=10)
    assert [len(half) for half in trainer.halves] == [20, 10]
    assert all(set(part) <= set(half) for part, half in zip(trainer.halves, halves, strict=True))
    again = TrialTrainer(data, 3, images=20, validation_images=10)
    assert all((one == other).all() for one, other in zip(trainer.halves, again.halves, strict=True))
    assert all(
        (one == other).all() for one, other in zip(TrialTrainer(data, 3, 1000).halves, halves, strict=True)
    )


def test_a_split_goes_to_another_process_by_its_file(tmp_path) -> None:
    import pickle

    images = np.random.default_rng(0).integers(0, 255, (500, 8, 8, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    split = Split(StoredImages(tmp_path / "images.npy"), np.arange(500))
    text = pickle.dumps(split)
    assert len(text) < 10_000
    assert (pickle.loads(text).images[:] == images).all()
    part = Split(split.images[100:], split.labels[100:])  # which is in memory
    assert (pickle.loads(pickle.dumps(part)).images == images[100:]).all()


def test_lines_after_a_round_with_another_outcome_are_written_anew(tmp_path, monkeypatch) -> None:
    config = _config(race__epochs=(1, 2, 3))
    run = Run.create(tmp_path / "run", config)
    for number, loss in enumerate((3.0, 2.0, 1.0), 1):
        run.append_metrics("search", {"epoch": number, "best_loss": loss, "seconds": 99.0})
    strategy = Race(epochs=(1, 2, 3))
    monkeypatch.setattr(strategy, "search", lambda trials: iter({"best_loss": x} for x in (3.0, 2.5, 1.0)))
    history = search.History(run, strategy.arrays)
    history.begin(0)
    search._go_through_rounds(strategy, config, _data(), run, history, 0, None)
    lines = run.metrics("search")
    assert [line["best_loss"] for line in lines] == [3.0, 2.5, 1.0]
    assert lines[0]["seconds"] == 99.0 and all(line["seconds"] < 99.0 for line in lines[1:])
    assert len(run.file("search/metrics.csv").read_text().splitlines()) == 4


def test_the_recipe_of_a_trial() -> None:
    config = _config(retrain__drop_path=0.2, retrain__auxiliary_weight=0.4, race__cutout=2)
    recipe = trials_module.trial_config(config, 5).retrain
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.cutout) == (5, 16, 0.1, 2)
    assert (recipe.channels, recipe.cells) == (2, 1)  # those of the retraining
    assert recipe.drop_path == recipe.auxiliary_weight == 0
