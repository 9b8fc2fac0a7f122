"""One field of the configuration, as the command line, YAML files and messages see it."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gdas_tf.config.fields import RULES, Before, Formerly, Free, Metavar, Registered
from gdas_tf.config.messages import complaint
from gdas_tf.errors import UsageError

_FLAGS = {"data.name": "--data", "data.data_dir": "--data-dir", "distribution.kind": "--distribution"}


@dataclass(frozen=True)
class Option:
    """One field of the configuration.

    Args:
        section: the section that it stands in; None for those outside any.
        name: its name there.
        field: what pydantic knows of it.
    """

    section: str | None
    name: str
    field: FieldInfo

    @property
    def path(self) -> str:
        """The dotted name, as `search.epochs`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def flag(self) -> str:
        """The option on the command line, as `--search-epochs`."""
        return _FLAGS.get(self.path, "--" + self.path.replace(".", "-").replace("_", "-"))

    @property
    def help(self) -> str:
        """What the field is, in one line."""
        return self.field.description or ""

    @property
    def default(self) -> Any:
        """The value of the paper; None where a field must be given."""
        return None if self.field.is_required() else self.field.get_default(call_default_factory=True)

    @property
    def before(self) -> Any:
        """The value that runs had before the field was there."""
        return next((mark.value for mark in self._marks(Before)), self.default)

    @property
    def free(self) -> bool:
        """Whether no outcome depends on it."""
        return any(True for _ in self._marks(Free))

    @property
    def metavar(self) -> str | None:
        """The placeholder of the value in `--help`, if the field names one."""
        return next((mark.text for mark in self._marks(Metavar)), None)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The accepted values (of each element, where several are given); none where any value is."""
        for mark in self._marks(Registered):
            return mark.names()
        for part in self._parts():
            if typing.get_origin(part) is typing.Literal:
                return typing.get_args(part)
        return ()

    @property
    def besides(self) -> str:
        """What is accepted besides the choices, for messages."""
        return next((mark.besides for mark in self._marks(Registered)), "")

    @property
    def kind(self) -> type:
        """The type of the value, or of its elements: int, float, bool or str."""
        if self.choices:
            return type(self.choices[0])
        return next((part for part in self._parts() if part in (int, float, bool, str)), str)

    @property
    def is_bool(self) -> bool:
        return self.field.annotation is bool

    def today(self, value: Any) -> Any:
        """Returns the name that a choice has today, of one that earlier versions wrote."""
        for mark in self._marks(Formerly):
            value = mark.today(value)
        return value

    def describe(self) -> str:
        """Returns the help text with the accepted values."""
        return f"{self.help} ({', '.join(map(str, self.choices))})" if self.choices else self.help

    def parse(self, value: Any) -> Any:
        """Returns `value` converted to the field's type.

        Args:
            value: a value of the type, or its text as the command line or a YAML file has it.

        Raises:
            UsageError: the value has another type or lies outside the limits; the line names the field.
        """
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise UsageError(f"{self.path}: {complaint(error.errors()[0], self)}") from error

    @cached_property
    def _adapter(self) -> TypeAdapter:
        kind = (
            typing.Annotated[(self.field.annotation, *self.field.metadata)] if self.field.metadata else None
        )
        return TypeAdapter(kind or self.field.annotation, config={"allow_inf_nan": RULES["allow_inf_nan"]})

    def _parts(self) -> Iterator[Any]:
        """The type, and all types and marks in it."""
        waiting = [self.field.annotation, *self.field.metadata]
        while waiting:
            part = waiting.pop(0)
            yield part
            origin = typing.get_origin(part)
            if origin is typing.Annotated:
                waiting = [part.__origin__, *part.__metadata__, *waiting]
            elif origin in (tuple, list, typing.Union, types.UnionType):
                waiting = [*typing.get_args(part), *waiting]

    def _marks(self, kind: type) -> Iterator[Any]:
        return (part for part in self._parts() if isinstance(part, kind))
