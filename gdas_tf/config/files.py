"""Files of configurations: YAML and JSON in, YAML out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gdas_tf.config.option import Option
from gdas_tf.errors import UsageError
from gdas_tf.user_files import parse_json, parse_yaml, read_text


def read_values(path: str | Path) -> dict[str, Any]:
    """Returns what a YAML or JSON file holds; nothing is checked but that it may be a configuration.

    Raises:
        UsageError: the file can't be read, or isn't YAML or JSON.
    """
    path = Path(path)
    text = read_text(path, f"configuration file {path}")
    try:
        values = parse_json(text) if path.suffix.lower() == ".json" else parse_yaml(text)
    except ValueError as error:  # a date that is none is one as well
        raise UsageError(f"configuration file {path}: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UsageError(f"configuration file {path}: found {values!r:.40}; it must hold sections")
    return {str(name): value for name, value in values.items()}


def to_yaml(values: Sequence[tuple[Option, Any]], comments: bool = False) -> str:
    """Returns fields with their values as YAML.

    Args:
        values: fields, those of a section one after the other, and the value of each.
        comments: add each field's help.
    """
    lines: list[str] = []
    section = None
    for option, value in values:
        if option.section != section:
            section = option.section
            lines.append(f"{section}:")
        line = f"{'  ' if section else ''}{option.name}: {_yaml_value(value)}"
        lines.append(f"{line:<42}  # {option.describe()}" if comments else line)
    return "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    """Returns a value as YAML; JSON is, but for floats like 1e-05, which YAML 1.1 takes for text."""
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_yaml_value(item) for item in value) + "]"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text
    return json.dumps(value, ensure_ascii=False)
