"""The stages of the pipeline. Each subcommand calls one of these functions, and `run` calls all, in order.

Every stage takes a `Job`, works in its run directory and returns what `--json` prints.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.cli.console import import_tensorflow, say
from gdas_tf.cli.job import Job
from gdas_tf.errors import UsageError
from gdas_tf.files import read_json, write_json
from gdas_tf.runs.run import Run

if TYPE_CHECKING:
    import keras
    import numpy as np

    from gdas_tf.config.sections import Config
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.data.identity import DataIdentity
    from gdas_tf.spaces.genotype import Genotype


def search(job: Job) -> dict[str, Any]:
    """Trains the supernet and its logits."""
    run, config = job.run, job.config.search
    _check_begun(job, "search")
    if run.finished("search"):
        say("the search has finished all its epochs already")
        job.record()
    else:
        data = job.data  # refused here if it has changed
        job.record()
        import_tensorflow()
        from gdas_tf.training.search import search as search_cell

        search_cell(job.config, data, run, resume=job.resume)
    first, last = run.metrics("search")[0], run.metrics("search")[-1]
    return {
        "epochs": config.epochs,
        "accuracy": last["accuracy"],
        # What only strategies have that learn from images of D_V, or have logits.
        "architecture_accuracy": last.get("architecture_accuracy"),
        "normal_entropy": [line["normal_entropy"] for line in (first, last) if "normal_entropy" in line],
        "seconds": sum(line["seconds"] for line in run.metrics("search")),
        "files": _files(run, "search/metrics.jsonl", "search/logits.npz"),
    }


def derive(job: Job) -> dict[str, Any]:
    """Chooses the genotype from the logits of the last epoch."""
    run = job.run
    logits = run.file("search/logits.npz")
    if not logits.exists():
        raise UsageError(f"run directory {run.path}: it has no logits; run gdas-tf search {run.path} first")
    genotype = derive_genotype(logits, job.config)
    set_genotype(run, genotype)
    job.record()
    return {"genotype": genotype.to_text(), "files": _files(run, "genotype.json")}


def retrain(job: Job) -> dict[str, Any]:
    """Trains the derived network from scratch."""
    run = job.run
    genotype = read_genotype(run)
    _check_begun(job, "retrain")
    if run.finished("retrain"):
        say("the retraining has finished all its epochs already")
        job.record()
    else:
        data = job.data  # refused here if it has changed
        job.record()
        import_tensorflow()
        from gdas_tf.training.retraining import retrain as retrain_network

        retrain_network(job.config, data, genotype, run, resume=job.resume)
    last = run.metrics("retrain")[-1]
    return {
        "epochs": job.config.retrain.epochs,
        "accuracy": last["accuracy"],
        "seconds": sum(line["seconds"] for line in run.metrics("retrain")),
        "files": _files(run, "retrain/metrics.jsonl", "model.keras"),
    }


def evaluate(job: Job) -> dict[str, Any]:
    """Measures the retrained network on the test images."""
    model = load_model(model_file(job.run))
    result = {**evaluate_model(model, job.data, job.config), **job.about_data}
    job.record()
    write_json(job.run.file("evaluation.json"), result)
    return {**result, "files": _files(job.run, "evaluation.json")}


def export(job: Job) -> dict[str, Any]:
    """Writes the exports of the retrained network, and verifies them on test images."""
    run = job.run
    model = load_model(model_file(run))
    data, record = job.data, job.data_record
    job.record()
    identity = record.identity if record else None
    result = export_model(model, data, run.path / "export", job.config, read_genotype(run), identity)
    return {**result, **job.about_data}


def benchmark(job: Job) -> dict[str, Any]:
    """Measures the exported ONNX files with onnxruntime."""
    from gdas_tf.export.benchmark import draw_benchmark

    run = job.run
    files = onnx_files(run)
    if not files:
        raise UsageError(
            f"run directory {run.path}: it has no ONNX file; run gdas-tf export {run.path} first"
        )
    verified = _verified_accuracies(run)
    result = measure(files, job.config)
    for about in result["files"]:
        about |= verified.get(Path(about["path"]).name, {})
    job.record()
    write_json(run.file("export/benchmark.json"), result)
    picture = run.file("pictures/benchmark.png")
    draw_benchmark(result, picture)
    return {**result, "written": {**_files(run, "export/benchmark.json"), picture.name: str(picture)}}


def onnx_files(run: Run) -> list[Path]:
    """Returns the ONNX files that were exported, `model.onnx` first."""
    return sorted((run.path / "export").glob("*.onnx"))


def _verified_accuracies(run: Run) -> dict[str, dict[str, Any]]:
    """What the export measured on held-out images, by the name of the file.

    Raises:
        UsageError: its report is damaged.
    """
    path = run.path / "export" / "verification.json"
    if not path.is_file():
        return {}
    report = read_json(path)
    try:
        return {
            # Reports of earlier versions have one number of images for all files.
            entry["file"]: {"accuracy": entry["accuracy"], "images": entry.get("images", report["images"])}
            for entry in report["formats"].values()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: it is no report of an export; run gdas-tf export {run.path} again"
        ) from error


def draw(job: Job) -> dict[str, Any]:
    """Draws the cells and the curves, as far as the run has come."""
    from gdas_tf.drawing.cells import draw_retraining, draw_search

    run = job.run
    pictures = []
    if run.begun("search") and run.file("search/logits.npz").exists():
        logits = load_logits(run.file("search/logits.npz"))
        pictures.append(run.file("pictures/search.png"))
        draw_search(run.metrics("search"), logits, run.config.space, pictures[-1])
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


def derive_genotype(path: str | Path, config: Config) -> Genotype:
    """Returns the genotype of the last logits in a file.

    Args:
        path: an .npz with `normal` [epochs + 1, edges, operations] (or [edges, operations]), and `reduction`
            alike unless the reduction cell is fixed.
        config: operations, nodes, rule and ranks.

    Raises:
        UsageError: the file is missing, damaged, or doesn't fit the search space.
    """
    from gdas_tf.strategies.base import STRATEGIES

    logits = load_logits(path)
    last = {name: values[-1] if values.ndim == 3 else values for name, values in logits.items()}
    space = config.space
    for name, values in last.items():
        wanted = (space.edge_count, len(space.operations))
        if values.shape != wanted:
            raise UsageError(
                f"logits {path}: {name} has shape {list(values.shape)}, and the search space has {wanted[0]} "
                f"edges and {wanted[1]} operations; set --search-operations and --search-nodes as searched"
            )
    return STRATEGIES.get(config.search.strategy).from_config(config).genotype(last, config)


def evaluate_model(model: keras.Model, data: DataSet, config: Config) -> dict[str, Any]:
    """Returns loss, accuracy and parameters of a network on the test images.

    Raises:
        UsageError: the images or classes are not those of the network.
    """
    import_tensorflow()
    from gdas_tf.networks.derived import count_parameters
    from gdas_tf.training.retraining import evaluate as evaluate_network

    result = evaluate_network(model, data, config.retrain.batch_size)
    return {**result, "parameters": count_parameters(model)}


def export_model(
    model: keras.Model,
    data: DataSet,
    folder: Path,
    config: Config,
    genotype: Genotype | None,
    trained_on: DataIdentity | None,
) -> dict[str, Any]:
    """Writes the exports of a network to a folder, and verifies them on test images.

    Raises:
        RunError: an export's outputs differ from the network's; the folder stays as it was.
    """
    from gdas_tf.export.exporter import export_model as export_to

    options = config.export
    return export_to(
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


def measure(files: Sequence[Path], config: Config, data: DataSet | None = None) -> dict[str, Any]:
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


def load_logits(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays `normal` and, unless the reduction cell is fixed, `reduction` of a logits file.

    Raises:
        UsageError: the file is missing or damaged.
    """
    import numpy as np

    if not Path(path).is_file():
        raise UsageError(f"logits {path}: there is no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("normal", "reduction") if name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own
        raise UsageError(f"logits {path}: damaged or not an .npz file ({error})") from error
    if "normal" not in arrays:
        raise UsageError(f"logits {path}: it has no array `normal`; gdas-tf search writes such files")
    for name, values in arrays.items():
        if values.ndim not in (2, 3) or not values.size:
            raise UsageError(
                f"logits {path}: {name} has shape {list(values.shape)}; accepted is "
                "[epochs, edges, operations]"
            )
    return arrays


def parse_genotype(text: str) -> Genotype:
    """Returns the genotype that a file holds, of a known name, or written out in short notation.

    Raises:
        UsageError: it is none of these.
    """
    from gdas_tf.spaces.genotype import GENOTYPES, Genotype

    if text in GENOTYPES or Path(text).suffix in (".json", ".txt"):
        return Genotype.load(text)
    return Genotype.from_text(text)


def draw_cells(genotype: Genotype, folder: Path) -> list[Path]:
    """Draws the cells of a genotype; returns the pictures' paths."""
    from gdas_tf.drawing.cells import draw_genotype

    return draw_genotype(genotype, folder)


def read_genotype(run: Run) -> Genotype:
    """Returns the genotype of a run.

    Raises:
        UsageError: there is none yet, or it is damaged.
    """
    from gdas_tf.spaces.genotype import Genotype

    path = run.file("genotype.json")
    if not path.exists():
        raise UsageError(f"run directory {run.path}: it has no genotype; run gdas-tf derive {run.path} first")
    return Genotype.load(path)


def set_genotype(run: Run, genotype: Genotype) -> None:
    """Writes the genotype of a run.

    Raises:
        UsageError: a network was trained with another one in this run; nothing is touched.
    """
    if run.begun("retrain") and genotype != read_genotype(run):
        raise UsageError(
            f"run directory {run.path}: its network was trained with another genotype; "
            "train this one in another --run-dir"
        )
    genotype.save(run.file("genotype.json"))


def model_file(run: Run) -> Path:
    """Returns the path of the retrained network of a run.

    Raises:
        UsageError: there is none yet.
    """
    path = run.file("model.keras")
    if not path.exists():
        raise UsageError(
            f"run directory {run.path}: it has no trained network; run gdas-tf retrain {run.path} first"
        )
    return path


def load_model(path: str | Path) -> keras.Model:
    """Returns the network of a .keras file.

    Raises:
        UsageError: the file is missing or damaged.
    """
    if not Path(path).is_file():
        raise UsageError(f"model {path}: there is no such file")
    try:
        with open(path, "rb") as file:
            whole = zipfile.is_zipfile(file)
    except OSError as error:
        raise UsageError(f"model {path}: cannot read it: {error.strerror}") from error
    if not whole:
        raise UsageError(
            f"model {path}: damaged or cut off, or not a .keras file; if it is a run directory's, remove it, "
            "and gdas-tf retrain RUN_DIR --resume writes it anew"
        )
    import_tensorflow()
    from gdas_tf.keras_backend import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zipfile, HDF5 and Keras each have errors of their own
        raise UsageError(f"model {path}: damaged or not a .keras file ({error!s:.200})") from error


def _check_begun(job: Job, stage: str) -> None:
    if job.run.begun(stage) and not job.resume:
        raise UsageError(
            f"run directory {job.run.path}: its {stage} has begun already; go on with it by --resume, "
            "or choose another --run-dir"
        )
    job.run.check_version(stage)


def _files(run: Run, *names: str) -> dict[str, str]:
    return {name: str(run.file(name)) for name in names}


STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "search": search,
    "derive": derive,
    "retrain": retrain,
    "evaluate": evaluate,
    "export": export,
    "benchmark": benchmark,
    "draw": draw,
}
