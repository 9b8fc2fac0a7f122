"""`gdas-tf tune`: trials of configurations, and which values were best."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.cli import options
from gdas_tf.cli.console import columns, print_result, progress_on_stderr
from gdas_tf.cli.job import default_name
from gdas_tf.config.sections import SECTIONS
from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import is_run_directory

if TYPE_CHECKING:
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.tuning.study import Tuning

_DESCRIPTION = """\
Tunes: tries values of fields of the configuration, as keras-tuner proposes them, and says which were best.
With a run directory that has a genotype, with --genotype or with --network, it tunes the retraining: each
trial trains on D_T, one half of the training images, and is judged on D_V, the other. Otherwise it tunes the
search. Test images are never looked at. Every trial is kept, and --resume goes on after a kill at any moment.

RANGE of --vary FIELD=RANGE is LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP, or values as 0,0.1,0.2. FIELD is a
name of --print-config with its section, as retrain.drop_path.

With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT in its environment it is the chief
of several workers, or one of them (docs/tuning.md)."""

_EXAMPLES = """\
  gdas-tf tune runs/digits-quick --vary retrain.drop_path=0,0.1 --vary retrain.cutout=0..8
  gdas-tf tune --genotype GDAS_V1 --data photos/ --data-image-size 32 --retrain-epochs 20 --space my.yaml
  gdas-tf tune --tuner bayesian --trials 30 --vary search.architecture_learning_rate=1e-4..3e-2:log
  gdas-tf tune --tuner hyperband --network resnet20 --retrain-epochs 27 \\
      --vary retrain.weight_decay=1e-5..1e-2:log
  gdas-tf tune --objective true-accuracy --search-space nasbench201 --search-table nb201.csv \\
      --vary search.architecture_learning_rate=1e-4..3e-2:log
  gdas-tf tune runs/tune-digits-quick --resume               go on with one that was stopped
  gdas-tf tune runs/tune-digits-quick --resume --trials 40   add trials
"""

_TRIALS = 20


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "tune", "RUN_DIR|FOLDER] [FOLDER", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "target", nargs="?", metavar="RUN_DIR|FOLDER", help="run directory to tune for, or folder of a tuning"
    )
    parser.add_argument("directory", nargs="?", metavar="FOLDER", help="where to put it [runs/tune-NAME]")
    parser.add_argument("--run-dir", metavar="FOLDER", help="the folder, as an option")
    options.add_resume(parser, "a tuning")
    group = parser.add_argument_group("tuning")
    vary = {"action": "append", "default": [], "metavar": "FIELD=RANGE"}
    group.add_argument("--vary", **vary, help="a field to vary; any number of times")
    group.add_argument("--space", metavar="FILE", help="YAML file of fields and ranges; --vary goes over it")
    group.add_argument("--tuner", metavar="random|hyperband|bayesian", help="who proposes values [random]")
    group.add_argument(
        "--objective",
        metavar="NAME",
        help="retrain-loss, retrain-accuracy, search-loss, search-accuracy, or true-accuracy by "
        "--search-table [retrain-loss where there is something to retrain, else search-loss]",
    )
    group.add_argument("--trials", type=int, metavar="N", help=f"trials of random and bayesian [{_TRIALS}]")
    factor = "of hyperband: one of so many trials goes on, for so many times the epochs [3]"
    group.add_argument("--factor", type=int, metavar="N", help=factor)
    iterations = "of hyperband: how often all of it is done [1]"
    group.add_argument("--iterations", type=int, metavar="N", help=iterations)
    group.add_argument("--report", action="store_true", help="write the report of what there is, and end")
    options.add_what_to_train(parser, "genotype whose retraining is tuned")
    # Its workers take whole runs, which are not divided.
    options.add_config(parser, *(name for name in SECTIONS if name != "distribution"))
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Tunes."""
    from gdas_tf.tuning import distributed
    from gdas_tf.tuning.report import write_report
    from gdas_tf.tuning.runner import check_installed, run_tuning, run_worker
    from gdas_tf.tuning.study import TuningFolder

    worker = distributed.role().worker
    folder, run = _places(args)
    known = TuningFolder.is_one(folder)
    args.go_on_with = shlex.join(["gdas-tf", "tune", str(folder), "--resume"])
    if worker:
        check_installed()
        with progress_on_stderr():
            result = run_worker(folder)
        print_result(args.json, result, f"worker {result['worker']}: {result['trials']} trials")
        return 0
    _check_known(args, folder, known)
    if args.report:
        with TuningFolder(folder).lock():
            result = write_report(TuningFolder(folder))
    else:
        tuning = _changed(args, TuningFolder(folder).tuning()) if known else _new(args, run)
        if args.print_config:
            print(tuning.base.to_yaml(comments=True), end="")
            return 0
        try:
            with progress_on_stderr():
                result = run_tuning(folder, tuning)
        except RunError as error:
            raise RunError(f"{error}; when that is mended, go on with: {args.go_on_with}") from error
    tuning = TuningFolder(folder).tuning()
    result["next"] = _next(folder, tuning)
    print_result(args.json, result, _text(tuning, result))
    return 0


