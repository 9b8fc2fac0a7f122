"""Configuration of a run: frozen dataclasses whose fields carry their help text, limits and choices.

Each section validates itself when it is made, so a `Config` that exists is a `Config` that can be run.
The command line makes one option of each field from `options()`; files and run directories hold
`Config.to_dict()`.

Example:
    >>> config = Config.preset("quick").override({"search.epochs": 5})
    >>> config.search.epochs
    5
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdas_tf.errors import UsageError
from gdas_tf.export.formats import FORMATS
from gdas_tf.spaces.base import RULES, SearchSpace
from gdas_tf.spaces.macro import MACROS
from gdas_tf.spaces.macro import SYNONYMS as MACRO_SYNONYMS
from gdas_tf.user_files import parse_json, parse_yaml, read_text

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
EXPORT_FORMATS = tuple(FORMATS)


def _field(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    synonyms: Mapping[str, str] | None = None,
    before: Any = None,
    metavar: str | None = None,
) -> Any:
    """Returns a dataclass field with what the command line and the validation need to know of it.

    Args:
        default: value of the paper.
        help: one line for `--help`.
        minimum, maximum: inclusive limits of a number (of each element of a tuple).
        above, below: exclusive limits.
        choices: accepted values (of each element of a tuple).
        synonyms: former names of choices, which stay accepted.
        before: value that runs had before the field was there, if it is not the default.
        metavar: placeholder of the value in `--help`.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
        "choices": choices,
        "synonyms": synonyms or {},
        "before": default if before is None else before,
        "metavar": metavar,
    }
    return dataclasses.field(default=default, metadata=metadata)


class _Section:
    """Base of the sections: every field is converted to its type and checked on construction."""

    section: typing.ClassVar[str]

    def __post_init__(self) -> None:
        for option in options(self.section):
            object.__setattr__(self, option.name, option.parse(getattr(self, option.name)))


@dataclass(frozen=True)
class DataConfig(_Section):
    """Which images, and how they are augmented in search and retraining."""

    section: typing.ClassVar[str] = "data"

    name: str = _field(
        "cifar10",
        "digits, a TFDS data set by name, a folder with one subfolder of images per class, or an .npz file",
        metavar="NAME|FOLDER|FILE.npz",
    )
    data_dir: str | None = _field(None, "where TFDS data sets are prepared", metavar="FOLDER")
    cache_dir: str | None = _field(
        None,
        "where images of sets too big for memory are kept decoded; not set: the user's cache folder",
        metavar="FOLDER",
    )
    image_size: int | None = _field(
        None, "resize images to this height and width in pixels", minimum=8, maximum=1024
    )
    image_channels: int | None = _field(None, "read images as grey, 1, or colour, 3", choices=(1, 3))
    test_fraction: float = _field(
        0.2,
        "part of the images held out as test images, if the data set has no test split",
        above=0,
        below=1,
    )
    padding: int = _field(
        4, "random crop: pixels of black padding on each side; 0 turns cropping off", minimum=0, maximum=64
    )
    flip: bool = _field(True, "random horizontal flip (off for digits and text, where left is not right)")


