"""What a search space says of the configuration, where the user does not: sizes, ranks, its own definition.

The space of DARTS says nothing: its sizes are the defaults of the fields, the constants of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from gdas_tf import plugins
from gdas_tf.config.fields import items
from gdas_tf.config.sections import SECTIONS
from gdas_tf.errors import UsageError
from gdas_tf.spaces import custom
from gdas_tf.spaces.base import CUSTOM, SPACES, SearchSpace


def own_values(space: SearchSpace) -> dict[str, Any]:
    """Returns what fields of the configuration are in a space, by dotted name.

    Args:
        space: `cells` and `channels` of it, and the number of inputs that a node keeps, where it keeps its
            best ones. What it does not say has the default of the field.
    """
    found: dict[str, Any] = {
        f"{section}.{name}": getattr(space, name)
        for section in ("search", "retrain")
        for name in ("cells", "channels")
    }
    found["derive.ranks"] = tuple(range(1, space.inputs_per_node + 1)) if space.keep == "best" else None
    for path, value in found.items():
        section, _, name = path.partition(".")
        if value is None:
            found[path] = SECTIONS[section].model_fields[name].default
    return found


def with_own_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a configuration with those that its space says and the user does not.

    Where `search.space` names a YAML file, what the file holds takes its place: `search.space` is "custom",
    `search.definition` the content, and `plugins` names the files that the space needs. So a configuration
    does not depend on the file any more.

    Args:
        values: sections and fields as a user gives them; nothing is checked but the space.

    Raises:
        UsageError: the file of a space cannot be read, or what it says is not accepted.
    """
    values = {name: _given(value) if name in SECTIONS else value for name, value in values.items()}
    search = values.get("search", {})
    name = search.get("space") if isinstance(search, Mapping) else None
    if name is None or name == "darts":
        return values
    what = "search.definition"
    if custom.is_file_name(name):
        what = f"search space {name}"
        definition, files = custom.read(name)
        given = items(values.get("plugins", ()))
        values["plugins"] = [*given, *(file for file in files if file not in given)]
        values["search"] = {**search, "space": CUSTOM, "definition": definition}
        try:
            plugins.load(values["plugins"])
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from error
        custom.make(definition, what)
    for path, value in _missing(values, what):
        section, _, field = path.partition(".")
        values[section] = {**values.get(section, {}), field: value}
    return values


def without_own_values(values: dict[str, Any], space: SearchSpace, chosen: Iterable[str]) -> dict[str, Any]:
    """Returns the values of a configuration without what a space has said, as another one takes its place.

    Args:
        values: nested values of a whole configuration.
        space: the space before.
        chosen: dotted names that the user gives; what stands there stays.
    """
    said = {path: value for path, value in own_values(space).items() if path not in chosen}
    return {
        section: {
            name: value
            for name, value in fields.items()
            if f"{section}.{name}" not in said or said[f"{section}.{name}"] != value
        }
        if section in SECTIONS
        else fields
        for section, fields in values.items()
    }


def _given(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def _missing(values: Mapping[str, Any], what: str) -> list[tuple[str, Any]]:
    """The fields that are not given, with what the space says of them."""
    search = values["search"]
    sections = {name: values.get(name, {}) for name in ("search", "derive", "retrain")}
    if not all(isinstance(fields, Mapping) for fields in sections.values()):
        return []  # whoever checks the configuration names it
    lacking = [
        path
        for path in own_values(SearchSpace())
        if path.partition(".")[2] not in sections[path.partition(".")[0]]
    ]
    if not lacking:
        return []
    try:
        plugins.load(items(values.get("plugins", ())))  # they may register the space, or its operations
    except (UsageError, TypeError):
        return []
    if search["space"] == CUSTOM and isinstance(search.get("definition"), Mapping):
        space = custom.make(search["definition"], what)
    elif search["space"] in SPACES:
        space = SPACES.get(search["space"])
    else:
        return []
    own = own_values(space)
    return [(path, own[path]) for path in lacking]
