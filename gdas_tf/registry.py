"""Registries: things of one kind by name, as operations, search spaces, strategies and networks are.

What a user writes registers itself in the same way as what comes with the package.

Example:
    >>> SHAPES = Registry("shape")
    >>> SHAPES.register("circle", 3.14)
    3.14
    >>> SHAPES.get("circle"), SHAPES.names()
    (3.14, ('circle',))
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from gdas_tf.errors import UsageError

Item = TypeVar("Item")

_SHORTEST = 3
"""Letters that a name must have for those that begin with it to be meant."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "did you mean …?" for an unknown name, or nothing where none that is known is near.

    Those that begin with the name are near, then those that are written alike, in upper or lower case.

    Args:
        name: the unknown name.
        known: the names that there are.

    Example:
        >>> did_you_mean("nasnet", ["ENAS", "NASNet-A"])
        'did you mean NASNet-A?'
    """
    folded = {one.casefold(): one for one in reversed(list(known))}
    name = str(name).casefold()
    near = [one for one in reversed(folded) if len(name) >= _SHORTEST and one.startswith(name)]
    near = near or difflib.get_close_matches(name, list(reversed(folded)), n=1)
    return f"did you mean {folded[near[0]]}?" if near else ""


class Registry(Generic[Item]):
    """Things of one kind by name, in the order of their registration.

    Args:
        kind: what they are, for messages, as "operation".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, Item] = {}

    def register(self, name: str, item: Item) -> Item:
        """Adds a thing, and returns it.

        Raises:
            UsageError: there is another one of that name.
        """
        if name in self._items and self._items[name] is not item:
            raise UsageError(f"{self.kind} {name!r} is registered already; choose another name")
        self._items[name] = item
        return item

    def get(self, name: str) -> Item:
        """Returns the thing of a name.

        Raises:
            UsageError: there is none of that name; the message names those that are near, or all.
        """
        if name not in self._items:
            raise UsageError(f"unknown {self.kind} {name!r}; {self.hint(name)}")
        return self._items[name]

    def hint(self, name: str) -> str:
        """Returns what to write in place of an unknown name."""
        return did_you_mean(name, self._items) or f"accepted are {', '.join(self._items) or 'none yet'}"

    def names(self) -> tuple[str, ...]:
        """Returns all names, in the order of their registration."""
        return tuple(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
