"""Several replicas: what two do is what one does; what cannot be divided is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gdas_tf.config.config import Config
from gdas_tf.distribution import Distribution, start
from gdas_tf.errors import UsageError
from gdas_tf.runs.run import Run
from gdas_tf.training.callbacks import Checkpoint
from gdas_tf.training.dividing import check_divided


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `two_replicas.py` prints."""
    script = Path(__file__).with_name("two_replicas.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("search_weights", 2e-5),
        ("search_metrics", 2e-5),
        ("search_logits", 1e-3),  # of two steps of 0.01; Adam makes much of small gradients
        ("search_statistics", 0.02),  # variances are estimated with n - 1, of half as many values
    ],
)
def test_a_step_of_two_replicas_is_that_of_one(found: dict[str, Any], name: str, tolerance: float) -> None:
    """Of the same images in both halves, so that batch norms see the same; sums are in another order."""
    assert found[f"{name}_sum"] > 0
    assert found[name] < tolerance


def test_two_replicas_move_the_weights_that_one_moves(found: dict[str, Any]) -> None:
    assert found["search_moved"] == 0
    assert found["search_moved_sum"] > 0


def test_a_step_of_retraining_is_that_of_one_replica(found: dict[str, Any]) -> None:
    """With mixup, smoothed labels, class weights and an average of the weights."""
    for name in ("weights", "average", "averaged_away", "metrics"):
        assert found[f"retrain_{name}_sum"] > 0
        assert found[f"retrain_{name}"] < 2e-5, name


@pytest.mark.parametrize("name", ["sgd", "flat_sgd"])
def test_the_mean_of_the_gradients_is_clipped(found: dict[str, Any], name: str) -> None:
    """(3, 0) and (0, 4) have the mean (1.5, 2), of norm 2.5; clipped each alone it were (0.5, 0.5)."""
    assert found[name] == pytest.approx([-0.6, -0.8])


def test_masks_and_loss_scaling_hold_in_every_replica(found: dict[str, Any]) -> None:
    assert found["masked"] == [-0.375, 0.0, 4.0]
    assert found["not_finite"] == [0.0, 0.0, 2.0]  # one replica is enough to leave out the step of all


def test_replicas_drop_the_paths_that_one_drops(found: dict[str, Any]) -> None:
    assert found["dropped"]


def test_each_replica_has_its_part_of_every_batch(found: dict[str, Any]) -> None:
    assert found["replicas"] == 2
    assert found["shared"] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


def test_one_replica_is_no_distribution() -> None:
    distribution = start("none", None, 1, "")
    assert (distribution.strategy, distribution.replicas, distribution.chief) == (None, 1, True)
    batches = object()
    assert distribution.share(batches) is batches


def test_more_replicas_than_devices_are_refused() -> None:
    with pytest.raises(UsageError, match=r"distribution.replicas: found 4000, and this machine has \d+ "):
        start("mirrored", 4000, 1, "")


@pytest.mark.parametrize(
    ("changes", "stage", "message"),
    [
        (
            {"search.batch_size": 9},
            "search",
            "search.batch_size: found 9 images, which 2 replicas cannot share evenly; accepted are multiples",
        ),
        (
            {"retrain.batch_size": 96},
            "retrain",
            r"retrain.batch_size: found 77 images, all that there are \(of 96\), which 2 replicas",
        ),
        (
            {"retrain.jit_compile": True, "retrain.batch_size": 8},
            "retrain",
            "retrain.jit_compile: found true",
        ),
        ({"search.strategy": "race"}, "search", "search.strategy: found race with 2 replicas: it trains its"),
        ({"search.strategy": "robust"}, "search", "search.strategy: found robust with 2 replicas: it trains"),
        (
            {"search.strategy": "darts", "darts.order": "second"},
            "search",
            "search.strategy: found darts with 2 replicas: by darts.order second",
        ),
        ({"search.strategy": "random"}, "search", "it trains nothing"),
        ({"search.strategy": "enas", "enas.controller_steps": 2}, "search", "a phase of its own"),
    ],
)
def test_what_replicas_cannot_share_is_refused(changes: dict[str, Any], stage: str, message: str) -> None:
    config = Config().override(changes)
    check_divided(config, stage, 1, 77)
    with pytest.raises(UsageError, match=message):
        check_divided(config, stage, 2, 77)


@pytest.mark.parametrize("strategy", ["gdas", "darts", "enas"])
def test_strategies_that_learn_from_means_are_divided(strategy: str) -> None:
    check_divided(Config().override({"search.strategy": strategy}), "search", 2, 64)


def test_another_number_of_replicas_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Config())
    Checkpoint(run, "search", [], replicas=2).on_epoch_end(0)
    assert Checkpoint(run, "search", [], replicas=2).begin(resume=True) == 1
    with pytest.raises(UsageError, match="its search began with 2 replicas, and now there would be 1; go on"):
        Checkpoint(run, "search", []).begin(resume=True)


def test_a_batch_is_divided_evenly() -> None:
    assert Distribution().part(7) == 7
