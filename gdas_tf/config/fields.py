"""What fields of the configuration are made of: pydantic's types, as YAML files and command lines write them.

A strategy, also one of a user's, makes its section of these.

Example:
    >>> class RandomConfig(Section):
    ...     candidates: Whole = Field(1, ge=1, description="genotypes to draw, of which the best is taken")
    ...     measure: Literal["loss", "accuracy"] = Field("loss", description="what the best is best by")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from gdas_tf.config.names import hint, names
from gdas_tf.errors import UsageError
from gdas_tf.spaces.base import CUSTOM
from gdas_tf.spaces.custom import is_file_name
from gdas_tf.user_files import parse_yaml

RULES = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
"""How all parts of a configuration are checked. Nothing is built before a value is: `--help` needs none."""

IMAGE_SIDES = (8, 1024)
"""Pixels of the shortest and of the longest side that images may be resized to."""


class Section(BaseModel):
    """Base of the sections: frozen, refuses unknown fields, takes text for numbers (YAML's 1e-3 is text)."""

    model_config = RULES


@dataclass(frozen=True)
class Metavar:
    """Placeholder of a field's value in `--help`."""

    text: str


@dataclass(frozen=True)
class Free:
    """Marks a field that nothing depends on that a stage has done so far, so that it may have another value
    when it is resumed."""


@dataclass(frozen=True)
class Before:
    """The value that runs had before the field was there, if not the default (gdas_tf.config.former)."""

    value: Any


@dataclass(frozen=True)
class Formerly:
    """Former names of choices, which stay accepted."""

    synonyms: Mapping[str, str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_before_validator_function(self.today, handler(source))

    def today(self, value: Any) -> Any:
        """Returns the name that a choice has today."""
        return self.synonyms.get(value, value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Registered:
    """Accepts the names of a kind that are registered when the value is checked (gdas_tf.config.names)."""

    kind: str
    besides: ClassVar[str] = ""
    """What else is accepted, for messages."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def names(self) -> tuple[str, ...]:
        """The accepted names."""
        return names(self.kind)

    def _check(self, value: str) -> str:
        if value not in self.names():
            raise PydanticCustomError("not_registered", "unknown name")
        return value


class SpaceName(Registered):
    """Accepts the names of registered search spaces, and those of a YAML file that describes one."""

    besides = ", or a YAML file that describes one"

    def _check(self, value: str) -> str:
        return value if value == CUSTOM or is_file_name(value) else super()._check(value)


@dataclass(frozen=True)
class Pixels:
    """Accepts the size of images: see `image_size`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_plain_validator_function(image_size)


def not_accepted(value: Any, accepted: tuple[Any, ...], besides: str = "") -> str:
    """Returns what to say of a value that is none of those accepted."""
    near = hint(value, [name for name in accepted if isinstance(name, str)])
    return f"found {value!r}; accepted: {', '.join(map(str, accepted))}{besides}" + (
        f"; {near}" if near else ""
    )


def items(value: Any) -> Any:
    """Returns the items of a comma list; of anything else but a list or tuple, itself as the only one."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    return value if isinstance(value, (list, tuple)) else [value]


def _every_format(value: Any) -> Any:
    found = items(value)
    return list(names("format")) if list(found) == ["all"] else found


def _number(value: Any) -> Any:
    # Python counts with True as with 1; a user who writes it means another field.
    if isinstance(value, bool):
        raise PydanticCustomError("bool_for_number", "a number is expected")
    return value


def _whole_number(value: Any) -> Any:
    try:
        return int(value) if isinstance(value, str) else _number(value)
    except ValueError:
        return value


def _mapping(value: Any) -> Any:
    try:
        return parse_yaml(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UsageError(str(error)) from error


def image_size(value: Any) -> int | tuple[int, int]:
    """Returns the size of images: the side of a square, or else height and width.

    Args:
        value: a whole number, two of them, or text as `32` or `48x64` (height x width).

    Raises:
        UsageError: it is none of these, or a side is outside of `IMAGE_SIDES`.
    """
    found = "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    match = re.fullmatch(r"(-?\d{1,6})(?:x(-?\d{1,6}))?", found.strip().lower())
    if match is None:
        raise UsageError(f"found {found!r}; accepted are pixels, as 32 or 48x64 (height x width)")
    height, width = int(match[1]), int(match[2] or match[1])
    least, most = IMAGE_SIDES
    for side in (height, width):
        if not least <= side <= most:
            limit = f"at least {least}" if side < least else f"at most {most}"
            raise UsageError(f"found {found}; each side must be {limit} pixels")
    return height if height == width else (height, width)


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() == "none" else value


Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Colours = Annotated[Literal[1, 3], BeforeValidator(_whole_number)]
IfAny = BeforeValidator(_none)
Yaml = BeforeValidator(_mapping)
Items = BeforeValidator(items)
Formats = Annotated[
    tuple[Annotated[str, Registered("format")], ...], BeforeValidator(_every_format), Field(min_length=1)
]
