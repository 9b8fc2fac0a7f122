"""The way from proposal to proposal: killed and resumed, with trials that fail, on a disk that is full."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras_tuner")

from gdas_tf.config.config import Config
from gdas_tf.errors import RunError, UsageError
from gdas_tf.tuning import report, runner
from gdas_tf.tuning.report import write_report
from gdas_tf.tuning.runner import run_tuning
from gdas_tf.tuning.study import Tuning, TuningFolder

SPACE = {
    "retrain.learning_rate": "1e-3..1:log",
    "retrain.drop_path": "0,0.1,0.2",
    "retrain.channels": "8..32:8",
}


def _tuning(**changes: Any) -> Tuning:
    config = Config.preset("quick").override({"retrain.network": "resnet20", "retrain.epochs": 9})
    values = {"config": config.to_dict(), "searches": False, "space": SPACE, "trials": 8}
    return Tuning(**{**values, **changes})


class Fake:
    """Answers requests as the process of trials does, by a formula: the best learning rate is 0.1.

    Args:
        stop_at: the request with which it is stopped, as by Ctrl-C.
        fail: whether a configuration fails, and why.
    """

    def __init__(self, stop_at: int | None = None, fail: Any = lambda config: None) -> None:
        self.stop_at, self.fail, self.asked, self.digest = stop_at, fail, [], "a"

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "check":
            return {"digest": self.digest}
        if len(self.asked) + 1 == self.stop_at:
            raise KeyboardInterrupt
        retrain = request["config"]["retrain"]
        self.asked.append(retrain)
        if reason := self.fail(retrain):
            raise RunError(reason)
        loss = abs(retrain["learning_rate"] - 0.1) + 1.0 / retrain["epochs"]
        return {"loss": loss, "accuracy": 1 / (1 + loss), "seconds": 1.0, "validation_images": 400}


def _outcomes(folder: Path) -> list[tuple[Any, ...]]:
    return [
        (one["number"], one["values"], one["epochs"], one["score"]) for one in TuningFolder(folder).trials()
    ]


@pytest.mark.parametrize(
    ("tuner", "changes"),
    [
        ("random", {}),
        (
            "bayesian",
            {"trials": 5, "space": {"retrain.learning_rate": "1e-3..1:log"}},
        ),  # the last two foretold
        ("hyperband", {"trials": None}),
    ],
)
def test_a_tuning_that_is_stopped_at_any_trial_goes_on_as_if_it_had_not_been(
    tmp_path, tuner: str, changes: dict[str, Any]
) -> None:
    tuning = _tuning(tuner=tuner, **changes)
    whole = Fake()
    result = run_tuning(tmp_path / "whole", tuning, whole)
    wanted = _outcomes(tmp_path / "whole")
    assert len(wanted) == len(whole.asked) == len(result["trials"]) >= 5
    assert len({json.dumps(one[1:3]) for one in wanted}) == len(wanted)
    asked = []
    for stop_at in (1, 4, 2, None):
        fake = Fake(stop_at)
        if stop_at is None:
            run_tuning(tmp_path / "stopped", tuning, fake)
        else:
            with pytest.raises(KeyboardInterrupt):
                run_tuning(tmp_path / "stopped", tuning, fake)
        asked += fake.asked
    assert asked == whole.asked  # each trial once, and the same ones
    assert _outcomes(tmp_path / "stopped") == wanted
    if tuner == "hyperband":
        # Whole trainings from scratch of 1, 3 and 9 epochs; only the longest ones can be the best.
        assert {one[2] for one in wanted} == {1, 3, 9}
        assert result["best"]["epochs"] == 9
    else:
        assert result["best"]["score"] == min(one[3] for one in wanted)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch) -> None:
    """Drawing takes longer than all else; `done`, which is made before, has its pictures."""
    monkeypatch.setattr(report, "_draw", lambda *arguments: {})


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished tuning of twelve trials, of which those of 16 channels have failed."""
    folder = tmp_path_factory.mktemp("tuning") / "done"
    fake = Fake(fail=lambda retrain: "out of memory" if retrain["channels"] == 16 else None)
    run_tuning(folder, _tuning(trials=16), fake)
    return folder


def test_a_trial_that_fails_is_told_of_and_the_others_go_on(done, tmp_path, caplog) -> None:
    result = json.loads((done / "tuning.json").read_text())
    failed = [one for one in result["trials"] if one["failed"]]
    assert failed and all(one["failed"] == "out of memory" for one in failed)
    assert (
        len(result["trials"]) == 16 and result["trials"][-1]["failed"] and not result["trials"][0]["failed"]
    )
    assert f"- Trial {failed[0]['number']} failed: out of memory." in (done / "tuning.md").read_text()
    with caplog.at_level(logging.INFO):
        fake = Fake(fail=lambda retrain: "out of memory")
        with pytest.raises(RunError, match="all 5 trials so far have failed, the last one: out of memory"):
            run_tuning(tmp_path / "hopeless", _tuning(), fake)
    assert len(fake.asked) == 5 and caplog.text.count("out of memory; the others go on") == 4


