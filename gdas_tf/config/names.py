"""Names that values of the configuration may take because somebody has registered them.

The registries are looked up by the names of their modules when a value is checked, not imported with this
module: some stand on a higher floor, all of them would cost time in `gdas-tf --help`, and strategies import
the base of their sections from this package.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from gdas_tf.errors import UsageError
from gdas_tf.registry import Registry, did_you_mean

_REGISTRIES = {
    "strategy": ("gdas_tf.strategies.base", "STRATEGIES", ("gdas",)),
    "space": ("gdas_tf.spaces.base", "SPACES", ("darts",)),
    "network": ("gdas_tf.networks.registry", "NETWORKS", ("derived",)),
    "format": ("gdas_tf.export.formats", "FORMATS", ()),
}
"""The registry of each kind: its module, its name there, and the names that hold as long as there is none."""


def names(kind: str) -> tuple[str, ...]:
    """Returns the names of a kind that are registered by now.

    Args:
        kind: "strategy", "space", "network" or "format".
    """
    registry = _registry(kind)
    return tuple(registry) if registry is not None else _REGISTRIES[kind][2]


def _registry(kind: str) -> Registry[Any] | Mapping[str, Any] | None:
    module, attribute, _ = _REGISTRIES[kind]
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return found if isinstance(found, Registry) or kind == "format" else None


def strategy_sections(taken: Collection[str]) -> dict[str, type[BaseModel]]:
    """Returns the sections of the strategies that have fields of their own, by the strategies' names.

    Args:
        taken: names of the configuration's own sections and fields.

    Raises:
        UsageError: a section cannot have the name of its strategy.
    """
    registry = _registry("strategy")
    found = {name: getattr(registry.get(name), "section", None) for name in registry} if registry else {}
    sections = {name: section for name, section in found.items() if section is not None}
    for name in sections:
        if name in taken or not name.replace("-", "_").isidentifier():
            raise UsageError(
                f"strategy {name!r}: the configuration cannot have a section of this name; register the "
                "strategy under another one, of letters, digits and underscores"
            )
    return sections


def strategies_reading(field: str) -> tuple[str, ...]:
    """Returns the strategies that read a field of the section `search` which not every one does.

    One that does not say what it reads may read all of them.
    """
    registry = _registry("strategy") or ()
    return tuple(name for name in registry if field in getattr(registry.get(name), "reads", (field,)))


def derives(strategy: Any) -> bool:
    """Returns whether the genotype of a strategy is derived by the section `derive`; of one that is not
    registered it is assumed."""
    registry = _registry("strategy") or ()
    return strategy not in registry or getattr(registry.get(strategy), "derives", True)


def check_strategy(config: Any) -> None:
    """Lets the strategy of a configuration find out what does not fit together there.

    Raises:
        UsageError: something does not.
    """
    registry = _registry("strategy")
    check = getattr(registry.get(config.search.strategy), "check_config", None) if registry else None
    if check is not None:
        check(config)


def hint(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Returns "did you mean …?" for an unknown name, or `otherwise` where none that is known is near."""
    return did_you_mean(name, known) or otherwise
