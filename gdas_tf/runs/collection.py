"""A folder of many runs that belong together, with a file that says what all of it is of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gdas_tf.config.config import differences
from gdas_tf.errors import UsageError
from gdas_tf.files import atomic_write, locked, writing

if TYPE_CHECKING:
    from pydantic import BaseModel


class RunCollection:
    """A folder of many runs, as that of a study.

    Args:
        path: the folder.

    Attributes:
        noun: what it is the folder of.
        file: name of the file that describes it.
        may_grow: fields of the description that may be higher when it is resumed.
        growth: that in words.
    """

    noun: ClassVar[str]
    file: ClassVar[str]
    may_grow: ClassVar[tuple[str, ...]]
    growth: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def is_one(cls, path: str | Path) -> bool:
        """Whether there is such a folder at a path."""
        return (Path(path) / cls.file).is_file()

    def described_by(self) -> Path:
        """The file that describes it.

        Raises:
            UsageError: there is none.
        """
        if not self.is_one(self.path):
            raise UsageError(
                f"{self.noun} {self.path}: it has no {self.file}; it is no folder of a {self.noun}"
            )
        return self.path / self.file

    def description(self) -> BaseModel:
        """What the folder is of.

        Raises:
            UsageError: its file is missing or damaged.
        """
        raise NotImplementedError

    def begin(self, described: BaseModel) -> None:
        """Makes the folder, or makes sure that it is one of the same description, which may have grown.

        Raises:
            UsageError: there is one of another description, or something else.
        """
        if self.is_one(self.path):
            self.check_same(described)
        elif self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.noun} {self.path}: it is a file; choose another folder")
        elif self.path.is_dir() and any(item.name != ".lock" for item in self.path.iterdir()):
            raise UsageError(
                f"{self.noun} {self.path}: the folder is not empty and no {self.noun}; choose another folder"
            )
        self.write(described)

    def write(self, described: BaseModel) -> None:
        """Writes the description; JSON is YAML."""
        import yaml

        values = described.model_dump(mode="json")
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
        atomic_write(self.path / self.file, text)

    def check_same(self, described: BaseModel) -> None:
        """Makes sure that the folder is of a description, but for what may have grown.

        Raises:
            UsageError: it is of another one.
        """
        there, now = (one.model_dump(mode="json") for one in (self.description(), described))
        fewer = [name for name in self.may_grow if _less(now[name], there[name])]
        for name in self.may_grow:
            if name not in fewer:
                del there[name], now[name]
        changes = differences(there, now)
        if changes:
            listed = "; ".join(f"{name} = {old} there, {new} now" for name, old, new in changes[:4])
            listed += f"; and {len(changes) - 4} more" * (len(changes) > 4)
            raise UsageError(
                f"{self.noun} {self.path}: it is another {self.noun} ({listed}); resume it as it is, or "
                f"choose another folder; {self.growth}"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder; the system frees it when the process ends, however it ends.

        Raises:
            UsageError: another process holds it.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path, f"{self.noun} {self.path}: another process is doing it; wait for it"):
            yield


def _less(now: Any, there: Any) -> bool:
    """Whether a number has become less; one that is not given is not."""
    return now is not None and there is not None and now < there
