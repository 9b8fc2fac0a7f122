"""The options that subcommands share: one per field of the configuration, run directory, output."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from gdas_tf import plugins
from gdas_tf.config.config import Config, options
from gdas_tf.config.files import read_values
from gdas_tf.config.option import Option
from gdas_tf.config.presets import PRESETS
from gdas_tf.config.sections import SECTIONS
from gdas_tf.errors import UsageError
from gdas_tf.preflight import check_text

if TYPE_CHECKING:
    from gdas_tf.spaces.genotype import Genotype

DEFAULT_PRESET = "quick"

_OF_TRAINING = ("tensorboard",)
"""Fields outside the sections that only commands which train take."""

_TITLES = {
    "data": "data",
    "search": "search",
    "derive": "derivation of the genotype",
    "retrain": "retraining",
    "distribution": "several devices and machines",
    "export": "export",
    "benchmark": "benchmark",
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions and examples."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"gdas-tf: error: {message}; see {self.prog} --help\n")


def add_command(
    subparsers: Any, name: str, argument: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Adds a subcommand's parser with its description and examples.

    Args:
        subparsers: what `ArgumentParser.add_subparsers` returned.
        name: the subcommand.
        argument: what stands for its argument in the usage line.
        description: the text above its options.
        examples: lines of examples, below its options.
    """
    return subparsers.add_parser(
        name,
        description=description,
        usage=f"%(prog)s [options] [{argument}]",
        epilog=f"examples:\n{examples.rstrip()}\n",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Adds `--json` and `--debug`."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout; all else goes to stderr"
    )
    group.add_argument("--debug", action="store_true", help="show tracebacks and TensorFlow's log")


def add_run_directory(parser: argparse.ArgumentParser, what: str, artefact: str | None = None) -> None:
    """Adds the run directory, as an argument and as `--run-dir`, which mean the same.

    Args:
        parser: parser of a subcommand.
        what: help text.
        artefact: what may be given in its place, as `MODEL.keras`.
    """
    metavar = f"RUN_DIR|{artefact}" if artefact else "RUN_DIR"
    parser.add_argument("directory", nargs="?", metavar=metavar, help=what)
    parser.add_argument("--run-dir", metavar="RUN_DIR", help="the run directory, as an option")


def run_directory(args: argparse.Namespace) -> str | None:
    """Returns the run directory that was given, by argument or by option.

    Raises:
        UsageError: both were given and differ.
    """
    if args.directory and args.run_dir and args.directory != args.run_dir:
        raise UsageError(f"run directory: found both {args.directory} and {args.run_dir}; give one")
    directory = args.directory or args.run_dir
    if directory:
        check_text("run directory", directory)
    return directory