@dataclass(frozen=True)
class SearchConfig(_Section):
    """The search for a cell."""

    section: typing.ClassVar[str] = "search"

    strategy: str = _field("gdas", "how the cell is searched for")
    epochs: int = _field(250, "passes over the half of the training images that trains weights", minimum=1)
    batch_size: int = _field(64, "images per batch, of each half", minimum=2)
    channels: int = _field(16, "channels C of the first block of the supernet", minimum=1)
    cells: int = _field(2, "normal cells N per block of the supernet", minimum=1, maximum=64)
    nodes: int = _field(4, "computed nodes B of a cell", minimum=1, maximum=16)
    operations: str = _field(
        "gdas",
        "operations to choose from: gdas, gdas-4, gdas-12, or a comma list of names",
        metavar="NAMES",
    )
    macro: str = _field(
        "paper",
        "stacking of cells: N normal cells in every block, or N - 1 in the later two as AutoDL-Projects has",
        choices=MACROS,
        synonyms=MACRO_SYNONYMS,
    )
    reduction: str = _field(
        "searched",
        "reduction cell: searched for, or the fixed one (FRC)",
        choices=("searched", "fixed"),
    )
    sampler: str = _field("gumbel", "how an operation is sampled", choices=("gumbel", "direct"))
    sample_per: str = _field(
        "kind",
        "what runs one sample: all cells of a kind, or every cell its own as the authors' code of 2019",
        choices=("kind", "cell"),
    )
    temperature_start: float = _field(10.0, "temperature in the first epoch", above=0)
    temperature_end: float = _field(0.1, "temperature in the last epoch", above=0)
    weight_learning_rate: float = _field(
        0.025, "learning rate of the weights at the start, then cosine", above=0
    )
    weight_learning_rate_end: float = _field(1e-3, "learning rate of the weights at the end", minimum=0)
    weight_schedule: str = _field(
        "step", "when the learning rate of the weights falls", choices=("step", "epoch")
    )
    momentum: float = _field(0.9, "momentum of the weights", minimum=0, below=1)
    nesterov: bool = _field(True, "Nesterov's rule for the momentum of the weights")
    weight_decay: float = _field(3e-4, "weight decay of the weights", minimum=0)
    clip_norm: float = _field(
        5.0, "global norm that the weights' gradient is clipped to; 0 turns clipping off", minimum=0
    )
    unsampled: str = _field(
        "frozen",
        "weights that were not sampled stay, or momentum and decay move them as PyTorch 1 did",
        choices=("frozen", "decayed"),
    )
    architecture_learning_rate: float = _field(3e-4, "learning rate of the architecture (Adam)", above=0)
    architecture_beta_1: float = _field(0.5, "Adam's beta 1 of the architecture", minimum=0, below=1)
    architecture_beta_2: float = _field(0.999, "Adam's beta 2 of the architecture", minimum=0, below=1)
    architecture_weight_decay: float = _field(1e-3, "weight decay of the architecture", minimum=0)
    pool_norm: bool = _field(False, "batch norm after pooling, as in DARTS and the authors' code of 2019")
    cutout: int = _field(0, "side of the square that CutOut blanks, in pixels; 0 turns it off", minimum=0)
    precision: str = _field("float32", "number format of the computation", choices=PRECISIONS)
    jit_compile: bool = _field(False, "compile each candidate operation with XLA (for GPUs; slow on CPUs)")

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            SearchSpace.named(self.operations)
        except UsageError as error:
            raise UsageError(f"search.operations: {str(error).removeprefix('search space: ')}") from error


@dataclass(frozen=True)
class DeriveConfig(_Section):
    """The choice of a genotype from the logits."""

    section: typing.ClassVar[str] = "derive"

    rule: str = _field(
        "edges",
        "what is ranked at a node: edges, each by its best operation, or all (edge, operation) pairs",
        choices=RULES,
    )
    ranks: tuple[int, ...] = _field(
        (1, 2),
        "what a node keeps, by rank of probability: 1,2 or 2,3 or 3,4 …",
        minimum=1,
        metavar="R,R",
    )
    keep_none: bool = _field(False, "let the operation none be chosen")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.ranks)) != len(self.ranks):
            raise UsageError(f"derive.ranks: found {_show(self.ranks)}; each rank may stand once")