def test_the_best_is_a_configuration_and_the_field_that_matters_is_found(done) -> None:
    result = json.loads((done / "tuning.json").read_text())
    best = result["best"]
    config = Config.from_file(done / "best.yaml")
    assert config == _tuning().trial_config(best["values"])
    assert config.retrain.learning_rate == best["values"]["retrain.learning_rate"]
    assert next(iter(result["importance"]["fields"])) == "retrain.learning_rate"
    assert all(Path(path).stat().st_size > 200 for path in result["files"].values())
    assert "so too good" in result["cautions"][0]
    assert write_report(TuningFolder(done))["trials"] == result["trials"]


def test_trials_may_be_added_and_nothing_else_may_change(done) -> None:
    before = _outcomes(done)
    for changes in (
        {"space": {"retrain.drop_path": "0,0.1"}},
        {"objective": "retrain-accuracy"},
        {"trials": 3},
    ):
        with pytest.raises(UsageError, match="it is another tuning .*; only trials may be added"):
            run_tuning(done, _tuning(**{"trials": 16, **changes}), Fake())
    other = Fake()
    other.digest = "b"
    with pytest.raises(UsageError, match="the training images have changed since it began"):
        run_tuning(done, _tuning(trials=16), other)
    fake = Fake(fail=lambda retrain: "out of memory" if retrain["channels"] == 16 else None)
    run_tuning(done, _tuning(trials=18), fake)
    assert _outcomes(done)[:16] == before and len(_outcomes(done)) == 18 and len(fake.asked) == 2


def test_a_damaged_state_is_named_and_without_it_nothing_is_trained_again(tmp_path) -> None:
    run_tuning(tmp_path / "it", _tuning(trials=4), Fake())
    state = tmp_path / "it/tuner/oracle.json"
    state.write_text(state.read_text()[:300])
    with pytest.raises(UsageError, match=r"oracle\.json: damaged .*; remove it, and the tuner proposes anew"):
        run_tuning(tmp_path / "it", _tuning(trials=4), Fake())
    state.unlink()
    fake = Fake()
    run_tuning(tmp_path / "it", _tuning(trials=5), fake)
    assert len(fake.asked) == 1
    (tmp_path / "it/trials/0002.json").write_text("{}")
    with pytest.raises(UsageError, match=r"0002\.json: damaged; remove it to do the trial again"):
        run_tuning(tmp_path / "it", _tuning(trials=6), Fake())


def test_a_full_disk_ends_a_tuning_and_loses_nothing(tmp_path, monkeypatch) -> None:
    full = "cannot write x: no space left on the disk; free some"
    fake = Fake(fail=lambda retrain: full if len(fake.asked) == 3 else None)
    with pytest.raises(RunError, match="no space left on the disk"):
        run_tuning(tmp_path / "it", _tuning(trials=4), fake)
    assert len(_outcomes(tmp_path / "it")) == 2  # it is no trial that failed
    again = Fake()
    run_tuning(tmp_path / "it", _tuning(trials=4), again)
    assert again.asked[0] == fake.asked[2] and len(again.asked) == 2


def test_few_choices_end_a_tuning_early_and_the_same_values_are_not_tried_twice(tmp_path, caplog) -> None:
    few = {"retrain.drop_path": "0,0.1", "retrain.nesterov": "true,false"}
    fake = Fake()
    run_tuning(tmp_path / "random", _tuning(space=few), fake)
    assert len(fake.asked) == 4 and "the ranges hold no more than these 4 trials" in caplog.text
    # The Bayesian tuner proposes what it holds to be best, also twice.
    fake = Fake()
    four = {"retrain.learning_rate": "0.01,0.1,0.2,1"}
    result = run_tuning(tmp_path / "bayesian", _tuning(space=four, tuner="bayesian", trials=6), fake)
    copies = [one for one in result["trials"] if one["same_as"]]
    assert len(fake.asked) + len(copies) == len(result["trials"])
    assert len(fake.asked) <= 4 < len(result["trials"])


def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path, monkeypatch) -> None:
    with pytest.raises(
        UsageError, match="vary retrain.epochs: it cannot be varied: the tuner hyperband sets it"
    ):
        _tuning(tuner="hyperband", trials=None, space={"retrain.epochs": "2..9"})
    with pytest.raises(UsageError, match="the number of trials of the tuner hyperband follows"):
        _tuning(tuner="hyperband")
    with pytest.raises(UsageError, match="objective: found 'loss'; accepted: retrain-loss"):
        _tuning(objective="loss")
    with pytest.raises(UsageError, match="tuner: found 'grid'; accepted: random, hyperband, bayesian"):
        _tuning(tuner="grid")
    with pytest.raises(UsageError, match="objective: found search-loss, which is of a search"):
        _tuning(objective="search-loss")
    with pytest.raises(UsageError, match="true-accuracy takes a table"):
        _tuning(objective="true-accuracy", searches=True)

    def refuse(request: dict[str, Any]) -> dict[str, Any]:
        raise UsageError("retrain.cutout: it is too big")

    with pytest.raises(UsageError, match="it is too big"):
        run_tuning(tmp_path / "it", _tuning(), refuse)
    assert not (tmp_path / "it").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(UsageError, match="the folder is not empty and no tuning"):
        run_tuning(tmp_path / "other", _tuning(), refuse)
    monkeypatch.setitem(runner.importlib.util.sys.modules, "keras_tuner", None)
    with pytest.raises(
        UsageError, match=r"keras-tuner is not installed; install it \(pip install 'gdas-tf\[tune"
    ):
        run_tuning(tmp_path / "it", _tuning(), refuse)