def add_resume(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--resume`."""
    parser.add_argument(
        "--resume",
        action="store_true",
        help=f"go on with {what} that was stopped, after its last finished epoch",
    )


def add_what_to_train(parser: argparse.ArgumentParser, genotype: str) -> None:
    """Adds `--genotype`, and `--network`, which means the same as `--retrain-network`.

    Args:
        parser: parser of a subcommand that takes the options of the section `retrain`.
        genotype: help text of `--genotype`.
    """
    network = next(option for option in options("retrain") if option.name == "network")
    parser.add_argument("--genotype", metavar="FILE|NAME|TEXT", help=genotype)
    parser.add_argument(
        "--network",
        metavar="NAME",
        dest=network.path,
        type=_network_of(network),
        default=argparse.SUPPRESS,
        help="network to train, as resnet110 (gdas-tf zoo lists all); the same as --retrain-network",
    )


def genotype_to_train(args: argparse.Namespace) -> Genotype | None:
    """Returns what `--genotype` gives; its search space becomes the configuration's, unless one is named.

    Raises:
        UsageError: it is no genotype.
    """
    from gdas_tf.pipeline import parse_genotype

    if not args.genotype:
        return None
    genotype = parse_genotype(args.genotype)
    if genotype.space is not None and "search.space" not in vars(args):
        setattr(args, "search.space", genotype.space)  # its networks are those of its space
    return genotype


def _network_of(option: Option) -> Any:
    parse = _parse_with(option)

    def of(text: str) -> Any:
        from gdas_tf.spaces.genotype import GENOTYPES

        if text in GENOTYPES:
            raise argparse.ArgumentTypeError(f"{text} is a genotype; give it by --genotype {text}")
        return parse(text)

    return of


def add_config(parser: argparse.ArgumentParser, *sections: str, fields: Sequence[str] = ()) -> None:
    """Adds `--preset`, `--config`, `--print-config` and one option for each field of the sections.

    Args:
        parser: parser of a subcommand.
        sections: sections of the configuration that the subcommand depends on.
        fields: dotted names of single fields of other sections.
    """
    group = parser.add_argument_group(
        "configuration",
        "Values come from the run directory, else from a preset; --config goes over them, options over all.",
    )
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        metavar="|".join(PRESETS),
        help="quick: digits in minutes; small: CIFAR-10 on a CPU in an hour or two; robust: any data, a "
        "supernet proposes and short trainings choose; paper, seed, autodl: "
        "CIFAR-10 with the constants of the paper, of the study that this project began as, and of "
        f"AutoDL-Projects [{DEFAULT_PRESET}]",
    )
    group.add_argument(
        "--config", metavar="FILE", help="YAML or JSON file with values, as --print-config prints"
    )
    group.add_argument("--print-config", action="store_true", help="print the resolved configuration and end")
    trains = {"search", "retrain"} & set(sections)
    _add_fields(group, [one for one in options(None) if trains or one.name not in _OF_TRAINING])
    for section in sections:
        _add_fields(parser.add_argument_group(_TITLES[section]), options(section))
        if section == "search":
            _add_strategies(parser)
    if fields:
        add_fields(parser.add_argument_group("as in the search"), fields)


def add_fields(group: argparse._ArgumentGroup, fields: Sequence[str]) -> None:
    """Adds one option for each of some fields of the configuration, by dotted name."""
    _add_fields(group, [option for option in options() if option.path in fields])


def _add_strategies(parser: argparse.ArgumentParser) -> None:
    """Adds a group of options for each registered strategy that has a section of its own."""
    sections = {option.section: None for option in options() if option.section not in (None, *SECTIONS)}
    for section in sections:
        _add_fields(parser.add_argument_group(f"search by the strategy {section}"), options(section))


def _add_fields(group: argparse._ArgumentGroup, chosen: Iterable[Option]) -> None:
    for option in chosen:
        values = {name: _text(changes.get(option.path, option.default)) for name, changes in PRESETS.items()}
        default = values.pop("paper")
        others = [f"{name} {value}" for name, value in values.items() if value != default]
        if others:
            default = ", ".join([*others, f"else {default}"])
        # Choices that the placeholder doesn't show stand in the text.
        about = option.describe() if option.metavar else option.help
        text = f"{about} [{default}]".replace("%", "%%")
        if option.is_bool:
            kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"type": _parse_with(option), "metavar": _metavar(option)}
        group.add_argument(option.flag, dest=option.path, default=argparse.SUPPRESS, help=text, **kind)


def _parse_with(option: Option) -> Any:
    def parse(text: str) -> Any:
        try:
            check_text(option.path, text)
            return option.parse(text)
        except UsageError as error:
            said = str(error).removeprefix(option.path).lstrip(": ")
            raise argparse.ArgumentTypeError(said) from error

    return parse


def _metavar(option: Option) -> str:
    if option.metavar:
        return option.metavar
    if option.choices:
        return "|".join(map(str, option.choices))
    return {int: "N", float: "X", str: "TEXT"}[option.kind]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)


def print_config(args: argparse.Namespace) -> bool:
    """Prints the resolved configuration when `--print-config` asks for it; returns whether it did."""
    if not args.print_config:
        return False
    from gdas_tf.runs.run import Run, is_run_directory

    directory = run_directory(args)
    base = Run.open(directory).config if directory and is_run_directory(directory) else None
    config = resolve_config(args, base)
    print(json.dumps(config.to_dict()) if args.json else config.to_yaml(comments=True), end="\n" * args.json)
    return True


def load_plugins(arguments: Sequence[str]) -> None:
    """Executes the plugins that a command line names, so that its other options may be theirs.

    They stand in `--plugins`, in the file of `--config`, and in the configuration of the run directory.

    Args:
        arguments: the command line, without the program's name.

    Raises:
        SystemExit: a plugin cannot be executed; the message is printed.
    """
    parser = Parser(prog="gdas-tf", add_help=False, allow_abbrev=False)
    for name in ("--plugins", "--config", "--run-dir"):
        parser.add_argument(name, nargs="?")
    given, others = parser.parse_known_args(arguments)
    directories = [given.run_dir, *(item for item in others if not item.startswith("-"))]
    files = [os.path.join(item, "config.yaml") for item in directories if item]
    found = {"--plugins": given.plugins}
    for file in [given.config, *files]:
        if file and os.path.isfile(file):
            # What is wrong with the file itself is said where it is read for its values.
            with contextlib.suppress(UsageError):
                found[f"configuration file {file}"] = read_values(file).get("plugins")
    for place, value in found.items():
        try:
            plugins.load(_PLUGINS.parse(value) if value else ())
        except UsageError as error:
            parser.exit(2, f"gdas-tf: error: {place}: {error}\n")


_PLUGINS = next(option for option in options(None) if option.name == "plugins")


def add_accept_changed_data(parser: argparse.ArgumentParser) -> None:
    """Adds `--accept-changed-data`."""
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="when images were added, removed or changed since the training: measure on all that were not "
        "trained on",
    )


def resolve_config(
    args: argparse.Namespace, base: Config | None = None, carried: Mapping[str, Any] | None = None
) -> Config:
    """Returns the configuration that the arguments ask for.

    Args:
        args: parsed arguments of a subcommand with `add_config`, or `add_fields` alone.
        base: configuration of an existing run directory, which stands in place of the default preset.
        carried: values that a model's file carries, by dotted name; they go over those of the preset.
    """
    preset = getattr(args, "preset", None)
    if preset or base is None:
        base = Config.preset(preset or DEFAULT_PRESET)
    if carried:
        base = base.override(carried)
    if getattr(args, "config", None):
        base = Config.from_file(args.config, base)
    return base.override(given_fields(args))


def given_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of the configuration that stand on the command line, by dotted name."""
    paths = {option.path for option in options()}
    return {name: value for name, value in vars(args).items() if name in paths}


def name_flags(message: str) -> str:
    """Returns a message of the library with options in place of the fields of the configuration."""
    flags = {option.path: option.flag for option in options() if option.section}
    return re.sub(r"\b[a-z][a-z0-9_-]*\.[a-z0-9_]+\b", lambda found: flags.get(found[0], found[0]), message)
