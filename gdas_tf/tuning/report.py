"""What a tuning has found: a table, the best configuration, pictures, and how far each field mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gdas_tf.drawing.tuning import Axis, draw_importance, draw_trials
from gdas_tf.errors import RunError
from gdas_tf.files import atomic_write, write_json
from gdas_tf.tuning.space import Choices, Dimension, show
from gdas_tf.tuning.study import Tuning, TuningFolder

FEWEST = 10
"""Trials that it takes to say how far a field mattered."""

Trial = Mapping[str, Any]


def values_text(values: Mapping[str, Any], epochs: int | None) -> str:
    """Returns the values of a trial in one line."""
    texts = [f"{name} {show(value)}" for name, value in values.items()]
    return ", ".join([*texts, *([] if epochs is None else [f"{epochs} epochs"])])


def score_text(tuning: Tuning, kept: Trial) -> str:
    """Returns what became of a trial, in one line."""
    if kept["failed"] is not None:
        return f"failed: {kept['failed']}"
    text = f"{tuning.objective} {tuning.aim.show(kept['score'])}"
    return text + (f", as trial {kept['same_as']}, which had the same values" if kept["same_as"] else "")


def ranked(trials: Sequence[Trial], tuning: Tuning) -> list[Trial]:
    """Returns the trials that have a score, the best first.

    Trials of fewer epochs, as hyperband has, come after those of more: their scores are of another kind.
    """
    sign = 1.0 if tuning.aim.direction == "min" else -1.0
    good = [trial for trial in trials if trial["failed"] is None]
    return sorted(good, key=lambda one: (-(one["epochs"] or 0), sign * one["score"], one["number"]))


def write_report(folder: TuningFolder) -> dict[str, Any]:
    """Writes tuning.json, tuning.md, best.yaml and the pictures into the folder of a tuning.

    Args:
        folder: of the tuning.

    Returns:
        What tuning.json holds: `directory`, `objective`, `direction`, `tuner`, `space`, `trials` (those with
        a score first, the best at the front), `best`, `importance` (None where there are too few trials),
        `validation_images`, `cautions` and `files`, the paths by name.

    Raises:
        RunError: no trial has a score, or the disk is full.
    """
    tuning, trials = folder.tuning(), folder.trials()
    good = ranked(trials, tuning)
    failed = [trial for trial in trials if trial["failed"] is not None]
    if not good:
        reason = failed[0]["failed"] if failed else "none has ended"
        raise RunError(f"tuning {folder.path}: no trial has ended well, as the first: {reason}")
    best = good[0]
    files = {name: folder.path / name for name in ("tuning.md", "tuning.json", "best.yaml")}
    result = {
        "directory": str(folder.path),
        "objective": tuning.objective,
        "direction": tuning.aim.direction,
        "tuner": tuning.tuner,
        "space": {name: one.describe() for name, one in tuning.dimensions.items()},
        "best": _plain_trial(best),
        "trials": [_plain_trial(trial) for trial in (*good, *failed)],
        "importance": importance(good, tuning),
        "validation_images": best["found"].get("validation_images"),
    }
    result["cautions"] = _cautions(tuning, good, result)
    files |= _draw(folder, tuning, good, result["importance"])
    result["files"] = {name: str(path) for name, path in files.items()}
    atomic_write(files["best.yaml"], _best_yaml(tuning, best, len(trials)))
    atomic_write(files["tuning.md"], _markdown(tuning, result, len(trials)))
    write_json(files["tuning.json"], result)
    return result


def table(tuning: Tuning, result: Mapping[str, Any], most: int | None = None) -> list[list[str]]:
    """Returns the trials as rows of texts, below a heading; at most so many of them."""
    fields = list(tuning.dimensions)
    hyperband = tuning.tuner == "hyperband"
    rows = [["trial", tuning.objective, *fields, *(["epochs"] if hyperband else []), "time"]]
    for trial in result["trials"][:most]:
        score = "failed" if trial["score"] is None else tuning.aim.show(trial["score"])
        values = [show(trial["values"][name]) for name in fields]
        seconds = "" if trial["seconds"] is None else f"{trial['seconds']:.0f} s"
        epochs = [str(trial["epochs"])] if hyperband else []
        rows.append([str(trial["number"]), score, *values, *epochs, seconds])
    return rows


def importance(good: Sequence[Trial], tuning: Tuning) -> dict[str, Any] | None:
    """Returns how far each field that is varied mattered for the score, as far as the trials tell.

    A random forest (scikit-learn) learns the scores from the values. The importance of a field is by how much
    of the variance it explains less where the values of that field are mixed up (permutation importance,
    Breiman 2001), ten times.

    Args:
        good: the trials that have a score.
        tuning: the tuning.

    Returns:
        `fields`, of each `mean` and `deviation`, the most important first, and `explained`, the share of the
        variance that the forest explains on trials that it has not learned from: where it is not well above
        0, the forest knows nothing, and the importances say nothing. None of fewer than `FEWEST` trials, or
        where all scores are the same.
    """
    scores = np.array([trial["score"] for trial in good])
    if len(good) < FEWEST or np.ptp(scores) == 0:
        return None
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    columns = _columns(good, tuning)
    inputs = np.array(list(columns.values())).T
    forest = RandomForestRegressor(200, oob_score=True, random_state=0).fit(inputs, scores)
    found = permutation_importance(forest, inputs, scores, n_repeats=10, random_state=0)
    order = np.argsort(-found.importances_mean)
    names = list(columns)
    return {
        "explained": float(forest.oob_score_),
        "fields": {
            names[at]: {
                "mean": float(found.importances_mean[at]),
                "deviation": float(found.importances_std[at]),
            }
            for at in order
        },
    }


def _columns(trials: Sequence[Trial], tuning: Tuning) -> dict[str, list[float]]:
    """The positions of the values of trials, from 0 to 1, by field; with the epochs of hyperband's."""
    columns = {
        name: [one.position(trial["values"][name]) for trial in trials]
        for name, one in tuning.dimensions.items()
    }
    if tuning.tuner == "hyperband":
        columns["epochs"] = [trial["epochs"] / tuning.most_epochs for trial in trials]
    return columns


