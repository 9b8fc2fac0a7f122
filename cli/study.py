"""`gdas-tf study`: many runs under one protocol, and what may be believed of them."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.cli import options
from gdas_tf.cli.console import print_result, progress_on_stderr, warn
from gdas_tf.cli.wording import in_flags
from gdas_tf.config.sections import SECTIONS
from gdas_tf.durations import parse_duration
from gdas_tf.errors import RunError, UsageError

if TYPE_CHECKING:
    from gdas_tf.studies.grid import Study

_DESCRIPTION = """\
Does a study: several searches and as many or more random cells, each trained and evaluated under one
protocol, and says whether the search beat random on your data, and what may be believed. Every run of it is
an ordinary run directory. Without arguments: the embedded digits, in less than ten minutes on two cores.

STUDY is one of: verdict (what --search-strategy says against random), table1 (both cells, FRC, random, random
FRC), table3 (FRC with ranks 1,2, 2,3 and 3,4, random, random FRC), sampling (Gumbel, direct), none (left out,
kept), macro, precision, noise (random cells, each trained twice: what is the cell's, and what the seed's),
strategies (all of them, equal compute); or a YAML file."""

_EXAMPLES = """\
  gdas-tf study                                      verdict on digits
  gdas-tf study --data photos/ --data-image-size 32 --budget 2h --jobs 2
                                                     as many runs as fit, on your own images
  gdas-tf study table3 runs/table3 --preset small    a study by name, in a folder of your choice
  gdas-tf study my.yaml --plan                       say what it would see, and end
  gdas-tf study runs/study-verdict --resume          go on with one that was stopped, or add runs by --seeds
  gdas-tf study runs/study-verdict --report          write its report anew
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "study", "STUDY|FOLDER] [FOLDER", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "study", nargs="?", metavar="STUDY|FOLDER", help="name, YAML file, or folder of a study [verdict]"
    )
    parser.add_argument("directory", nargs="?", metavar="FOLDER", help="where to put it [runs/study-NAME]")
    parser.add_argument("--run-dir", metavar="FOLDER", help="the folder, as an option")
    options.add_resume(parser, "a study")
    group = parser.add_argument_group("study")
    group.add_argument("--seeds", type=int, metavar="N", help="runs of each searched arm [5]")
    group.add_argument("--random", type=int, metavar="N", help="runs of each arm of random cells [10]")
    group.add_argument(
        "--budget", metavar="TIME", help="plan as many runs as fit into a time, as 2h or 90min"
    )
    group.add_argument(
        "--jobs", type=int, metavar="N", help="runs side by side [as many as cores, 4 at most; 1 with a GPU]"
    )
    group.add_argument("--plan", action="store_true", help="say what it will take and see, and end")
    group.add_argument("--report", action="store_true", help="write the report of what there is, and end")
    group.add_argument("--executor", default="local", metavar="local|dask", help="where runs run [local]")
    group.add_argument("--scheduler", metavar="ADDRESS", help="of dask, as tcp://host:8786")
    # Its workers take whole runs, which are not divided.
    options.add_config(parser, *(name for name in SECTIONS if name != "distribution"))
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Does a study."""
    from gdas_tf.studies.folder import StudyFolder

    folder, study = _study(args)
    if args.print_config:
        print(study.base().to_yaml(comments=True), end="")
        return 0
    if args.report:
        from gdas_tf.studies.report import write_report

        with progress_on_stderr(), StudyFolder(folder).lock():
            report = write_report(StudyFolder(folder), {})
        _print(args.json, report, report)
        return 0
    args.go_on_with = shlex.join(["gdas-tf", "study", str(folder), "--resume"])
    from gdas_tf.studies.executors import default_jobs
    from gdas_tf.studies.runner import run_study

    try:
        with progress_on_stderr():
            result = run_study(
                folder,
                study,
                jobs=args.jobs if args.jobs is not None else default_jobs(),
                budget=parse_duration(args.budget) if args.budget else None,
                executor=args.executor,
                scheduler=args.scheduler,
                only_plan=args.plan,
            )
    except RunError as error:
        if not StudyFolder.is_one(folder):
            raise
        raise RunError(f"{error}; when that is mended, go on with: {args.go_on_with}") from error
    if args.plan:
        print_result(args.json, result["plan"], "\n".join(result["plan"]["lines"]))
        return 0
    _print(args.json, {"directory": str(folder), **result["report"]}, result["report"])
    if result["failed"]:
        failed = result["failed"]
        name = next(iter(failed))
        raise RunError(
            f"study {folder}: {len(failed)} runs failed and are not counted, as {name}: {failed[name]}; "
            f"try them again by: {args.go_on_with}"
        )
    return 0


def _print(as_json: bool, result: dict[str, Any], report: dict[str, Any]) -> None:
    """Prints what a report says: its verdicts, advice and files as the result, and its warnings."""
    lines = [report["verdict"]]
    if report["hard_verdict"]:
        lines.append(report["hard_verdict"])
    lines += [one["sentence"] for one in report["repeats"] if one["sentence"] != report["verdict"]]
    warn(report["warnings"])
    lines += ["", *map(in_flags, report["advice"]), "", *report["files"].values()]
    print_result(as_json, result, "\n".join(lines))


def _study(args: argparse.Namespace) -> tuple[Path, Study]:
    """Returns the folder and the study that the arguments ask for."""
    from gdas_tf.studies.built_in import DEFAULT
    from gdas_tf.studies.folder import StudyFolder
    from gdas_tf.studies.grid import slug

    directory = options.run_directory(args)
    known = args.study if args.study and StudyFolder.is_one(args.study) else None
    if known and directory and known != directory:
        raise UsageError(f"study: found two folders, {known} and {directory}; give one")
    if known or (directory and args.study is None and StudyFolder.is_one(directory)):
        folder = Path(known or directory)
        if not (args.resume or args.report or args.plan or args.print_config):
            raise UsageError(f"study {folder}: it exists already; resume it, or choose another folder")
        return folder, _changed(args, StudyFolder(folder).study(), known=True)
    study = _changed(args, _named(args.study or DEFAULT), known=False)
    folder = Path(directory or os.path.join("runs", f"study-{slug(study.name)}-{_data(study)}"))
    if StudyFolder.is_one(folder):
        if args.resume or args.report:
            return folder, _changed(args, StudyFolder(folder).study(), known=True)
        if not args.print_config:
            raise UsageError(f"study {folder}: it exists already; resume it, or choose another folder")
    elif args.resume or args.report:
        raise UsageError(f"study {folder}: there is none to go on with; leave --resume out to begin it")
    return folder, study


def _named(name: str) -> Study:
    from gdas_tf.studies.built_in import built_in
    from gdas_tf.studies.grid import Study

    if Path(name).suffix.lower() in (".yaml", ".yml", ".json") or Path(name).is_file():
        return Study.from_file(name)
    return built_in(name)


def _changed(args: argparse.Namespace, study: Study, known: bool) -> Study:
    """Returns a study with the configuration and the numbers of runs that the arguments give.

    The whole configuration is laid down in it, so that another version's defaults do not change it.
    """
    from gdas_tf.config.config import Config
    from gdas_tf.studies.built_in import COMMON, SIZES
    from gdas_tf.studies.grid import Study, flat

    if known:
        base = study.base() if not args.preset else None
    else:
        preset = args.preset or study.preset or options.DEFAULT_PRESET
        base = Config.preset(preset).override({**SIZES.get(preset, {}), **COMMON})
        try:
            base = base.override(study.config)
        except UsageError as error:
            raise UsageError(f"config: {error}") from error
        args.preset = None
    config = options.resolve_config(args, base)
    changes: dict[str, Any] = {"preset": None, "config": flat(config.to_dict())}
    changes["seed"] = config.seed
    for name in ("seeds", "random"):
        value = getattr(args, name)
        if value is not None:
            changes[name] = value
    arms = {name: arm.model_copy() for name, arm in study.arms.items()}
    return Study(**{**study.model_dump(), **changes, "arms": arms})


def _data(study: Study) -> str:
    from gdas_tf.studies.grid import slug

    return slug(Path(study.base().data.name).stem) or "data"
