"""The journal of a search that compares candidates: a line for each, found again after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gdas_tf.files import atomic_write
from gdas_tf.runs.metrics import append_line


class Journal:
    """Lines of JSON in a file, in the order in which candidates were judged.

    A search that is the same in every process asks for the same lines in the same order. So one that was
    killed and goes on finds those that are there, and writes the others.

    Args:
        path: `search/candidates.jsonl` of a run directory.

    Example:
        >>> journal = Journal(run.file("search/candidates.jsonl"))
        >>> journal.begin(resume=False)
        >>> journal.recall(epoch=3, genotype="normal=…") is None
        True
        >>> journal.add({"epoch": 3, "genotype": "normal=…", "loss": 0.7})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[dict[str, Any]] = []

    def begin(self, resume: bool) -> None:
        """Keep the whole lines of a search that goes on, or none.

        A process that is killed while it writes leaves a half line; that one and all after it are dropped.
        """
        self._found = _whole_lines(self.path) if resume else []
        if self._found:
            atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self._found))
        else:
            self.path.unlink(missing_ok=True)

    def read(self) -> list[dict[str, Any]]:
        """Returns the whole lines of the file as it is, and changes nothing."""
        return _whole_lines(self.path)

    def recall(self, **wanted: Any) -> dict[str, Any] | None:
        """Returns the line of before `begin` whose values are the wanted ones, or None."""
        for line in self._found:
            if all(line.get(name) == value for name, value in wanted.items()):
                return line
        return None

    def add(self, line: Mapping[str, Any]) -> None:
        """Writes a line; a number that is not finite becomes null.

        Raises:
            RunError: the disk is full.
        """
        append_line(self.path, line)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                break
            if not isinstance(line, dict):
                break
            lines.append(line)
    return lines
