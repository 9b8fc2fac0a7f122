"""A search space of one's own as a YAML file: operations, inputs, nodes, edges, output, macro architecture.

Example:
    >>> make({"operations": ["skip_connect", "conv_3x3"], "inputs": 1, "nodes": 3, "keep": "all"}).edge_count
    6
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.registry import did_you_mean
from gdas_tf.spaces.base import CUSTOM, OPERATION_SETS, SearchSpace
from gdas_tf.user_files import read_mapping, user_path

SUFFIXES = (".yaml", ".yml")

PLUGINS = "plugins"
"""The key of the files that register operations of one's own; relative paths begin at the YAML file."""

MACRO = "macro"
MACRO_KEYS = ("between", "stem", "preprocess", "head_norm", "cells", "channels")
KEYS = (PLUGINS, "operations", "inputs", "nodes", "keep", "output", "reduction", "with_none", MACRO)
"""What a file may say; each but `plugins`, `keep` and `macro` is the field of that name of `SearchSpace`."""


def is_file_name(name: object) -> bool:
    """Whether what `search.space` names is the file of a space."""
    return isinstance(name, str) and name.lower().endswith(SUFFIXES)


def read(path: str | Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads the file of a space.

    Args:
        path: the file; `~` is the home folder.

    Returns:
        The definition, which `make` takes, and the absolute paths of its plugins.

    Raises:
        UsageError: the file cannot be read, is not YAML, or has an unknown key or a bad list of plugins.
    """
    path = user_path(path, "search space")
    what = f"search space {path}"
    definition = read_mapping(path, what, f"accepted are the keys {', '.join(KEYS)}")
    _check_keys(definition, KEYS, what)
    plugins = definition.pop(PLUGINS, None) or []
    if isinstance(plugins, str):
        plugins = [plugins]
    if not isinstance(plugins, list) or not all(isinstance(name, str) and name for name in plugins):
        raise UsageError(f"{what}: plugins is {plugins!r:.60}; accepted is a list of Python files")
    folder = path.absolute().parent
    return definition, tuple(str(folder / user_path(name, "plugin")) for name in plugins)


def make(definition: Mapping[str, Any], what: str = "search space") -> SearchSpace:
    """Returns the space of a definition; the operations that it names are registered already.

    Args:
        definition: what `read` gave.
        what: the space, as an error names it.

    Raises:
        UsageError: a key is unknown, or a value is not accepted; the message names it.
    """
    if not isinstance(definition, Mapping):
        raise UsageError(f"{what}: found {definition!r:.40}; accepted are the keys {', '.join(KEYS[1:])}")
    _check_keys(definition, KEYS[1:], what)
    values = dict(definition)
    macro = values.pop(MACRO, None) or {}
    if not isinstance(macro, Mapping):
        raise UsageError(f"{what}: macro is {macro!r:.40}; accepted are the keys {', '.join(MACRO_KEYS)}")
    _check_keys(macro, MACRO_KEYS, f"{what}: macro")
    values |= macro
    if "operations" not in values:
        raise UsageError(
            f"{what}: operations is missing; name {', '.join(OPERATION_SETS)}, or a list of operations"
        )
    values["operations"] = _operations(values["operations"], what)
    values |= _kept(values, what)
    try:
        return SearchSpace(name=CUSTOM, **values)
    except UsageError as error:
        raise UsageError(f"{what}: {str(error).removeprefix('search space: ')}") from error


def _check_keys(values: Mapping[Any, Any], known: Collection[str], what: str) -> None:
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known) or f"accepted are {', '.join(known)}"
            raise UsageError(f"{what}: unknown key {str(key)!r}; {hint}")


def _operations(value: Any, what: str) -> tuple[str, ...]:
    """The operations of the name of a set, of a comma list, or of a list."""
    if isinstance(value, str):
        found = OPERATION_SETS.get(value.strip())
        value = found or [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple):
        raise UsageError(f"{what}: operations is {value!r:.40}; accepted is a list of names")
    for name in value:
        if name not in OPERATIONS:
            raise UsageError(f"{what}: unknown operation {name!r}; {OPERATIONS.hint(name)}")
    return tuple(value)


def _kept(values: dict[str, Any], what: str) -> dict[str, Any]:
    """The fields `keep` and `inputs_per_node`, of the key `keep`: a number of edges, or "all"."""
    keep = values.pop("keep", None)
    if keep == "all":
        return {"keep": "all"}
    if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int)):
        raise UsageError(f"{what}: keep is {keep!r}; accepted are all, or a number of edges")
    inputs, nodes = values.get("inputs", 2), values.get("nodes", 4)
    if not all(isinstance(number, int) for number in (inputs, nodes)):
        return {}  # whoever makes the space names it
    most = max(1, inputs + nodes - 1)
    if keep is not None and not 1 <= keep <= most:
        raise UsageError(f"{what}: keep is {keep}; accepted are all, or 1 to {most} edges of the last node")
    return {"inputs_per_node": min(2, most) if keep is None else keep}
