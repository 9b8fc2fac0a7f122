"""The stage that draws what a run has come to: cells, curves, the race of candidates, true accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import UsageError
from gdas_tf.pipeline.artefacts import draw_cells, load_arrays, read_genotype
from gdas_tf.pipeline.job import Job
from gdas_tf.pipeline.truth import true_curve
from gdas_tf.runs.journal import Journal
from gdas_tf.runs.run import Run

if TYPE_CHECKING:
    from gdas_tf.spaces.table import Table


def run_drawing(job: Job) -> dict[str, Any]:
    """Draws the cells and the curves, as far as the run has come.

    Returns:
        `files`: the paths of the pictures by name.

    Raises:
        UsageError: there is nothing to draw yet.
    """
    from gdas_tf.drawing.curves import draw_retraining

    run = job.run
    pictures = []
    if run.begun("search") and run.file("search/logits.npz").exists():
        pictures += _draw_search(run)
        if (table := job.table) is not None:
            arrays = load_arrays(run.file("search/logits.npz"))
            pictures.append(run.file("pictures/true_accuracy.png"))
            _draw_truth(true_curve(arrays, run.config, table, run.config.search.table_column), run, table)
    if run.file("genotype.json").exists():
        pictures += draw_cells(read_genotype(run), run.file("pictures"))
    if run.metrics("retrain"):
        pictures.append(run.file("pictures/retraining.png"))
        draw_retraining(run.metrics("retrain"), pictures[-1])
    if not pictures:
        raise UsageError(
            f"run directory {run.path}: there is nothing to draw yet; no epoch of a search is done"
        )
    return {"files": {path.name: str(path) for path in pictures}}


def _draw_search(run: Run) -> list[Path]:
    """Draws the logits of a search by epoch, or, of a strategy that has none, its metrics."""
    from gdas_tf.drawing.curves import draw_progress, draw_search
    from gdas_tf.drawing.race import draw_race
    from gdas_tf.strategies.base import STRATEGIES

    picture = run.file("pictures/search.png")
    arrays, metrics = load_arrays(run.file("search/logits.npz")), run.metrics("search")
    strategy = STRATEGIES.get(run.config.search.strategy).from_config(run.config)
    if "normal" in arrays:
        draw_search(metrics, arrays, run.config.space, picture)
        return [picture]
    lines = Journal(run.file("search/candidates.jsonl")).read()
    rungs = [line for line in lines if "round" in line]
    candidates = [line for line in lines if "round" not in line]
    pictures = []
    if any(line.get("loss") is not None for line in rungs):
        pictures.append(run.file("pictures/race.png"))
        draw_race(rungs, pictures[-1])
    rounds = "epoch" if strategy.trains_supernet else "round"
    if draw_progress(metrics, candidates, strategy.titles, picture, rounds):
        pictures.append(picture)
    return pictures


def _draw_truth(curve: list[float | None], run: Run, table: Table) -> None:
    from gdas_tf.drawing.truth import draw_truth

    column = table.column(run.config.search.table_column)
    title = f"True accuracy of each epoch's cell: {column}"
    draw_truth(curve, table.best(column), title, run.file("pictures/true_accuracy.png"))
