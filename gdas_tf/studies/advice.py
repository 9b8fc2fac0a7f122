"""What to do after a study: which network to take, and what to ask next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Study
from gdas_tf.studies.repeats import best_of_normal
from gdas_tf.studies.statistics import ALPHA

_RACE = 8  # random cells of the race that is advised where cells differ


def chosen(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the run to take: that of the least loss on the validation part of its retraining.

    Args:
        runs: what there is to say of each run, see `gdas_tf.studies.analysis`.

    Returns:
        Its `name`, `val_loss` and `accuracy` (in percent, of the test images, which chose nothing), and `of`,
        the number of runs; None where a run has no validation part.
    """
    if any(run["val_loss"] is None for run in runs):
        return None
    best = min(runs, key=lambda run: (run["val_loss"], run["name"]))
    return {**{key: best[key] for key in ("name", "val_loss", "accuracy")}, "of": len(runs)}


def advice(folder: StudyFolder, study: Study, result: Mapping[str, Any]) -> list[str]:
    """Returns what to do now, an item each.

    Args:
        folder: of the study.
        study: the study.
        result: what it has found: `chosen`, `comparisons`, `against_best`, `repeats` and `runs`.
    """
    lines = []
    if (best := result["chosen"]) is not None:
        lines.append(
            f"The network to take is {folder.run_path(best['name'])}: of all {best['of']} it has the least "
            f"loss on its validation part, and it has {best['accuracy']:.2f} % accuracy on the test images."
        )
    if result["repeats"]:
        return lines + [_after_noise(study, found) for found in result["repeats"]]
    after = _after_verdict(folder, study, result)
    return lines if after is None else [*lines, after]


def _after_noise(study: Study, found: Mapping[str, Any]) -> str:
    """What to do when it is known how much of the spread is the cell's."""
    if found["p"] >= ALPHA:
        return (
            "These trainings do not show that a search would find anything: take a random cell "
            "(search.strategy random), or ask again with longer trainings, wider networks or more images."
        )
    # A training correlates with its cell's worth by the root of the share, which also is the deviation of
    # the cells in units of that of all trainings.
    spread = found["cell"] / math.sqrt(found["share"])
    gain, least = (best_of_normal(_RACE) * share * spread for share in (found["share"], found["interval"][0]))
    return (
        f"Choosing is worth its time here. Of {_RACE} random cells the one that is best in a training as "
        f"long as the final one is expected {gain:.2f} points above the mean, at least {least:.2f} by that "
        f"interval: {_race(study, found['arm'], _RACE)}."
    )


def _after_verdict(folder: StudyFolder, study: Study, result: Mapping[str, Any]) -> str | None:
    """What to do when it is known whether a search beat random cells; None where nobody asked."""
    first = next(iter(result["comparisons"]), None)
    if first is None or first["first"] not in study.searched() or first["second"] not in study.drawn():
        return None
    if first["p"] >= ALPHA:
        random = next(run["name"] for run in result["runs"] if run["arm"] == first["second"])
        return (
            "Ask next whether there is anything to find here: the study noise trains random cells twice, "
            f"and says how much of their spread is the cell's; {folder.run_path(random) / 'config.yaml'} is "
            "a configuration for it."
        )
    pair = (first["first"], first["second"])
    hard = next((one for one in result["against_best"] if (one["first"], one["second"]) == pair), None)
    if first["difference"] < 0 or hard is None or hard["interval"][0] > 0 or hard["draws"] < 2:
        return None
    if study.arm_config(first["first"]).search.strategy == "race":
        return None
    return (
        f"{hard['draws']} random cells, the best of which a validation part chooses, may do as well in the "
        f"same time: {_race(study, first['second'], hard['draws'])}."
    )


def _race(study: Study, arm: str, cells: int) -> str:
    """How to let some random cells race, each trained as the networks of an arm are."""
    epochs = study.arm_config(arm).retrain.epochs
    return f"search.strategy race with race.candidates random:{cells} and race.epochs {epochs}"
