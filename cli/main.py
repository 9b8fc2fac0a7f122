"""Entry point of `gdas-tf`: finds the subcommand, imports only its module, turns errors into exit codes.

Exit codes: 0 done, 1 the run failed, 2 wrong use, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from gdas_tf import __version__
from gdas_tf.cli.console import library_on_stderr
from gdas_tf.cli.options import HelpFormatter, Parser, load_plugins
from gdas_tf.cli.surroundings import own_surroundings, printing_anything
from gdas_tf.cli.wording import describe
from gdas_tf.errors import DivergedError, RunError, UsageError
from gdas_tf.files import is_run_directory

# Subcommand and its line in `gdas-tf --help`; the module is gdas_tf.cli.<subcommand>, with
# `add_parser(subparsers)` and `main(args) -> int`.
COMMANDS: dict[str, str] = {
    "run": "the whole pipeline: search, derive, retrain, evaluate, export, benchmark, draw",
    "search": "search a cell: train the supernet and the logits of its operations",
    "derive": "choose the genotype from the logits",
    "retrain": "train the network built of a genotype from scratch",
    "evaluate": "measure loss and accuracy of a trained network on the test images",
    "export": "write SavedModel and ONNX, and verify them against the trained network",
    "benchmark": "measure latency and throughput of ONNX files",
    "inspect": "look at a data set: sizes, classes, copies, what cannot be read, what each preset would take",
    "zoo": "list published genotypes and networks, with their figures",
    "draw": "draw the cells of a genotype, and the curves of a run",
    "lookup": "look the true accuracy of a cell up in a table of all cells",
    "study": "many runs under one protocol: does the search beat random on your data?",
    "tune": "try values of the configuration by keras-tuner, and say which were best",
    "predict": "classify pictures with an exported network",
    "serve": "serve exported networks over HTTP",
}

_DESCRIPTION = """\
Finds a convolutional cell for your images by differentiable architecture sampling (GDAS), retrains the
network built of it, and exports it verified and measured."""

_EXAMPLES = """\
examples:
  gdas-tf run                                      digits, from search to a measured ONNX file, in minutes
  gdas-tf run --data photos/ --data-image-size 32  your own images, one subfolder per class
  gdas-tf run --preset small                       CIFAR-10 on a CPU in an hour or two
  gdas-tf run runs/digits-quick --resume           go on with a run that was stopped
  gdas-tf search --help                            each stage alone; every stage has its own help
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: ends the program as Ctrl-C does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: arguments without the program's name, by default those of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with printing_anything(), own_surroundings(debug="--debug" in arguments), library_on_stderr():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    command = next((item for item in arguments if not item.startswith("-")), None)
    try:
        module = importlib.import_module(f"gdas_tf.cli.{command}") if command in COMMANDS else None
        load_plugins(arguments)
        args = _parser(module).parse_args(arguments)
    except SystemExit as end:  # argparse ends --help and bad options this way
        return int(end.code or 0)
    args.arguments = arguments
    debug = getattr(args, "debug", False)
    try:
        with _sigterm_interrupts():
            return module.main(args)
    except BrokenPipeError:
        # The reader of a pipe went away, as in `gdas-tf … | head`; keep Python from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        how = "by SIGTERM" if terminated else "by Ctrl-C"
        hint = getattr(args, "go_on_with", None)
        _complain(f"stopped {how}; " + (f"go on with: {hint}" if hint else "nothing is left to go on with"))
        return 143 if terminated else 130
    except Exception as error:
        if debug:
            raise
        message = describe(error)
        advice = _how_to_go_on(args, error, message)
        if isinstance(error, UsageError):
            _complain(f"error: {message}{advice}")
            return 2
        if isinstance(error, RunError):
            _complain(f"failed: {message}{advice}")
            return 1
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            _complain(f"error: no file can have a name as long as {str(error.filename)[:60]}...")
            return 2
        _complain(f"failed unexpectedly: {type(error).__name__}: {error}; --debug shows where{advice}")
        return 1


def _how_to_go_on(args: argparse.Namespace, error: Exception, message: str) -> str:
    """Returns what to add to an error's message, so that nobody begins anew what is done already."""
    directory = getattr(args, "kept_in", None)
    if directory is None or "--resume" in message or not is_run_directory(directory):
        return ""
    if isinstance(error, DivergedError):
        genotype = os.path.join(directory, "genotype.json")
        values = os.path.join(directory, "config.yaml")
        again = ["gdas-tf", "retrain", "--genotype", genotype, "--config", values, "--run-dir", "ANOTHER"]
        return f"; its genotype is kept, for: {shlex.join(again)}" if os.path.exists(genotype) else ""
    # Of wrong use the message says what to do; but another stage may be done by then.
    if isinstance(error, UsageError) and not args.job.results:
        return ""
    return f"; when that is mended, go on with: {args.go_on_with}"


def _parser(module: Any) -> argparse.ArgumentParser:
    """Returns the parser of one subcommand, or of the overview when none was named."""
    parser = Parser(
        prog="gdas-tf",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gdas-tf {__version__}")
    subparsers = parser.add_subparsers(
        title="subcommands", metavar="SUBCOMMAND", dest="command", required=True
    )
    if module is not None:
        module.add_parser(subparsers)
    else:
        for name, summary in COMMANDS.items():
            subparsers.add_parser(name, help=summary)
    return parser


def _complain(message: str) -> None:
    """Prints one line on stderr, on a line of its own even when a progress bar stands there."""
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    print(f"gdas-tf: {' '.join(message.split())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(signal_number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
