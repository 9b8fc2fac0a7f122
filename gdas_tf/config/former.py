"""What an earlier version wrote, read as it was meant: fields of the configuration that were not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gdas_tf.config.config import Config, options


def former_config(sections: Iterable[str]) -> Config:
    """Returns the defaults, but in some sections the values that runs had before there were fields for them.

    Args:
        sections: those that a stage depends on which has begun; it goes on as it began.
    """
    values = {option.path: option.before for name in set(sections) for option in options(name)}
    return Config().override(values)


def completed(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint depends on with the fields that were not there when it was written.

    Args:
        found: sections and other values, as the checkpoint has them.
        wanted: the same of now, whose fields are taken.
    """
    result = dict(found)
    sections = {option.section for option in options() if option.section}
    # What has no section there is a strategy's, which had no fields of its own then.
    for section in (name for name in wanted if name in sections):
        known = {option.name: option for option in options(section)}
        values = {name: known[name].before for name in wanted[section] if name in known}
        for name, value in found.get(section, {}).items():
            values[name] = known[name].today(value) if name in known else value
        result[section] = values
    return result