def _plain_trial(trial: Trial) -> dict[str, Any]:
    found = {name: value for name, value in trial["found"].items() if name != "seconds"}
    return {
        **{name: trial[name] for name in ("number", "score", "values", "epochs", "failed", "same_as")},
        "seconds": trial["found"].get("seconds"),
        "found": found,
    }


def _best_yaml(tuning: Tuning, best: Trial, count: int) -> str:
    head = [
        f"# The best of {count} trials, trial {best['number']}: {score_text(tuning, best)}.",
        *(f"# varied: {name} = {show(value)}" for name, value in best["values"].items()),
    ]
    return "\n".join(head) + "\n" + tuning.trial_config(best["values"]).to_yaml()


def _cautions(tuning: Tuning, good: Sequence[Trial], result: Mapping[str, Any]) -> list[str]:
    """What to beware of in these figures."""
    count, images = len(good), result["validation_images"]
    best = tuning.aim.show(good[0]["score"])
    lines = []
    if tuning.aim.of == "table":
        lines.append(
            f"{best} is the best of {count}: a search with another seed finds another cell; repeat it by "
            "a study before you believe in the values"
        )
    else:
        lines.append(
            f"{best} is the best of {count} on the images that it was chosen by, and so too good: the more "
            "trials, the more so; train with it, and measure it on the test images once"
        )
    if tuning.aim.percent and images:
        share = good[0]["score"]
        error = math.sqrt(max(share * (1.0 - share), 1e-9) / images)
        lines.append(
            f"D_V has {images} images: the accuracy of one network on them strays by {100 * error:.1f} "
            "points (standard error); trials that are nearer to each other than that are alike"
        )
    explained = (result["importance"] or {}).get("explained")
    if explained is not None and explained < 0.1:
        lines.append(
            f"the forest behind the importances explains {max(explained, 0.0):.0%} of the variance of trials "
            "that it has not seen: they say next to nothing"
        )
    return lines


def _draw(
    folder: TuningFolder, tuning: Tuning, good: Sequence[Trial], found: Mapping[str, Any] | None
) -> dict[str, Any]:
    place = folder.path / "pictures"
    columns = _columns(good, tuning)
    axes = [_axis(name, one, columns[name]) for name, one in tuning.dimensions.items()]
    if "epochs" in columns:
        most = tuning.most_epochs
        ticks = {epochs / most: str(epochs) for epochs in sorted({trial["epochs"] for trial in good})}
        axes.append(Axis("epochs", columns["epochs"], ticks))
    drawn = {"pictures/trials.png": place / "trials.png"}
    title = f"{tuning.objective} of {len(good)} trials"
    scores = [trial["score"] for trial in good]
    draw_trials(
        axes, scores, tuning.aim.direction == "min", tuning.aim.show, title, drawn["pictures/trials.png"]
    )
    if found is not None:
        drawn["pictures/importance.png"] = place / "importance.png"
        title = f"Importance for {tuning.objective}; the forest explains {max(found['explained'], 0.0):.0%}"
        draw_importance(found["fields"], title, drawn["pictures/importance.png"])
    return drawn


def _axis(name: str, dimension: Dimension, positions: Sequence[float]) -> Axis:
    if isinstance(dimension, Choices):
        return Axis(name, positions, {dimension.position(one): show(one) for one in dimension.values})
    low, high = dimension.low, dimension.high
    middle = math.sqrt(low * high) if dimension.log else (low + high) / 2
    if dimension.whole:
        middle = round(middle)
    return Axis(name, positions, {dimension.position(value): show(value) for value in (low, middle, high)})


def _markdown(tuning: Tuning, result: Mapping[str, Any], count: int) -> str:
    heading, *rows = table(tuning, result)
    lines = [
        f"# Tuning by {tuning.objective}",
        "",
        f"{count} trials by the tuner {tuning.tuner}; judged by the {tuning.aim.about}. The best first.",
        "",
        *(f"- `{name}`: {text}" for name, text in result["space"].items()),
        "",
        "| " + " | ".join(heading) + " |",
        "|" + "---|" * len(heading),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "![Every trial is a line](pictures/trials.png)",
        "",
    ]
    if result["importance"] is not None:
        lines += ["![How far each field mattered](pictures/importance.png)", ""]
    lines += [f"- {line}." for line in result["cautions"]]
    failed = [trial for trial in result["trials"] if trial["failed"] is not None]
    lines += [f"- Trial {trial['number']} failed: {trial['failed']}." for trial in failed]
    lines += ["", "The best as a configuration file: `best.yaml`."]
    return "\n".join(lines) + "\n"
