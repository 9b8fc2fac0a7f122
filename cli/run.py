"""`gdas-tf run`: the whole pipeline."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from gdas_tf import pipeline
from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, say, table, warn
from gdas_tf.cli.job import new_job
from gdas_tf.cli.lookup import describe
from gdas_tf.config.sections import SECTIONS
from gdas_tf.durations import duration, parse_duration
from gdas_tf.errors import UsageError
from gdas_tf.runs.run import FILES

if TYPE_CHECKING:
    from gdas_tf.spaces.genotype import Genotype

_DESCRIPTION = """\
From a labelled image data set to a verified, measured ONNX file: search, derive, retrain, evaluate,
export, benchmark and draw, in this order, in one run directory. Without arguments: the embedded digits,
in minutes. With a genotype, or with a network that is built of none, nothing is searched."""

_EXAMPLES = """\
  gdas-tf run                                            digits, preset quick, in runs/digits-quick
  gdas-tf run --data photos/ --data-image-size 32        your own images, one subfolder per class
  gdas-tf run --data images.npz --seed 1 --run-dir out   arrays `images` and `labels`
  gdas-tf run --preset small --data-dir ~/tensorflow_datasets
                                                         CIFAR-10 on a CPU in an hour or two
  gdas-tf run --preset paper                             CIFAR-10 as in the paper
  gdas-tf run --genotype NASNet-A                        a published cell, from retraining on
  gdas-tf run --network resnet20                         a network of the zoo (gdas-tf zoo)
  gdas-tf run runs/digits-quick --resume                 go on with a run that was stopped
  gdas-tf run --preset small --print-config > my.yaml    a file to edit, for --config my.yaml
  gdas-tf run --json > result.json                       one JSON object, for scripts
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "run", "RUN_DIR", _DESCRIPTION, _EXAMPLES)
    options.add_run_directory(parser, "where to put everything [runs/DATA-PRESET]")
    options.add_what_to_train(parser, "genotype to train, in place of a search")
    options.add_resume(parser, "the run")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="divide a time between search and retraining, as 30m or 2h; end in time with the best network",
    )
    options.add_config(parser, *SECTIONS)
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Runs all stages in order."""
    if options.print_config(args):
        return 0
    started = time.monotonic()
    genotype = options.genotype_to_train(args)
    budget = parse_duration(args.budget) if args.budget else None
    with new_job(args) as job:
        if budget and job.distribution:
            raise UsageError(
                "--budget: its time is planned for one device and measured by one clock; give it without "
                "--distribution, or leave it out"
            )
        if budget or pipeline.Budget.read(job.run):
            job.budget = pipeline.Budget(job.run, budget, options.given_fields(args), started)
        if genotype is not None:
            _give_genotype(job, genotype)
        results = pipeline.run_all(job)
        if not job.chief:
            say("done; the chief has the run directory")
            return 0
        summary = _summarize(job, results, time.monotonic() - started)
    warn(summary["warnings"])
    print_result(args.json, summary, _table(summary))
    return 0


def _give_genotype(job: pipeline.Job, genotype: Genotype) -> None:
    if job.run.begun("search"):
        raise UsageError(
            f"run directory {job.run.path}: its search has begun; --genotype begins a run without a search, "
            "in another run directory"
        )
    pipeline.give_genotype(job.run, genotype)


def _summarize(job: pipeline.Job, results: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Returns what the closing table shows; None for what no ONNX file was there to tell."""
    run = job.run
    genotype = pipeline.genotype_of_network(run)
    files = {name: str(run.file(name)) for name in FILES if run.file(name).exists()}
    files |= {f"export/{name}": path for name, path in results["export"]["files"].items()}
    summary = {
        "run_directory": str(run.path),
        "genotype": genotype.to_text() if genotype is not None else None,
        "warnings": (results["derive"] or {}).get("warnings", []),
        "test_accuracy": results["evaluate"]["accuracy"],
        "test_images": results["evaluate"]["images"],
        "parameters": results["evaluate"]["parameters"],
        "truth": (results["derive"] or {}).get("truth"),
        "onnx_file": None,
        "onnx_bytes": None,
        "latency": None,
        "throughput": None,
        "seconds": round(seconds, 1),
        "budget": job.budget.report() if job.budget else None,
        "stages": results,
        "files": files,
    }
    if results["benchmark"] is not None:
        measured = results["benchmark"]["measurements"]
        first, last = (pick(measured, key=lambda item: item["batch_size"]) for pick in (min, max))
        summary |= {
            "onnx_file": first["file"],
            "onnx_bytes": results["benchmark"]["files"][0]["bytes"],
            "latency": {key: first[key] for key in ("batch_size", "p50_ms", "p95_ms")},
            "throughput": {key: last[key] for key in ("batch_size", "images_per_second")},
        }
    return summary


def _table(summary: dict[str, Any]) -> str:
    rows: list[tuple[str, str] | None] = [
        ("test accuracy", f"{summary['test_accuracy']:.2%} of {summary['test_images']} images"),
        ("parameters", f"{summary['parameters']:,}"),
    ]
    if truth := summary["truth"]:
        rows.insert(1, (f"true accuracy, {truth['column']}", describe(truth)))
    if summary["onnx_file"] is not None:
        latency, throughput = summary["latency"], summary["throughput"]
        rows += [
            ("ONNX file", f"{summary['onnx_bytes'] / 1e6:.2f} MB, {summary['onnx_file']}"),
            (
                f"latency, batch {latency['batch_size']}",
                f"p50 {latency['p50_ms']:.3f} ms, p95 {latency['p95_ms']:.3f} ms",
            ),
            (
                f"throughput, batch {throughput['batch_size']}",
                f"{throughput['images_per_second']:,.0f} images/s",
            ),
        ]
    exported = summary["stages"]["export"]["formats"]
    about = {f"export/{entry['file']}": f"exported as {name}" for name, entry in exported.items()} | FILES
    rows += [
        ("time", duration(summary["seconds"])),
        *_budget_rows(summary["budget"]),
        None,
        *((path, about[name]) for name, path in summary["files"].items()),
    ]
    return f"\n{table(rows)}\n"


def _budget_rows(budget: dict[str, Any] | None) -> list[tuple[str, str] | None]:
    """What was planned of each part of a run, and what was spent."""
    if budget is None:
        return []
    spent, planned = budget["spent"], budget["planned"]
    rows: list[tuple[str, str] | None] = [
        None,
        ("budget", f"{duration(budget['seconds'])}, {duration(sum(spent.values()))} used"),
    ]
    for part, title in pipeline.PARTS_OF_BUDGET.items():
        if planned.get(part) or spent[part] >= 1:
            said = f"{duration(planned.get(part, 0))} planned, {duration(spent[part])} used"
            rows.append((f"  {title}", said))
    cut = [f"{name} {value}" for name, value in budget["decided"].items() if "stop_after" in name]
    return [*rows, *([("  cut", ", ".join(cut))] if cut else [])]
