"""The stages of the pipeline, each a function of a `Job`, and all of them in order.

A stage works in the run directory of its job and returns its results as plain values, which JSON takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import MissingStageError, RunError, UsageError
from gdas_tf.files import write_json
from gdas_tf.notes import progress
from gdas_tf.numerics.starting import start_tensorflow
from gdas_tf.pipeline.artefacts import (
    genotype_of_logits,
    genotype_of_network,
    load_arrays,
    load_model,
    model_file,
    read_genotype,
    set_genotype,
    takes_genotype,
    verified_accuracies,
)
from gdas_tf.pipeline.budget import retrain_within
from gdas_tf.pipeline.certainty import how_certain
from gdas_tf.pipeline.confusion import draw_evaluation
from gdas_tf.pipeline.distributed import lost_workers
from gdas_tf.pipeline.job import Job
from gdas_tf.pipeline.pictures import run_drawing
from gdas_tf.pipeline.truth import look_up, true_curve
from gdas_tf.runs.best_epoch import kept_line
from gdas_tf.runs.run import Run

if TYPE_CHECKING:
    import keras

    from gdas_tf.config.config import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataIdentity
    from gdas_tf.spaces.genotype import Genotype


def check_before_start(job: Job, stages: Sequence[str], genotype: Genotype | None = None) -> None:
    """Finds out what would fail later; the run directory gets back the configuration that it had if any does.

    Args:
        job: the job.
        stages: those that will be run, as far as they have something to check (`gdas_tf.preflight.STAGES`).
        genotype: what will be trained, if it is known.

    Raises:
        UsageError: a stage cannot be done; the message names fields of the configuration.
        RunError: a folder cannot be written.
    """
    from gdas_tf import preflight

    try:
        job.table  # noqa: B018 (to read it is to check it)
        preflight.check_before_start(job.config, job.data, stages, genotype, job.run.path, job.replicas)
    except (UsageError, RunError):
        if job.config_before not in (None, job.config):
            job.run.set_config(job.config_before)
        raise


def run_all(job: Job) -> dict[str, dict[str, Any] | None]:
    """Runs all stages, in the order of `STAGES`, after a check of what can be known before the first.

    A search and a retraining that have finished all their epochs are not done again. Search and derivation
    are left out where the run directory was given a genotype, or its network is built of none. `job.results`
    grows with every finished stage, and stays when a later one fails.

    Args:
        job: the job; with `resume` if a stage of it has begun already. With a `budget` the time is divided
            first, and what there is no time for is left out.

    Returns:
        The results of each stage by its name; None for the stages that were left out, as the benchmark where
        no ONNX file was asked for.

    Raises:
        UsageError: a stage cannot be done with this configuration or these data.
        RunError: a stage failed; what was done before it is in the run directory.

    Example:
        >>> with begin("runs/digits", Config.preset("quick")) as job:
        ...     run_all(job)["evaluate"]["accuracy"]
    """
    run = job.run
    finished = [name for name in ("search", "retrain") if run.finished(name)]
    derived = read_genotype(run) if run.file("genotype.json").exists() else None
    left_out = _without_search(run)
    stages = [name for name in STAGES if name not in finished and name not in left_out]
    check_before_start(job, stages, derived)
    if job.budget and "retrain" in stages:
        job.budget.plan(job.data, stages)
    for number, (name, stage) in enumerate(STAGES.items(), 1):
        if not job.chief and name not in ("search", "derive", "retrain"):
            break  # the rest is the chief's
        progress(f"[{number}/{len(STAGES)}] {name}")
        if name == "benchmark" and not run.onnx_files():
            left_out[name] = "export.formats names no ONNX file, and only those are measured"
        elif name == "benchmark" and job.budget and job.budget.left() < 0:
            left_out[name] = "the time is up"
        if name in left_out:
            progress(f"skipped: {left_out[name]}")
        if name == "evaluate" and job.budget:
            job.budget.enter("rest")
        job.results[name] = None if name in left_out else stage(job)
    if job.budget:
        job.budget.enter("rest")
    return job.results


def _without_search(run: Run) -> dict[str, str]:
    """The stages that find a genotype, each with the reason, where the run needs none to be found."""
    if not takes_genotype(run.config):
        why = f"the network {run.config.retrain.network} is built of no genotype"
    elif run.file("genotype.json").exists() and not run.begun("search"):
        why = "the genotype was given"
    else:
        return {}
    return {"search": why, "derive": why}


def run_search(job: Job) -> dict[str, Any]:
    """Trains the supernet and its logits, or searches as another strategy does.

    Returns:
        `epochs` (or rounds, of a strategy without a supernet), `accuracy` (of the last epoch, where weights
        learn), `architecture_accuracy` (where the logits learn), `best_loss` (on D_V, of the best candidate),
        `normal_entropy` (nats per edge, after the first and the last epoch), `seconds` of all epochs,
        `warnings` (lines on a result that is a coin flip or degenerate), and `files`. What a strategy has not
        is None or empty.

    Raises:
        UsageError: the search has begun and the job does not resume, or the data have changed since.
        RunError: the search diverged, or the disk is full or read-only.
    """
    run = job.run
    _check_begun(job, "search")
    if run.finished("search"):
        progress("the search has finished all its epochs already")
        job.record()
    else:
        data = job.data  # refused here if it has changed
        job.record()
        start_tensorflow()
        from gdas_tf.training.search import search

        limit = job.budget.search_limit() if job.budget else None
        with lost_workers(job.distribution):
            search(job.config, data, run, job.resume, limit=limit, distribution=job.distribution)
    first, last = run.metrics("search")[0], run.metrics("search")[-1]
    return {
        "epochs": len(run.metrics("search")),
        # Each strategy has some of these: weights, learning from images of D_V, candidates, logits.
        "accuracy": last.get("accuracy"),
        "architecture_accuracy": last.get("architecture_accuracy"),
        "best_loss": last.get("best_loss"),
        "normal_entropy": [line["normal_entropy"] for line in (first, last) if "normal_entropy" in line],
        "seconds": sum(line["seconds"] for line in run.metrics("search")),
        "warnings": how_certain(run.file("search/logits.npz"), job.config)["warnings"],
        "files": _files(run, "search/metrics.jsonl", "search/logits.npz"),
    }


def run_derivation(job: Job) -> dict[str, Any]:
    """Chooses the genotype from the logits of the last epoch.

    Returns:
        `genotype` in its notation, `edges` and `warnings` as `gdas_tf.pipeline.certainty.how_certain` gives
        them, and `files`; with a table of true accuracies (`search.table`) also `truth`: what
        `gdas_tf.pipeline.truth.look_up` returns, and `epochs`, the accuracies of the cells that the search
        would have given before its first epoch and after each.

    Raises:
        UsageError: there are no logits yet, or a network was trained with another genotype in this run.
    """
    run = job.run
    logits = run.file("search/logits.npz")
    if not logits.exists():
        raise MissingStageError(run.path, "no logits", "search")
    genotype = genotype_of_logits(logits, job.config)
    truth = {}
    if (table := job.table) is not None:
        column = job.config.search.table_column
        curve = true_curve(load_arrays(logits), job.config, table, column)
        truth = {"truth": {**look_up(genotype, table, column), "epochs": curve}}
    set_genotype(run, genotype)
    job.record()
    certain = how_certain(logits, job.config, genotype)
    files = _files(run, "genotype.json")
    return {"genotype": genotype.to_text(), **certain, "files": files, **truth}


def run_retraining(job: Job) -> dict[str, Any]:
    """Trains the derived network, or the one that `retrain.network` names, from scratch.

    Returns:
        `epochs` that were done, `accuracy` (of the training images in the last of them), `kept_epoch` (whose
        weights the network has), with a validation part `val_loss` and `val_accuracy` of that epoch and
        `ended_early` (whether patience was at its end before the last epoch), `seconds` of all epochs, and
        `files`.

    Raises:
        UsageError: there is no genotype yet that the network could be built of, the retraining has begun and
            the job does not resume, or the data have changed since.
        RunError: the retraining diverged, or the disk is full or read-only.
    """
    run = job.run
    genotype = genotype_of_network(run)
    _check_begun(job, "retrain")
    if run.finished("retrain"):
        progress("the retraining has finished all its epochs already")
        job.record()
    else:
        data = job.data  # refused here if it has changed
        job.record()
        start_tensorflow()
        from gdas_tf.training.retraining import retrain

        if job.budget:
            retrain_within(job.budget, job, genotype)
        else:
            with lost_workers(job.distribution):
                retrain(job.config, data, genotype, run, job.resume, distribution=job.distribution)
    lines, settings = run.metrics("retrain"), job.config.retrain
    kept = kept_line(lines, settings.keep)
    validated = {name: kept.get(name) for name in ("val_loss", "val_accuracy")}
    return {
        "epochs": len(lines),
        "accuracy": lines[-1]["accuracy"],
        "kept_epoch": lines.index(kept) + 1,
        **({**validated, "ended_early": len(lines) < settings.epochs} if settings.validation else {}),
        "seconds": sum(line["seconds"] for line in lines),
        "files": _files(run, "retrain/metrics.jsonl", "model.keras"),
    }


def run_evaluation(job: Job) -> dict[str, Any]:
    """Measures the retrained network on the test images.

    Returns:
        What `evaluate_network` returns, `data_change` where a change of the data was accepted, and `files`,
        with the picture of the confusion matrix among them.

    Raises:
        UsageError: there is no trained network yet, or the data have changed and the job does not accept it.
    """
    model = load_model(model_file(job.run))
    result = {**evaluate_network(model, job.data, job.config), **job.about_data}
    job.record()
    write_json(job.run.file("evaluation.json"), result)
    draw_evaluation(result, job.run.file("pictures/confusion.png"))
    return {**result, "files": _files(job.run, "evaluation.json", "pictures/confusion.png")}


def run_export(job: Job) -> dict[str, Any]:
    """Writes the exports of the retrained network, and verifies them on test images.

    Returns:
        What `gdas_tf.export.exporter.export_model` returns, and `data_change` where a change of the data was
        accepted.

    Raises:
        UsageError: there is no trained network yet, or the data have changed and the job does not accept it.
        RunError: an export's outputs differ from the network's; what was there stays.
    """
    run = job.run
    model = load_model(model_file(run))
    data, record = job.data, job.data_record
    job.record()
    identity = record.identity if record else None
    result = export_network(model, data, run.path / "export", job.config, genotype_of_network(run), identity)
    return {**result, **job.about_data}


def run_benchmark(job: Job) -> dict[str, Any]:
    """Measures the exported ONNX files with onnxruntime. Needs no TensorFlow.

    Returns:
        What `measure_files` returns, with the accuracies that the export measured, and `written`, the paths
        of the result and its picture by name.

    Raises:
        UsageError: there is no ONNX file yet.
    """
    from gdas_tf.export.benchmark import draw_benchmark

    run = job.run
    files = run.onnx_files()
    if not files:
        raise MissingStageError(run.path, "no ONNX file", "export")
    verified = verified_accuracies(run)
    result = measure_files(files, job.config)
    for about in result["files"]:
        about |= verified.get(Path(about["path"]).name, {})
    job.record()
    write_json(run.file("export/benchmark.json"), result)
    picture = run.file("pictures/benchmark.png")
    draw_benchmark(result, picture)
    return {**result, "written": {**_files(run, "export/benchmark.json"), picture.name: str(picture)}}


STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "search": run_search,
    "derive": run_derivation,
    "retrain": run_retraining,
    "evaluate": run_evaluation,
    "export": run_export,
    "benchmark": run_benchmark,
    "draw": run_drawing,
}
"""The stages by name, in their order."""


def evaluate_network(model: keras.Model, data: DataSet, config: Config) -> dict[str, Any]:
    """Returns what `gdas_tf.training.retraining.evaluate` does, and the number of parameters.

    Raises:
        UsageError: the images or classes are not those of the network.
    """
    start_tensorflow()
    from gdas_tf.networks.derived import count_parameters
    from gdas_tf.training.retraining import evaluate

    result = evaluate(model, data, config.retrain.batch_size)
    return {**result, "parameters": count_parameters(model)}


def export_network(
    model: keras.Model,
    data: DataSet,
    folder: Path,
    config: Config,
    genotype: Genotype | None,
    trained_on: DataIdentity | None,
) -> dict[str, Any]:
    """Writes the exports of a network to a folder as a configuration says, and verifies them on test images.

    Raises:
        RunError: an export's outputs differ from the network's; the folder stays as it was.
    """
    from gdas_tf.export.exporter import export_model

    options = config.export
    return export_model(
        model,
        data,
        folder,
        formats=options.formats,
        tolerance=options.tolerance,
        images=options.images,
        calibration_images=options.calibration_images,
        genotype=genotype,
        trained_on=trained_on,
    )


def measure_files(files: Sequence[Path], config: Config, data: DataSet | None = None) -> dict[str, Any]:
    """Returns latency and throughput of ONNX files, with data also accuracy. Needs no TensorFlow."""
    from gdas_tf.export.benchmark import benchmark_models

    options = config.benchmark
    labelled = {"images": data.test.images, "labels": data.test.labels} if data else {}
    return benchmark_models(
        files,
        batch_sizes=options.batch_sizes,
        threads=options.threads,
        seconds=options.seconds,
        warm_up=options.warm_up,
        rounds=options.rounds,
        providers=options.providers,
        **labelled,
    )


def _check_begun(job: Job, stage: str) -> None:
    if job.run.begun(stage) and not job.resume:
        raise UsageError(
            f"run directory {job.run.path}: its {stage} has begun already; resume it, or choose another run "
            "directory"
        )
    job.run.check_version(stage)


def _files(run: Run, *names: str) -> dict[str, str]:
    return {name: str(run.file(name)) for name in names}