@dataclass(frozen=True)
class RetrainConfig(_Section):
    """The training of the derived network from scratch."""

    section: typing.ClassVar[str] = "retrain"

    epochs: int = _field(600, "passes over all training images", minimum=1)
    batch_size: int = _field(96, "images per batch", minimum=2)
    channels: int = _field(36, "channels C of the first block of the network", minimum=2)
    cells: int = _field(6, "normal cells N per block of the network", minimum=1, maximum=64)
    macro: str = _field(
        "paper",
        "stacking of cells: N normal cells in every block, or N - 1 in the later two as AutoDL-Projects has",
        choices=MACROS,
        synonyms=MACRO_SYNONYMS,
    )
    learning_rate: float = _field(0.025, "learning rate in the first epoch", above=0)
    learning_rate_end: float = _field(0.0, "learning rate at the end (cosine)", minimum=0)
    schedule: str = _field(
        "step", "the learning rate falls with each step, or with each epoch", choices=("step", "epoch")
    )
    momentum: float = _field(0.9, "momentum", minimum=0, below=1)
    nesterov: bool = _field(True, "Nesterov's momentum, in place of the plain one")
    weight_decay: float = _field(3e-4, "weight decay", minimum=0)
    clip_norm: float = _field(
        5.0, "global norm that the gradient is clipped to; 0 turns clipping off", minimum=0
    )
    auxiliary_weight: float = _field(0.4, "weight of the auxiliary head's loss; 0: no head", minimum=0)
    drop_path: float = _field(0.2, "probability of dropping a path in the last epoch", minimum=0, below=1)
    cutout: int = _field(16, "side of the square that CutOut blanks, in pixels; 0 turns it off", minimum=0)
    stem: str = _field(
        "auto", "first layers; auto takes imagenet over 64 pixels", choices=("auto", "cifar", "imagenet")
    )
    head_norm: bool = _field(
        False, "batch norm and ReLU before the global pooling (the papers have none)", before=True
    )
    initializer: str = _field(
        "torch",
        "weights before training: PyTorch's, uniform by fan-in, or He's, 2.45 times as large",
        choices=("torch", "he"),
        before="he",
    )
    precision: str = _field("float32", "number format of the computation", choices=PRECISIONS)
    jit_compile: bool = _field(False, "compile the step with XLA (for GPUs; slow on CPUs)")


@dataclass(frozen=True)
class ExportConfig(_Section):
    """The files that leave the run, and how they are verified."""

    section: typing.ClassVar[str] = "export"

    formats: tuple[str, ...] = _field(
        ("saved_model", "onnx"),
        "files to write; all: every one of them",
        choices=EXPORT_FORMATS,
        metavar="FORMAT,…|all",
    )
    tolerance: float = _field(1e-4, "largest accepted difference of a probability to Keras", above=0)
    images: int = _field(1000, "held-out images to verify on, at most", minimum=1)
    calibration_images: int = _field(500, "training images to calibrate int8 on, at most", minimum=1)


@dataclass(frozen=True)
class BenchmarkConfig(_Section):
    """The measurement of an exported file with onnxruntime."""

    section: typing.ClassVar[str] = "benchmark"

    batch_sizes: tuple[int, ...] = _field((1, 8, 64), "batch sizes to measure", minimum=1, metavar="N,…")
    threads: tuple[int, ...] = _field(
        (0,), "threads to measure; 0 stands for as many as there are cores", minimum=0, metavar="N,…"
    )
    seconds: float = _field(
        2.0, "seconds to measure each batch size and thread count, in all rounds", above=0
    )
    warm_up: int = _field(5, "calls that are not counted, before each measurement", minimum=0)
    rounds: int = _field(5, "rounds in which files take turns; their spread gives the interval", minimum=1)
    providers: tuple[str, ...] = _field(
        ("auto",),
        "onnxruntime's execution providers to measure; auto: all that it has here",
        metavar="NAME,…",
    )


SECTIONS: dict[str, type[_Section]] = {
    "data": DataConfig,
    "search": SearchConfig,
    "derive": DeriveConfig,
    "retrain": RetrainConfig,
    "export": ExportConfig,
    "benchmark": BenchmarkConfig,
}