def _next(folder: Path, tuning: Tuning) -> str:
    """The command that takes the best configuration."""
    config = ["--config", str(folder / "best.yaml"), "--run-dir", "ANOTHER"]
    if tuning.searches:
        return shlex.join(["gdas-tf", "run", *config])
    genotype = ["--genotype", str(folder / "genotype.json")] if tuning.genotype is not None else []
    return shlex.join(["gdas-tf", "retrain", *genotype, *config])


def _check_known(args: argparse.Namespace, folder: Path, known: bool) -> None:
    """Makes sure that there is a tuning where one is needed, and none where one is begun."""
    if known and not (args.resume or args.report or args.print_config):
        raise UsageError(f"tuning {folder}: it exists already; resume it, or choose another folder")
    for option in ("resume", "report"):
        if getattr(args, option) and not known:
            raise UsageError(f"tuning {folder}: there is none; leave --{option} out to begin it")


def _places(args: argparse.Namespace) -> tuple[Path, str | None]:
    """Returns the folder of the tuning, and the run directory that it is for, if one is named."""
    from gdas_tf.tuning.study import TuningFolder

    target, directory = args.target, options.run_directory(args)
    if target is None or (is_run_directory(target) and not TuningFolder.is_one(target)):
        name = Path(target).absolute().name if target else default_name(args)
        return Path(directory or Path("runs", f"tune-{name}")), target
    if directory is not None and directory != target:
        raise UsageError(
            f"tune: found {target} and {directory}, and the first is no run directory; give a run directory "
            "and a folder, or one folder"
        )
    return Path(target), None


def _new(args: argparse.Namespace, run_path: str | None) -> Tuning:
    """Returns the tuning that the arguments ask for."""
    from gdas_tf import pipeline
    from gdas_tf.runs.run import Run
    from gdas_tf.tuning.objectives import objective
    from gdas_tf.tuning.study import Tuning

    run = Run.open(run_path) if run_path else None
    genotype = options.genotype_to_train(args)
    config = options.resolve_config(args, run.config if run else None)
    takes = pipeline.takes_genotype(config)
    given = genotype is not None or not takes
    if run is not None and takes and genotype is None and run.file("genotype.json").exists():
        genotype = pipeline.read_genotype(run)
    name = args.objective or ("search-loss" if takes and genotype is None else "retrain-loss")
    # A genotype that a run happens to have is not what its search is tuned for.
    searches = not given and (genotype is None or objective(name).of != "retrain")
    if searches:
        genotype = None
    elif not takes and genotype is not None:
        raise UsageError(
            f"retrain.network: found {config.retrain.network}, which is built of no genotype; give none, or "
            "the network derived"
        )
    settings = _settings(args)
    if settings.get("tuner") != "hyperband":
        settings = {"trials": _TRIALS, **settings}
    return Tuning(
        **{"trials": None, **settings},
        objective=name,
        config=config.to_dict(),
        genotype=_plain(genotype),
        searches=searches,
        space=_space(args),
    )


def _changed(args: argparse.Namespace, tuning: Tuning) -> Tuning:
    """Returns a tuning that is there with what the arguments say otherwise; more trials are accepted."""
    from gdas_tf.tuning.study import Tuning

    values = {**tuning.model_dump(), **_settings(args, tuning.tuner)}
    values["config"] = options.resolve_config(args, tuning.base).to_dict()
    if args.objective:
        values["objective"] = args.objective
    if args.genotype:
        values["genotype"] = _plain(options.genotype_to_train(args))
    if args.vary or args.space:
        values["space"] = _space(args)
    return Tuning(**values)


def _settings(args: argparse.Namespace, before: str = "random") -> dict[str, Any]:
    """Returns what the arguments say of the tuner."""
    names = ("tuner", "trials", "factor", "iterations")
    found = {name: value for name in names if (value := getattr(args, name)) is not None}
    tuner = found.get("tuner", before)
    for name in ("factor", "iterations"):
        if name in found and tuner != "hyperband":
            raise UsageError(f"{name}: it goes with the tuner hyperband, and the tuner is {tuner}")
    return found


def _space(args: argparse.Namespace) -> dict[str, Any]:
    from gdas_tf.tuning import space

    return {**(space.read_file(args.space) if args.space else {}), **space.read_flags(args.vary)}


def _plain(genotype: Genotype | None) -> dict[str, Any] | None:
    return None if genotype is None else genotype.to_json()


def _text(tuning: Tuning, result: dict[str, Any]) -> str:
    from gdas_tf.tuning.report import table

    most = 10
    rows = table(tuning, result, most)
    more = len(result["trials"]) - most
    failed = sum(trial["failed"] is not None for trial in result["trials"])
    lines = [columns(rows, right=range(len(rows[0])))]
    if more > 0:
        lines.append(f"  and {more} more in tuning.md")
    if failed:
        lines.append(f"  {failed} of {len(result['trials'])} trials failed; tuning.md says why")
    lines += ["", *result["cautions"], "", f"next: {result['next']}", "", *result["files"].values()]
    return "\n".join(lines)
