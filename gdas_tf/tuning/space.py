"""What a tuning varies: fields of the configuration, each over a range of numbers or some choices."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gdas_tf.config.config import Config, options
from gdas_tf.config.messages import unknown
from gdas_tf.config.option import Option
from gdas_tf.config.sections import SECTIONS
from gdas_tf.errors import UsageError
from gdas_tf.files import plain
from gdas_tf.user_files import read_mapping

ACCEPTED = "LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP, or values as 0,0.1,0.2"

_OTHER_IMAGES = "trials would be judged by different images, and could not be compared"
_SAME_OUTCOME = "it changes how long a trial takes, and not what comes out of it"
_FIXED = {
    "seed": _OTHER_IMAGES,
    "plugins": "they are loaded once",
    "data.name": _OTHER_IMAGES,
    "data.data_dir": _SAME_OUTCOME,
    "data.cache_dir": _SAME_OUTCOME,
    "data.test_fraction": _OTHER_IMAGES,
    "data.train_images": _OTHER_IMAGES,
    "search.definition": "it is the content of the file of search.space; vary that",
    "search.table": "it is what trials are judged by",
    "search.table_column": "it is what trials are judged by",
    "search.jit_compile": _SAME_OUTCOME,
    "retrain.jit_compile": _SAME_OUTCOME,
}
"""Fields that cannot be varied, with the reasons."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A field between two numbers, both of which it may be.

    Args:
        field: dotted name, as `retrain.learning_rate`.
        low, high: the limits.
        log: whether the logarithm is drawn evenly, in place of the number.
        step: distance of neighbouring values from `low` on; None for any number (any whole number).
        whole: whether only whole numbers are drawn.
    """

    field: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def to_json(self) -> dict[str, Any]:
        """What a file of ranges says of it."""
        found: dict[str, Any] = {"low": self.low, "high": self.high}
        return found | ({"log": True} if self.log else {}) | ({"step": self.step} if self.step else {})

    def describe(self) -> str:
        """The range in the notation of the command line."""
        suffix = ":log" if self.log else f":{self.step:g}" if self.step else ""
        return f"{self.low:g}..{self.high:g}{suffix}"

    def position(self, value: float) -> float:
        """Where a value stands between the limits, from 0 to 1."""
        scale = math.log if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))


@dataclasses.dataclass(frozen=True)
class Choices:
    """A field that is one of some values.

    Args:
        field: dotted name.
        values: as a configuration in plain JSON types has them.
    """

    field: str
    values: tuple[Any, ...]

    def to_json(self) -> list[Any]:
        """What a file of ranges says of it."""
        return list(self.values)

    def describe(self) -> str:
        """The choices in the notation of the command line."""
        return ",".join(map(show, self.values))

    def texts(self) -> list[str]:
        """The values as texts, which keras-tuner takes of any kind."""
        return [json.dumps(value) for value in self.values]

    def position(self, value: Any) -> float:
        """Where a value stands among the others, from 0 to 1."""
        return self.values.index(value) / (len(self.values) - 1)


Dimension = Range | Choices
Space = dict[str, Dimension]
"""What is varied, by the name of the field."""


def show(value: Any) -> str:
    """Returns a value of a field as a person writes it: 0.0123, true, none, 1,2."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(show, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def read_file(path: str | Path) -> dict[str, Any]:
    """Returns what a YAML file says of fields, by dotted name; they may stand in sections.

    Raises:
        UsageError: it cannot be read, or holds no fields.
    """
    what, holds = f"space file {path}", "it must hold fields, as retrain.drop_path: [0, 0.1]"
    values = read_mapping(path, what, holds)
    if not values:
        raise UsageError(f"{what}: found nothing; {holds}")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and "low" not in value and "high" not in value:
            found |= {f"{name}.{field}": item for field, item in value.items()}
        else:
            found[str(name)] = value
    return found