@dataclass(frozen=True)
class Config:
    """All that a run depends on. The defaults are the constants of the paper (arXiv 1910.04465).

    Args:
        seed: every random choice of a run comes from it.
        data, search, derive, retrain, export, benchmark: the sections.

    Raises:
        UsageError: a value has the wrong type or lies outside its limits.
    """

    seed: int = _field(0, "seed of every random choice", minimum=0, maximum=2**31 - 1)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    derive: DeriveConfig = dataclasses.field(default_factory=DeriveConfig)
    retrain: RetrainConfig = dataclasses.field(default_factory=RetrainConfig)
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)
    benchmark: BenchmarkConfig = dataclasses.field(default_factory=BenchmarkConfig)

    def __post_init__(self) -> None:
        for option in options(None):
            object.__setattr__(self, option.name, option.parse(getattr(self, option.name)))
        self._check_ranks()

    def _check_ranks(self) -> None:
        most, reason = self.space.highest_rank(self.derive.rule, self.derive.keep_none)
        if max(self.derive.ranks) > most:
            raise UsageError(
                f"derive.ranks: found {_show(self.derive.ranks)}; accepted are 1 to {most}, as {reason}"
            )

    @property
    def space(self) -> SearchSpace:
        """The search space: operations and nodes of the search, as many inputs per node as ranks are kept."""
        # By the rule `pairs` a node may keep more pairs than it has inputs.
        inputs = min(len(self.derive.ranks), self.search.nodes + 1)
        return SearchSpace.named(self.search.operations, self.search.nodes, inputs)

    @classmethod
    def preset(cls, name: str) -> Config:
        """Returns a preset, one of `PRESETS`.

        Raises:
            UsageError: there is no preset of that name.
        """
        if name not in PRESETS:
            raise UsageError(f"preset: found {name!r}; accepted are {', '.join(PRESETS)}")
        return cls().override(PRESETS[name])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: Config | None = None) -> Config:
        """Returns `base` (by default the paper's constants) with the values of a nested mapping.

        Raises:
            UsageError: an unknown section or field, or a bad value.
        """
        flat: dict[str, Any] = {}
        for key, value in values.items():
            if key not in SECTIONS:
                flat[str(key)] = value
            elif isinstance(value, Mapping):
                flat |= {f"{key}.{name}": item for name, item in value.items()}
            else:
                raise UsageError(f"{key}: found {value!r}; a section holds fields, as {_sample(key)}")
        return (base or cls()).override(flat)

    @classmethod
    def from_file(cls, path: str | Path, base: Config | None = None) -> Config:
        """Returns `base` (by default the paper's constants) with the values of a YAML or JSON file.

        Raises:
            UsageError: the file can't be read, isn't YAML or JSON, or holds an unknown or bad value.
        """
        path = Path(path)
        text = read_text(path, f"configuration file {path}")
        try:
            values = parse_json(text) if path.suffix.lower() == ".json" else parse_yaml(text)
        except ValueError as error:  # a date that is none is one as well
            raise UsageError(f"configuration file {path}: {' '.join(str(error).split())}") from error
        if values is None:
            values = {}
        if not isinstance(values, Mapping):
            raise UsageError(f"configuration file {path}: found {values!r:.40}; it must hold sections")
        try:
            return cls.from_dict(values, base)
        except UsageError as error:
            raise UsageError(f"configuration file {path}: {error}") from error

    def override(self, values: Mapping[str, Any]) -> Config:
        """Returns a copy with other values, by dotted name: `{"search.epochs": 5, "seed": 1}`.

        Raises:
            UsageError: an unknown name or a bad value.
        """
        known = {option.path for option in options()}
        sections: dict[str, dict[str, Any]] = {}
        top: dict[str, Any] = {}
        for path, value in values.items():
            if path not in known:
                near = difflib.get_close_matches(path, known, n=1)
                hint = f"did you mean {near[0]}?" if near else "gdas-tf run --print-config lists all"
                raise UsageError(f"unknown configuration field {path!r}; {hint}")
            section, _, name = path.rpartition(".")
            (sections.setdefault(section, {}) if section else top)[name] = value
        for section, changes in sections.items():
            top[section] = dataclasses.replace(getattr(self, section), **changes)
        return dataclasses.replace(self, **top)

    def get(self, path: str) -> Any:
        """Returns the value of a dotted name, as `search.epochs`."""
        value: Any = self
        for name in path.split("."):
            value = getattr(value, name)
        return value

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dictionaries of plain JSON types (tuples as lists)."""
        result: dict[str, Any] = {}
        for option in options():
            value = self.get(option.path)
            target = result.setdefault(option.section, {}) if option.section else result
            target[option.name] = list(value) if isinstance(value, tuple) else value
        return result

    def to_yaml(self, comments: bool = False) -> str:
        """Returns the configuration as YAML, on request with each field's help as a comment."""
        lines: list[str] = []
        section = None
        for option in options():
            if option.section != section:
                section = option.section
                lines.append(f"{section}:")
            line = f"{'  ' if section else ''}{option.name}: {_yaml_value(self.get(option.path))}"
            lines.append(f"{line:<42}  # {option.describe()}" if comments else line)
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Option:
    """One field of the configuration, as the command line and the validation see it."""

    section: str | None
    name: str
    type: Any
    metadata: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The dotted name, as `search.epochs`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def flag(self) -> str:
        """The option on the command line, as `--search-epochs`."""
        special = {"data.name": "--data", "data.data_dir": "--data-dir"}
        return special.get(self.path, "--" + self.path.replace(".", "-").replace("_", "-"))

    @property
    def is_bool(self) -> bool:
        return self.type is bool

    def describe(self) -> str:
        """Returns the help text with the accepted values."""
        choices = self.metadata["choices"]
        text = self.metadata["help"]
        return f"{text} ({', '.join(map(str, choices))})" if choices else text

    def parse(self, value: Any) -> Any:
        """Returns `value` converted to the field's type.

        Args:
            value: a value of the type, or its text as the command line or a YAML file has it. Of a field
                that takes several choices, "all" stands for every one.

        Raises:
            UsageError: the value has another type or lies outside the limits; the line names the field.
        """
        kind, optional, several = self.type, False, False
        if isinstance(kind, types.UnionType):
            kind, optional = next(item for item in typing.get_args(kind) if item is not type(None)), True
        if typing.get_origin(kind) is tuple:
            kind, several = typing.get_args(kind)[0], True
        if optional and (value is None or (isinstance(value, str) and value.lower() == "none")):
            return None
        if not several:
            return self._check(self._convert(value, kind))
        items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            items = [items]
        if self.metadata["choices"] and list(items) == ["all"]:
            items = self.metadata["choices"]
        items = tuple(self._check(self._convert(item, kind)) for item in items)
        if not items:
            raise UsageError(f"{self.path}: found nothing; at least one value is needed")
        return items

    def _convert(self, value: Any, kind: type) -> Any:
        accepted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
        if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind is bool and isinstance(value, bool):
            return value
        if kind is str and isinstance(value, str) and value:
            return value
        # YAML reads 1e-3 as text, hence text is accepted for numbers.
        if kind in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                number = kind(value)
            except (ValueError, OverflowError):
                pass
            else:
                if math.isfinite(number) and (isinstance(value, str) or number == value):
                    return number
        raise UsageError(f"{self.path}: found {value!r}; accepted is {accepted}")

    def _check(self, value: Any) -> Any:
        limits = self.metadata
        value = limits["synonyms"].get(value, value)
        if limits["choices"] and value not in limits["choices"]:
            raise UsageError(
                f"{self.path}: found {value!r}; accepted: {', '.join(map(str, limits['choices']))}"
            )
        for key, words, fits in (
            ("minimum", "at least", lambda limit: value >= limit),
            ("maximum", "at most", lambda limit: value <= limit),
            ("above", "above", lambda limit: value > limit),
            ("below", "below", lambda limit: value < limit),
        ):
            if limits[key] is not None and not fits(limits[key]):
                raise UsageError(f"{self.path}: found {value}; it must be {words} {limits[key]}")
        return value


