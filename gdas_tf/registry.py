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
from collections.abc import Iterator
from typing import Generic, TypeVar

from gdas_tf.errors import UsageError

Item = TypeVar("Item")


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
        near = difflib.get_close_matches(str(name), self._items, n=1)
        return f"did you mean {near[0]}?" if near else f"accepted are {', '.join(self._items) or 'none yet'}"

    def names(self) -> tuple[str, ...]:
        """Returns all names, in the order of their registration."""
        return tuple(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
