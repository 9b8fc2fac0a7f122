"""What pydantic found wrong, in one line that names the field, the value and what is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gdas_tf.config.fields import not_accepted
from gdas_tf.config.names import hint

if TYPE_CHECKING:
    from gdas_tf.config.option import Option

_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("above", "gt"),
    "less_than": ("below", "lt"),
}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def message(error: ValidationError, options: Sequence[Option], section: str | None = None) -> str:
    """Returns a line on the first thing that is wrong with a configuration.

    Args:
        error: what pydantic raised for it.
        options: all fields that there are.
        section: the section that was checked; None for the whole configuration.
    """
    first = error.errors()[0]
    known = {option.path: option for option in options}
    names = [section, *first["loc"]] if section else first["loc"]
    path = ".".join(name for name in names if isinstance(name, str))
    if path in known:
        return f"{path}: {complaint(first, known[path])}"
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return unknown(path, known)
    if first["type"] == "value_error":
        return f"{path}: {first['ctx']['error']}" if path else str(first["ctx"]["error"])
    sample = next((option.name for option in options if option.section == path), "name")
    return f"{path}: found {first['input']!r}; a section holds fields, as {path}: {{{sample}: …}}"


def unknown(path: str, known: Mapping[str, Option]) -> str:
    """Returns a line on a field that is not there."""
    sections = {option.section for option in known.values() if option.section}
    near = [*known, *sections] if "." not in path else known
    return f"unknown configuration field {path!r}; {hint(path, near, 'gdas-tf run --print-config lists all')}"


def complaint(error: Mapping[str, Any], option: Option) -> str:
    """Returns what is wrong with the value of one field: what was found, and what is accepted.

    Args:
        error: one of pydantic's `ValidationError.errors()`.
        option: the field.
    """
    kind, found = error["type"], error["input"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "missing":
        return "it is missing, and it has no default; give it"
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        return f"found {found}; it must be {words} {error['ctx'][limit]}"
    if kind == "too_short":
        return "found nothing; at least one value is needed"
    if option.choices:
        return not_accepted(found, option.choices, option.besides)
    if kind.startswith(("int_", "float_", "bool_", "string_", "finite_")):
        return f"found {found!r}; accepted is {_KINDS[option.kind]}"
    return f"found {found!r}; {error['msg']}"