def options(*sections: str | None) -> tuple[Option, ...]:
    """Returns the fields of the named sections (None: those outside a section), by default of all."""
    result = []
    for section in sections or (None, *SECTIONS):
        kind = SECTIONS[section] if section else Config
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name not in SECTIONS or section:
                result.append(Option(section, field.name, hints[field.name], field.metadata))
    return tuple(result)


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """Returns (dotted name, value in first, value in second) of all that two nested mappings differ in."""
    found = []
    for key in [*first, *(key for key in second if key not in first)]:
        one, two = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found += differences(one, two, f"{prefix}{key}.")
        elif one != two:
            found.append((prefix + str(key), one, two))
    return found


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _sample(section: str) -> str:
    option = options(section)[0]
    return f"{section}: {{{option.name}: …}}"


def _yaml_value(value: Any) -> str:
    """Returns a value as YAML; JSON is, but for floats like 1e-05, which YAML 1.1 takes for text."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml_value(item) for item in value) + "]"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text
    return json.dumps(value, ensure_ascii=False)


# What a preset changes of the paper's constants.
PRESETS: dict[str, dict[str, Any]] = {
    # Digits in minutes on two cores. The architecture learns faster than in the paper, because there are
    # 300 steps instead of 98,000; a digit is no longer itself when mirrored or moved by half its width.
    "quick": {
        "data.name": "digits",
        "data.padding": 1,
        "data.flip": False,
        "search.epochs": 30,
        "search.channels": 16,
        "search.cells": 1,
        "search.weight_learning_rate": 0.1,
        "search.architecture_learning_rate": 0.05,
        "retrain.epochs": 40,
        "retrain.batch_size": 64,
        "retrain.channels": 12,
        "retrain.cells": 1,
        "retrain.learning_rate": 0.05,
        "retrain.drop_path": 0.0,
        "retrain.auxiliary_weight": 0.0,
        "retrain.cutout": 0,
    },
    # CIFAR-10 on a CPU in an hour or two.
    "small": {
        "search.epochs": 6,
        "search.cells": 1,
        "search.weight_learning_rate": 0.05,
        "search.architecture_learning_rate": 0.01,
        "retrain.epochs": 10,
        "retrain.channels": 16,
        "retrain.cells": 1,
        "retrain.drop_path": 0.0,
        "retrain.cutout": 8,
    },
    # CIFAR-10 with the constants of the paper, which are the defaults of the fields.
    "paper": {},
    # Two recipes that differ from the paper's; docs/method.md says what is known of each, and from where.
    # The study that this project began as (G. Nalbandyan, 2020).
    "seed": {
        "search.batch_size": 196,
        "search.weight_decay": 5e-4,
        "derive.rule": "pairs",
        "retrain.epochs": 300,
        "retrain.head_norm": True,
        "retrain.schedule": "epoch",
        "retrain.weight_decay": 5e-4,
        "retrain.clip_norm": 0.0,
        "retrain.drop_path": 0.0,
    },
    # AutoDL-Projects, the authors' code of 2020.
    "autodl": {
        "search.batch_size": 256,
        "search.macro": "autodl",
        "search.weight_decay": 5e-4,
        "derive.rule": "pairs",
        "retrain.epochs": 300,
        "retrain.batch_size": 256,
        "retrain.channels": 33,
        "retrain.macro": "autodl",
        "retrain.head_norm": True,
        "retrain.schedule": "epoch",
        "retrain.weight_decay": 5e-4,
        "retrain.clip_norm": 0.0,
        "retrain.drop_path": 0.0,
    },
}