def read_flags(texts: Sequence[str]) -> dict[str, str]:
    """Returns what texts as `retrain.drop_path=0,0.1` say of fields, by dotted name.

    Raises:
        UsageError: one has no name or no value, or a field stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise UsageError(f"vary {text}: accepted is FIELD=RANGE, and as RANGE {ACCEPTED}")
        if name in found:
            raise UsageError(f"vary {name}: it stands twice; give it once")
        found[name] = value
    return found


def make(given: Mapping[str, Any], config: Config, sections: Sequence[str], objective: str) -> Space:
    """Returns the space that is given, checked by the limits of each field.

    Args:
        given: of each field a text in the notation of the command line, a list of values, or a mapping with
            `low`, `high` and perhaps `log` or `step`.
        config: the configuration that trials have besides.
        sections: those that the objective depends on.
        objective: its name.

    Raises:
        UsageError: a field is unknown or cannot be varied, or its range is none; the message names it.
    """
    if not given:
        raise UsageError("vary: nothing is varied; give a field and its range, as retrain.drop_path=0,0.1")
    own = {None, *SECTIONS, *(name for name in config.to_dict() if name not in type(config).model_fields)}
    known = {option.path: option for option in options() if option.section in own}
    space: Space = {}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"vary {name}: {unknown(name, known)}")
        option = known[name]
        reason = _SAME_OUTCOME if option.free else _FIXED.get(name)
        if reason is None and option.section not in sections:
            reason = f"the objective {objective} does not depend on it; it does on {', '.join(sections)}"
        if reason is not None:
            raise UsageError(f"vary {name}: it cannot be varied: {reason}")
        try:
            space[name] = _dimension(option, value)
        except UsageError as error:
            raise UsageError(f"vary {name}: {str(error).removeprefix(f'{name}: ')}") from error
    return space


def to_json(space: Space) -> dict[str, Any]:
    """Returns a space as a file says it; `make` reads it."""
    return {name: dimension.to_json() for name, dimension in space.items()}


def _dimension(option: Option, value: Any) -> Dimension:
    if isinstance(value, Mapping):
        return _range(option, value)
    if isinstance(value, str):
        if _is_number(option) and ".." in value:
            return _range(option, _range_of_text(value))
        separator = ";" if _is_list(option) else ","
        value = [item.strip() for item in value.split(separator)]
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"found {value!r}; accepted are {ACCEPTED}")
    values = [plain(option.parse(item)) for item in value]
    if len(values) < 2:
        raise UsageError(f"found {show(values)!r}, which is no choice; accepted are {ACCEPTED}")
    for number, one in enumerate(values):
        if one in values[:number]:
            raise UsageError(f"found {show(one)} twice; give each value once")
    return Choices(option.path, tuple(values))


def _range_of_text(text: str) -> dict[str, Any]:
    found = re.fullmatch(r"(.*?)\.\.([^:]*)(?::(.*))?", text)
    if found is None:
        raise UsageError(f"found {text!r}; accepted are {ACCEPTED}")
    low, high, how = found.groups()
    extra = {} if how is None else {"log": True} if how == "log" else {"step": how}
    return {"low": low, "high": high, **extra}


def _range(option: Option, given: Mapping[str, Any]) -> Range:
    if not _is_number(option):
        raise UsageError(f"found a range, and the field is no number; accepted are {_some_values(option)}")
    strange = [str(key) for key in given if key not in ("low", "high", "log", "step")]
    if strange or "low" not in given or "high" not in given:
        raise UsageError(f"found {', '.join(map(str, given))}; accepted are low, high, and log or step")
    low, high = option.parse(given["low"]), option.parse(given["high"])
    if low is None or high is None:
        raise UsageError(f"found none as a limit; accepted are {ACCEPTED}")
    if not low < high:
        raise UsageError(f"found {low:g}..{high:g}, which is no range; the lower number comes first")
    log, step = given.get("log", False), given.get("step")
    if not isinstance(log, bool):
        raise UsageError(f"found log: {log!r}; accepted is true or false")
    if log and step is not None:
        raise UsageError("found log and step; give one of them")
    if log and low <= 0:
        raise UsageError(f"found {low:g}..{high:g}:log; on a logarithmic scale the lower limit is above 0")
    whole = option.kind is int
    return Range(option.path, low, high, log, None if step is None else _step(step, high - low, whole), whole)


def _step(found: Any, width: float, whole: bool) -> float:
    try:
        step = float("nan") if isinstance(found, bool) else float(found)
    except (TypeError, ValueError):
        step = float("nan")
    if not 0 < step <= width or (whole and step != int(step)):
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"found the step {found!r}; accepted is log, or {kind} above 0 and up to {width:g}")
    return int(step) if whole else step


def _is_number(option: Option) -> bool:
    return option.kind in (int, float) and not option.choices and not _is_list(option)


def _is_list(option: Option) -> bool:
    """Whether a value of the field is itself a list, so that choices are parted by semicolons."""
    waiting = [option.field.annotation]
    while waiting:
        part = waiting.pop()
        origin = typing.get_origin(part)
        if origin is tuple:
            return True
        if origin in (typing.Annotated, typing.Union, types.UnionType):
            waiting.append(typing.get_args(part)[0])
    return False


def _some_values(option: Option) -> str:
    return f"some of {', '.join(map(show, option.choices))}" if option.choices else "values, parted by commas"
