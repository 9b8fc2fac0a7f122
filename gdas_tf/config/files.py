"""Files of configurations: YAML and JSON in, YAML out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdas_tf.config.option import Option
from gdas_tf.user_files import read_mapping


def read_values(path: str | Path) -> dict[str, Any]:
    """Returns what a YAML or JSON file holds; nothing is checked but that it may be a configuration.

    Raises:
        UsageError: the file can't be read, or isn't YAML or JSON.
    """
    return read_mapping(path, f"configuration file {path}", "it must hold sections")


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
